"""What a split holds, counted: boxes a class, sizes, shapes.

Boxes are counted as training takes them: clipped, those without area dropped, names renamed; regions marked as crowd
are counted apart. Small, medium and large are COCO's: below 32 and below 96 pixels of sqrt(area) (Lin et al. 2014,
arXiv 1405.0312; the limits are those of its evaluation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transfer.checking.annotations import Judgement
from transfer.checking.findings import ERROR, NOTE, WARNING, Finding
from transfer.checking.reading import StatedImage, new_name
from transfer.types import Size

SMALL, LARGE = 32.0, 96.0
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass
class PartStatistics:
    """The counts of one split."""

    name: str
    held_out: bool = False
    """Drawn from train, as data.val says."""
    images: int = 0
    negatives: int = 0
    """Images without any box."""
    boxes: int = 0
    difficult: int = 0
    crowd: int = 0
    class_boxes: Counter[str] = field(default_factory=Counter)
    class_images: Counter[str] = field(default_factory=Counter)
    image_sizes: Counter[Size] = field(default_factory=Counter)
    """(height, width) -> images."""
    sides: list[float] = field(default_factory=list)
    """sqrt(area) of each box, pixels."""
    relative_sides: list[float] = field(default_factory=list)
    """The same, over that of the image."""
    aspects: list[float] = field(default_factory=list)
    """Width / height of each box."""

    def add(self, image: StatedImage, judgements: Sequence[Judgement]) -> None:
        """Count one image."""
        height, width = image.size
        self.images += 1
        self.image_sizes[image.size] += 1
        present = set()
        for box, judgement in zip(image.boxes, judgements):
            if not judgement.kept:
                continue
            if box.crowd:
                self.crowd += 1
                continue
            name = new_name(image.builder, box.name)
            assert name is not None, "a box whose class is dropped is not kept"
            x0, y0, x1, y1 = judgement.corners
            side = ((x1 - x0) * (y1 - y0)) ** 0.5
            self.boxes += 1
            self.difficult += box.difficult
            self.class_boxes[name] += 1
            present.add(name)
            self.sides.append(side)
            self.relative_sides.append(side / (height * width) ** 0.5)
            self.aspects.append((x1 - x0) / (y1 - y0))
        self.class_images.update(present)
        self.negatives += not present

    def shares(self) -> dict[str, float]:
        """Shares of small, medium and large boxes; 0 where there are none."""
        sides = np.array(self.sides)
        small, large = float(np.sum(sides < SMALL)), float(np.sum(sides >= LARGE))
        total = max(len(sides), 1)
        return {"small": small / total, "medium": (len(sides) - small - large) / total, "large": large / total}

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        heights = np.repeat([size[0] for size in self.image_sizes], list(self.image_sizes.values()))
        widths = np.repeat([size[1] for size in self.image_sizes], list(self.image_sizes.values()))
        return {
            "held_out_of_train": self.held_out,
            "images": self.images,
            "negatives": self.negatives,
            "boxes": self.boxes,
            "difficult": self.difficult,
            "crowd": self.crowd,
            "boxes_per_class": dict(self.class_boxes),
            "images_per_class": dict(self.class_images),
            "share_of_boxes": self.shares(),
            "box_side_pixels": quantiles(self.sides),
            "box_side_relative": quantiles(self.relative_sides),
            "box_width_over_height": quantiles(self.aspects),
            "image_width": quantiles(widths),
            "image_height": quantiles(heights),
            "commonest_image_sizes": [
                {"width": width, "height": height, "images": count}
                for (height, width), count in self.image_sizes.most_common(5)
            ],
        }


def quantiles(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Percentiles, by "0", "5", ...; empty where there are no values."""
    if len(values) == 0:
        return {}
    return {str(q): round(float(value), 4) for q, value in zip(QUANTILES, np.percentile(values, QUANTILES))}


def coverage_findings(statistics: Sequence[PartStatistics], class_names: Sequence[str]) -> Iterator[Finding]:
    """Splits without any box, and classes without boxes in a split."""
    for part in statistics:
        if part.boxes == 0:
            severity = NOTE if part.held_out else ERROR
            yield Finding(
                severity, "no-boxes", part.name, "", f"{part.images} images without one usable box",
                "look whether the annotations are those of these images",
            )  # fmt: skip
            continue
        for name in class_names:
            if part.class_boxes[name]:
                continue
            if part.name == "train":
                effect, remedy = "it cannot be learned", "add images of it, or take it out of class_names"
            else:
                effect, remedy = "it cannot be measured there", "move some images of it there"
            severity = NOTE if part.name == "val" else WARNING
            yield Finding(severity, "class-without-boxes", part.name, "", f"no box of {name!r}: {effect}", remedy)
