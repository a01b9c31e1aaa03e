"""Decodes every mask as training would, and counts its classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from transfer.checking.findings import ERROR, NOTE, WARNING, Finding
from transfer.checking.images import ImageFacts
from transfer.checking.mask_reading import MaskedImage, MaskPart
from transfer.data.image import BrokenSample
from transfer.data.masks import Colour, UnknownValues, counted_values
from transfer.types import IGNORED_PIXEL, SegmentationDataset, Size

_REMEDIES = {
    "mask-missing": "copy it there, or remove its image",
    "mask-unreadable": "export it again as 8-bit grey or palette PNG, or remove it with its image",
    "mask-value-unknown": "name the value's class, or ignore it, in the config; or paint the mask anew",
    "mask-size-differs": "export the mask in the image's size, without smoothing",
}


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What decoding one mask showed."""

    code: str | None
    """What is wrong, such as "mask-unreadable"; None: nothing."""
    reason: str = ""
    size: Size | None = None
    """(height, width); None: it could not be decoded."""
    pixels: dict[int, int] = field(default_factory=dict)
    """Label -> pixels, IGNORED_PIXEL included; unknown values are in none of them."""
    unknown: dict[int | Colour, int] = field(default_factory=dict)
    """Value or colour that stands for no class -> pixels."""


def inspect_mask(dataset: SegmentationDataset, image: MaskedImage) -> MaskFacts:
    """Decode one mask."""
    code, reason, unknown = None, "", {}
    try:
        labels = dataset.mask(image.position)
    except UnknownValues as error:
        code, reason, labels, unknown = "mask-value-unknown", error.reason, error.labels, error.counts
    except BrokenSample as error:
        missing = image.mask_path is not None and not os.path.exists(image.mask_path)
        return MaskFacts("mask-missing" if missing else "mask-unreadable", error.reason)
    counts = np.bincount(labels.ravel(), minlength=IGNORED_PIXEL + 1)
    counts[IGNORED_PIXEL] -= sum(unknown.values())
    pixels = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    beyond: dict[int | Colour, int] = {
        label: count for label, count in pixels.items() if len(dataset.class_names) <= label < IGNORED_PIXEL
    }
    if beyond:  # a data set of the user's own
        code, reason = "mask-value-unknown", f"has labels above the last class: {counted_values(beyond)}"
        unknown = {**unknown, **beyond}
        pixels = {label: count for label, count in pixels.items() if label not in beyond}
    return MaskFacts(code, reason, (labels.shape[0], labels.shape[1]), pixels, unknown)


def mask_findings(part: MaskPart, image: MaskedImage, facts: MaskFacts, photograph: ImageFacts) -> Iterator[Finding]:
    """What is odd about one mask, and how it fits its photograph."""
    stops = WARNING if part.skips_broken_images else ERROR
    if facts.code is not None:
        yield Finding(stops, facts.code, part.name, image.annotation, facts.reason, _REMEDIES[facts.code])
    if facts.size is None:
        return
    if not facts.unknown and facts.pixels.keys() <= {IGNORED_PIXEL}:
        message = f"all {facts.pixels.get(IGNORED_PIXEL, 0):,} pixels are ignored"
        yield Finding(WARNING, "mask-empty", part.name, image.annotation, message, "annotate it, or remove it")
    if photograph.code is None:
        yield from _fit(part, image, facts.size, photograph, stops)


def _fit(part: MaskPart, image: MaskedImage, size: Size, photograph: ImageFacts, stops: str) -> Iterator[Finding]:
    turned = photograph.orientation != 1
    if size == photograph.size:
        if turned and photograph.size == photograph.stored_size:
            message = (
                f"EXIF orientation {photograph.orientation}, and the size is the same unturned: training takes the "
            )
            message += "mask as drawn on the turned image"
            remedy = "look at it; where the tool ignored EXIF, save the image upright"
            yield Finding(WARNING, "rotation-unclear", part.name, image.path, message, remedy)
        return
    says = f"the mask is {_by(size)}, its image {_by(photograph.size)}"
    if size == photograph.stored_size:
        message = f"{says} after the rotation that its EXIF data asks for"
        remedy = "nothing: training takes the pixels unrotated, as the mask was drawn"
        yield Finding(NOTE, "size-of-stored-pixels", part.name, image.annotation, message, remedy)
        return
    remedy = _REMEDIES["mask-size-differs"]
    yield Finding(stops, "mask-size-differs", part.name, image.annotation, says, remedy, image.path)


def _by(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
