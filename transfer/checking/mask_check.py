"""Finds every problem of a segmenter's data: reads all splits, decodes images and masks, and lists what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from transfer.build import Node
from transfer.checking.check import number_of_threads
from transfer.checking.duplicates import Pair, duplicate_findings, same_pictures
from transfer.checking.findings import ERROR, WARNING, Finding, in_order
from transfer.checking.images import ImageFacts, image_finding, in_threads, inspect_images
from transfer.checking.mask_reading import MaskedImage, MaskPart, read_mask_parts
from transfer.checking.mask_statistics import MaskStatistics, pixel_findings
from transfer.checking.masks import MaskFacts, inspect_mask, mask_findings
from transfer.checking.progress import with_progress
from transfer.checking.reading import PARTS
from transfer.data.subset import hold_out
from transfer.data.table_builder import UnusableFile
from transfer.types import IGNORED_PIXEL

_REMEDIES = {
    "image-missing": "copy the image there, or remove its mask or its line in the list",
    "mask-missing": "copy the mask there, or remove its image or its line in the list",
    "annotation-without-image": "remove it, or add its image",
    "json-entry-faulty": "mend the entry, or remove it with its image",
    "entry-unusable": "mend or remove it",
}


@dataclass
class MaskReport:
    """What a check found."""

    findings: list[Finding]
    statistics: list[MaskStatistics]
    class_names: tuple[str, ...]
    parts: list[MaskPart]
    facts: dict[str, ImageFacts]
    """Of the photographs, by path."""
    masks: dict[MaskedImage, MaskFacts]
    pairs: list[Pair[MaskedImage]]

    @property
    def is_wrong(self) -> bool:
        """Training would stop, or its figures would be wrong."""
        return any(finding.severity == ERROR for finding in self.findings)


def check_segmentation(config: Node, *, workers: int | None = None) -> MaskReport:
    """Check the data sets of a segmenter's config.

    Args:
        config: as `transfer.build.load_config` gives it; of it, `data`, `loader.on_broken` and the seed are used.
        workers: threads that decode, >= 1; None: one a core.

    Raises:
        UserError: mistakes of the config, or no data set that can be opened.
    """
    workers = number_of_threads(workers)
    parts = read_mask_parts(config)
    paths = {image.path: None for part in parts for image in part.images}  # a set in order
    decoded = with_progress(inspect_images(paths, workers=workers), len(paths), "images")
    facts = {fact.path: fact for fact in decoded}
    masks = _inspect_masks(parts, workers)
    _hold_out(config, parts[0], masks)
    pairs = same_pictures(parts, facts)
    findings: list[Finding] = []
    statistics: list[MaskStatistics] = []
    for part in parts:
        findings += _reading_findings(part)
        findings += _image_findings(part, facts, masks)
        statistics += _counts(part, masks)
    statistics.sort(key=lambda each: PARTS.index(each.name))
    findings += duplicate_findings(pairs, parts, facts, remedy_within="remove one with its mask")
    class_names = next((part.class_names for part in parts if part.class_names), ())
    findings += pixel_findings([each for each in statistics if each.images], class_names)
    findings = [dataclasses.replace(finding, fixable=False) for finding in in_order(findings)]  # no repair for masks
    return MaskReport(findings, statistics, class_names, parts, facts, masks, pairs)


def _inspect_masks(parts: list[MaskPart], workers: int) -> dict[MaskedImage, MaskFacts]:
    """The facts of every mask."""

    def inspect(part: MaskPart, image: MaskedImage) -> tuple[MaskedImage, MaskFacts]:
        assert part.dataset is not None
        return image, inspect_mask(part.dataset, image)

    jobs = [partial(inspect, part, image) for part in parts for image in part.images]
    return dict(with_progress(in_threads(lambda job: job(), jobs, workers=workers), len(jobs), "masks"))


def _hold_out(config: Node, train: MaskPart, masks: Mapping[MaskedImage, MaskFacts]) -> None:
    """Note which images data.val holds out, as `transfer.data.subset.split_validation` chooses them."""
    fraction = config["data"].get("val")
    if not isinstance(fraction, float) or train.dataset is None:
        return
    present = np.zeros((len(train.images), len(train.class_names)), bool)
    for number, image in enumerate(train.images):
        if masks[image].code is None:
            present[number, [label for label in masks[image].pixels if label != IGNORED_PIXEL]] = True
    chosen = hold_out(present, fraction, config["training"].get("seed", 0))
    train.held_out = {image.path for image, held in zip(train.images, chosen) if held}


def _reading_findings(part: MaskPart) -> Iterator[Finding]:
    """What the reading met."""
    for error in part.errors:
        if isinstance(error, UnusableFile):
            reason = str(error).removeprefix(f"{error.file}: ")
            yield Finding(ERROR, error.code, part.name, error.file, reason, "write the file again")
        elif not part.faults:  # otherwise they are what left no usable image
            yield Finding(ERROR, "data-set-unusable", part.name, "", str(error), "mend the config or the folder")
    for fault, skipped in part.faults:
        code = "entry-unusable" if fault.code == "image" else fault.code
        yield Finding(WARNING if skipped else ERROR, code, part.name, fault.file, fault.reason, _REMEDIES[code])
    for builder in part.builders:
        for remark in builder.remarks:
            remedy = "nothing: each image counts once"
            yield Finding(WARNING, remark.code, part.name, remark.file, remark.reason, remedy)
    if part.classes_differ:
        remedy = "give all data sets the same classes, or map them by class_names=[...] and rename={...}"
        yield Finding(ERROR, "classes-differ", part.name, "", part.classes_differ, remedy)


def _image_findings(
    part: MaskPart, facts: Mapping[str, ImageFacts], masks: Mapping[MaskedImage, MaskFacts]
) -> Iterator[Finding]:
    """Of every photograph and its mask."""
    told = set()
    for image in part.images:
        fact = facts[image.path]
        if image.path not in told:
            finding = image_finding(fact, part.name, skipped=part.skips_broken_images)
            if finding is not None:
                yield finding
        told.add(image.path)
        yield from mask_findings(part, image, masks[image], fact)


def _counts(part: MaskPart, masks: Mapping[MaskedImage, MaskFacts]) -> Iterator[MaskStatistics]:
    """The counts of a part, and of what is held out of it."""
    counts, held_out = MaskStatistics(part.name), MaskStatistics("val", held_out=True)
    for image in part.images:
        (held_out if image.path in part.held_out else counts).add(masks[image], part.class_names)
    yield counts
    if part.held_out:
        yield held_out
