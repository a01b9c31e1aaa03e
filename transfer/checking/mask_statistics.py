"""What the masks of a split hold, counted: pixels and images of each class.

Counted are pixels of the masks as training reads them, before any transform, so a large photograph weighs more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from transfer.checking.findings import ERROR, NOTE, WARNING, Finding, counted
from transfer.checking.masks import MaskFacts
from transfer.data.masks import Colour
from transfer.types import IGNORED_PIXEL, Size


@dataclass
class MaskStatistics:
    """The counts of one split."""

    name: str
    held_out: bool = False
    """Drawn from train, as data.val says."""
    images: int = 0
    masks: int = 0
    """That can be decoded."""
    empty: int = 0
    """Masks of which every pixel is ignored."""
    pixels: int = 0
    """Of a class."""
    ignored: int = 0
    class_pixels: Counter[str] = field(default_factory=Counter)
    class_images: Counter[str] = field(default_factory=Counter)
    unknown_pixels: Counter[int | Colour] = field(default_factory=Counter)
    """Value or colour that stands for no class -> pixels."""
    unknown_images: Counter[int | Colour] = field(default_factory=Counter)
    mask_sizes: Counter[Size] = field(default_factory=Counter)
    """(height, width) -> masks."""

    def add(self, facts: MaskFacts, class_names: Sequence[str]) -> None:
        """Count one image."""
        self.images += 1
        self.unknown_pixels.update(facts.unknown)
        self.unknown_images.update(facts.unknown.keys())
        if facts.size is None:
            return
        self.masks += 1
        self.mask_sizes[facts.size] += 1
        self.ignored += facts.pixels.get(IGNORED_PIXEL, 0)
        known = {class_names[label]: count for label, count in facts.pixels.items() if label != IGNORED_PIXEL}
        self.empty += not known and not facts.unknown
        self.class_pixels.update(known)
        self.class_images.update(known.keys())
        self.pixels += sum(known.values())

    @property
    def ignored_share(self) -> float:
        """Of all pixels that are a class's or ignored."""
        return self.ignored / max(self.pixels + self.ignored, 1)

    def pixel_share(self, name: str) -> float:
        """Of a class among the pixels of all classes."""
        return self.class_pixels[name] / max(self.pixels, 1)

    def image_share(self, name: str) -> float:
        """Of the masks that have a pixel of the class."""
        return self.class_images[name] / max(self.masks, 1)

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "held_out_of_train": self.held_out,
            "images": self.images,
            "masks": self.masks,
            "empty_masks": self.empty,
            "pixels": self.pixels,
            "ignored_pixels": self.ignored,
            "share_ignored": round(self.ignored_share, 6),
            "pixels_per_class": dict(self.class_pixels),
            "images_per_class": dict(self.class_images),
            "values_without_class": {
                str(value): {"pixels": pixels, "images": self.unknown_images[value]}
                for value, pixels in self.unknown_pixels.most_common()
            },
            "commonest_sizes": [
                {"width": width, "height": height, "masks": count}
                for (height, width), count in self.mask_sizes.most_common(5)
            ],
        }


def pixel_findings(statistics: Sequence[MaskStatistics], class_names: Sequence[str]) -> Iterator[Finding]:
    """Splits without a pixel of any class, and classes without pixels in a split."""
    for part in statistics:
        if part.pixels == 0:
            message = f"{counted(part.images, 'image')} without one pixel of a class"
            remedy = "look whether the masks, and what the config says of their values, are those of these images"
            yield Finding(NOTE if part.held_out else ERROR, "no-labelled-pixels", part.name, "", message, remedy)
            continue
        for name in class_names:
            if part.class_pixels[name]:
                continue
            if part.name == "train":
                effect, remedy = "it cannot be learned", "add images of it, or ignore it by rename={...: None}"
            else:
                effect, remedy = "it cannot be measured there", "move some images of it there"
            severity = NOTE if part.name == "val" else WARNING
            yield Finding(severity, "class-without-pixels", part.name, "", f"no pixel of {name!r}: {effect}", remedy)
