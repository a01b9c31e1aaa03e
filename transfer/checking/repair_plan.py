"""What a repair makes of each image, decided before anything is written.

The rules: an image that training cannot use is left out; of a picture in two splits the copy in the split that
measures stays; a wrong size is corrected where the boxes leave no doubt, else the image is left out; boxes are clipped,
and those without area, outside the image or stated twice are removed; names change only by the config's `rename` or
where they differ from one class in case or white space alone. All that is not named here stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from transfer.checking.annotations import ROUNDING, Judgement, beyond, judge_boxes
from transfer.checking.check import Report
from transfer.checking.reading import Part, StatedImage, new_name
from transfer.data.table_builder import Box, TableBuilder
from transfer.types import Size

_REMOVED = ("box-without-area", "box-outside", "box-duplicate")
_SAME_SHAPE = 0.01
"""Two aspect ratios so near, relatively, are one: an image scaled by a whole number of pixels rounds."""


@dataclass(frozen=True, slots=True)
class BoxRepair:
    """What becomes of one box."""

    removed: bool = False
    clipped: bool = False
    name: str | None = None
    """The new name; None: as stated."""

    @property
    def changes(self) -> bool:
        """Whether it is not left as it is."""
        return self.removed or self.clipped or self.name is not None


@dataclass(frozen=True, slots=True)
class ImageRepair:
    """One image that stays."""

    image: StatedImage
    write_size: Size | None
    """(height, width) to state; None: as stated."""
    limits: Size
    """(height, width) that its boxes are clipped to."""
    boxes: list[BoxRepair]
    """One for each stated box."""

    @property
    def changes(self) -> bool:
        """Whether its annotation is not left as it is."""
        return self.write_size is not None or any(box.changes for box in self.boxes)


@dataclass
class Plan:
    """The repair of a whole config's data."""

    kept: dict[str, list[ImageRepair]]
    """By part, in the data's order."""
    done: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What is done -> the files it is done to."""

    def of_builder(self, part: str, builder: TableBuilder) -> list[ImageRepair]:
        """What stays of one builder's images."""
        return [repair for repair in self.kept[part] if repair.image.builder is builder]


def make_plan(report: Report) -> Plan:
    """Decide the repair of every image."""
    plan = Plan({part.name: [] for part in report.parts})
    leaks = {(pair.again.part, pair.again.image): pair.kept for pair in report.pairs if pair.is_leak}
    for part in report.parts:
        for fault, _ in part.faults:
            plan.done[f"left out of {part.name}: cannot be used"].append(fault.file)
        for image in part.images:
            leak = leaks.get((part.name, image))
            if report.facts[image.path].code is not None:
                plan.done[f"image left out of {part.name}: cannot be decoded"].append(image.path)
            elif leak is not None:
                plan.done[f"image taken out of {part.name}: it is in {leak.part}, too"].append(image.path)
            else:
                _plan_image(plan, part, image, report)
    return plan


def _plan_image(plan: Plan, part: Part, image: StatedImage, report: Report) -> None:
    fact = report.facts[image.path]
    write_size: Size | None = None
    if image.stated_size not in (fact.size, fact.stored_size):
        if image.stated_size is not None and not _is_certain(image, fact.size):
            what = "its boxes are of another size or turned, and nothing tells how"
            plan.done[f"image left out of {part.name}: {what}"].append(image.file)
            return
        write_size = fact.size
        plan.done["stated size set to the image's"].append(image.file)
    limits = write_size or image.size

    def name_of(stated: str) -> str | None:
        name = new_name(image.builder, stated)
        return None if name is None else report.corrections.get(name, name)

    judgements = judge_boxes(image.boxes, limits, name_of)
    boxes = [_plan_box(box, each, name_of(box.name), limits) for box, each in zip(image.boxes, judgements)]
    plan.kept[part.name].append(ImageRepair(image, write_size, limits, boxes))
    for repair, judgement, box in zip(boxes, judgements, image.boxes):
        if repair.removed:
            code = next(code for code in judgement.codes if code in _REMOVED)
            reason = {"box-without-area": "without area", "box-outside": "outside its image", "box-duplicate": "twice"}
            plan.done[f"box removed: {reason[code]}"].append(image.file)
        elif repair.clipped:
            plan.done["box clipped to its image"].append(image.file)
        if repair.name is not None and not repair.removed:
            plan.done[f"class name {box.name!r} changed to {repair.name!r}"].append(image.file)


def _plan_box(box: Box, judgement: Judgement, name: str | None, limits: Size) -> BoxRepair:
    if name is None:  # training drops its class: not ours to change
        return BoxRepair()
    if any(code in _REMOVED for code in judgement.codes):
        return BoxRepair(removed=True)
    return BoxRepair(clipped=beyond(box, limits) > 0, name=None if name == box.name else name)


def _is_certain(image: StatedImage, size: Size) -> bool:
    """Whether the boxes belong to the image as it is, whatever size its annotation states."""
    if image.size == size:  # the boxes contradict the stated size, and training goes by the image
        return True
    stated = image.stated_size
    assert stated is not None
    scaled = abs(stated[0] * size[1] / (stated[1] * size[0]) - 1) < _SAME_SHAPE
    return not scaled and all(box.empty or beyond(box, size) <= ROUNDING for box in image.boxes)
