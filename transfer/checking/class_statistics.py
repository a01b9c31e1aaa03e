"""What a split of images with one class each holds, counted: images of each class, sizes, kinds of pixels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transfer.checking.class_reading import ClassedImage
from transfer.checking.findings import NOTE, WARNING, Finding, counted
from transfer.checking.images import ImageFacts
from transfer.checking.statistics import quantiles
from transfer.types import Size

TINY = 32
"""Pixels of the short side below which an image is remarked upon, if it is below half of the split's median, too."""
HUGE = 12_000_000
"""Pixels from which on an image is remarked upon: decoding so many takes about 70 ms on one core."""
IMBALANCE = 10
"""The largest class has so many times the images of the smallest: rarer classes are then hardly learned."""
_GREY = ("L", "LA", "1", "I", "I;16", "I;16B", "I;16L", "La")


@dataclass
class ClassStatistics:
    """The counts of one split."""

    name: str
    held_out: bool = False
    """Drawn from train, as data.val says."""
    images: int = 0
    """Whether they can be decoded or not."""
    class_images: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    """Pillow's name of the pixel type -> images; of those that can be decoded."""
    sizes: Counter[Size] = field(default_factory=Counter)
    """(height, width) -> images."""

    def add(self, image: ClassedImage, facts: ImageFacts) -> None:
        """Count one image."""
        self.images += 1
        self.class_images[image.name] += 1
        if facts.code is None:
            self.modes[facts.mode] += 1
            self.sizes[facts.size] += 1

    @property
    def decoded(self) -> int:
        """Images that can be."""
        return sum(self.modes.values())

    @property
    def grey(self) -> int:
        """Images that are stored without colour."""
        return sum(self.modes[mode] for mode in _GREY)

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest that has any; 0 without images."""
        counts = self.class_images.values()
        return max(counts) / min(counts) if counts else 0.0

    def short_sides(self) -> np.ndarray:
        """[N] pixels, of the images that can be decoded."""
        return np.repeat([min(size) for size in self.sizes], list(self.sizes.values())).astype(np.int64)

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "held_out_of_train": self.held_out,
            "images": self.images,
            "images_decoded": self.decoded,
            "images_per_class": dict(self.class_images.most_common()),
            "largest_over_smallest_class": round(self.imbalance, 4),
            "images_per_pixel_type": dict(self.modes.most_common()),
            "short_side_pixels": quantiles(self.short_sides()),
            "commonest_sizes": [
                {"width": width, "height": height, "images": count}
                for (height, width), count in self.sizes.most_common(5)
            ],
        }


def class_findings(statistics: Sequence[ClassStatistics], class_names: Sequence[str]) -> Iterator[Finding]:
    """Classes without images in a split, classes far larger than others, and names that look like one."""
    for part in statistics:
        for name in class_names:
            if part.class_images[name]:
                continue
            if part.name == "train":
                effect, remedy = "it cannot be learned", "add images of it, or take it out of class_names"
            else:
                effect, remedy = "it cannot be measured there", "move some images of it there"
            severity = NOTE if part.name == "val" else WARNING
            yield Finding(severity, "class-without-images", part.name, "", f"no image of {name!r}: {effect}", remedy)
        if part.name == "train" and part.imbalance >= IMBALANCE:
            ranked = part.class_images.most_common()
            (large, most), (small, least) = ranked[0], ranked[-1]
            message = f"{large!r} has {counted(most, 'image')}, {small!r} {least:,}: {part.imbalance:.0f} times as many"
            remedy = (
                "read the accuracy of each class beside the whole; draw classes evenly by loader.order, or add images"
            )
            yield Finding(NOTE, "class-imbalance", part.name, "", message, remedy)
    yield from _twins(statistics, class_names)


def _twins(statistics: Sequence[ClassStatistics], class_names: Sequence[str]) -> Iterator[Finding]:
    """Classes whose names differ only in case, white space, "-" or "_"."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        alike[" ".join(name.casefold().replace("_", " ").replace("-", " ").split())].append(name)
    total = sum((part.class_images for part in statistics), Counter())
    for names in alike.values():
        meant, *others = sorted(names, key=lambda name: (-total[name], name))
        for name in others:
            where = ", ".join(part.name for part in statistics if part.class_images[name]) or statistics[0].name
            images = f"{counted(total[name], 'image')}) is a class of its own beside {meant!r} ({total[meant]:,}"
            remedy = f"rename={{{name!r}: {meant!r}}} in every data set if it is a slip"
            yield Finding(WARNING, "class-misspelt", where, "", f"{name!r} ({images})", remedy)


def size_findings(
    part: str, images: Sequence[ClassedImage], facts: Mapping[str, ImageFacts], short_sides: np.ndarray
) -> Iterator[Finding]:
    """Images far smaller than the others, each; and once a split those of very many pixels, and those in CMYK.

    Args:
        part: the split.
        images: of it.
        facts: by path.
        short_sides: [N] of its images, pixels.
    """
    sound = [facts[image.path] for image in images if facts[image.path].code is None]
    limit = min(TINY, float(np.median(short_sides)) / 2) if len(short_sides) else 0
    for fact in sound:
        if min(fact.size) < limit:
            message = f"is {fact.size[1]}x{fact.size[0]}; half of the images have a short side of at least"
            remedy = "look whether it shows anything, and remove it where not"
            yield Finding(
                WARNING, "image-tiny", part, fact.path, f"{message} {np.median(short_sides):g} pixels", remedy
            )
    huge = [fact for fact in sound if fact.size[0] * fact.size[1] > HUGE]
    if huge:
        largest = max(huge, key=lambda fact: fact.size[0] * fact.size[1])
        size = f"{largest.size[1]}x{largest.size[0]}"
        message = f"{counted(len(huge), 'image')} of more than {HUGE // 10**6} million pixels; the largest is {size}"
        remedy = "save a smaller copy: an epoch decodes every pixel"
        yield Finding(NOTE, "image-huge", part, largest.path, message, remedy)
    printed = [fact for fact in sound if fact.mode == "CMYK"]
    if printed:
        message = f"{counted(len(printed), 'image')} in CMYK, converted to RGB without a colour profile"
        yield Finding(NOTE, "image-cmyk", part, printed[0].path, message, "save as RGB where colours matter")
