"""What is wrong with the boxes and the stated size of one image.

Boxes are judged as training takes them (transfer/data/table_builder.py): clipped to the size it believes, dropped where
nothing is left. A size is compared with the decoded image's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from transfer.checking.findings import ERROR, NOTE, WARNING, Finding
from transfer.checking.images import ImageFacts
from transfer.checking.reading import Part, StatedImage, new_name
from transfer.data.table_builder import Box
from transfer.types import Size

ROUNDING = 1.0
"""Pixels beyond the edge that a tool's rounding may cause."""
TINY = 2.0
"""Pixels: no detector finds a side shorter than this."""

_REMEDIES = {
    "box-without-area": "draw it again, or remove it; training drops it",
    "box-outside": "look whether it belongs to another image or size, or remove it; training drops it",
    "box-partly-outside": "look whether the box or the image was changed, or clip it; training clips it",
    "box-past-edge": "nothing: training clips it",
    "box-tiny": "remove it, or mark it difficult",
    "box-duplicate": "remove one",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What training makes of one box, and what is odd about it."""

    corners: tuple[float, float, float, float]
    """Clipped, xyxy pixels."""
    kept: bool
    """It is a target (difficult ones and crowds included)."""
    codes: tuple[str, ...]


def judge_boxes(boxes: list[Box], size: Size, name_of: Callable[[str], str | None]) -> list[Judgement]:
    """One judgement a box.

    Args:
        boxes: of one image, as stated.
        size: (height, width) they are clipped to.
        name_of: a stated name's class; None: the box is dropped on purpose and not judged.
    """
    seen: set[tuple[str, bool, tuple[float, float, float, float]]] = set()
    judgements = []
    for box in boxes:
        name = name_of(box.name)
        if name is None:
            judgements.append(Judgement(box.corners, False, ()))
            continue
        judgement = _judge(box, size)
        key = (name, box.crowd, judgement.corners)
        if judgement.kept and key in seen:
            judgement = Judgement(judgement.corners, True, (*judgement.codes, "box-duplicate"))
        seen.add(key)
        judgements.append(judgement)
    return judgements


def _judge(box: Box, size: Size) -> Judgement:
    height, width = size
    limits = (width, height, width, height)
    # float32 as in training: it can close a gap of 1e-9 pixels
    corners = tuple(float(np.float32(min(max(value, 0.0), limit))) for value, limit in zip(box.corners, limits))
    x0, y0, x1, y1 = corners
    if box.empty or box.corners[2] <= box.corners[0] or box.corners[3] <= box.corners[1]:
        return Judgement((x0, y0, x1, y1), False, ("box-without-area",))
    if x1 <= x0 or y1 <= y0:
        return Judgement((x0, y0, x1, y1), False, ("box-outside",))
    codes = []
    past = beyond(box, size)
    if past > 0:
        codes.append("box-partly-outside" if past > ROUNDING else "box-past-edge")
    if min(x1 - x0, y1 - y0) < TINY:
        codes.append("box-tiny")
    return Judgement((x0, y0, x1, y1), True, tuple(codes))


def beyond(box: Box, size: Size) -> float:
    """How many pixels the box reaches beyond an image of this size; 0 or less: not at all."""
    height, width = size
    x0, y0, x1, y1 = box.corners
    return max(-x0, -y0, x1 - width, y1 - height)


def box_findings(image: StatedImage, part: str, judgements: list[Judgement]) -> Iterator[Finding]:
    """What is odd about an image's boxes."""
    for number, (box, judgement) in enumerate(zip(image.boxes, judgements), 1):
        for code in judgement.codes:
            severity = NOTE if code == "box-past-edge" else WARNING
            words = _in_words(code, box, judgement, image.size)
            message = f"{image.entry}box {number} ({box.name!r}) {words}: {image.as_stated(box)}"
            yield Finding(severity, code, part, image.file, message, _REMEDIES[code], fixable=code != "box-tiny")


def _in_words(code: str, box: Box, judgement: Judgement, size: Size) -> str:
    x0, y0, x1, y1 = judgement.corners
    image = f"the image of {size[1]}x{size[0]}"
    return {
        "box-without-area": "has no area",
        "box-tiny": f"is {x1 - x0:g} x {y1 - y0:g} pixels",
        "box-duplicate": "is there before",
        "box-outside": f"lies outside {image}",
    }.get(code, f"reaches {beyond(box, size):g} pixels beyond {image}")


def size_finding(image: StatedImage, part: Part, facts: ImageFacts) -> Finding | None:
    """What is wrong with the stated size, if anything."""
    stated = image.stated_size
    if stated == facts.size:
        return None
    is_ = f"the image is {facts.size[1]}x{facts.size[0]}"
    if stated is None:
        message, remedy = f"{image.entry}states no size or 0x0; {is_}", "nothing: training reads the image's own"
        return Finding(WARNING, "size-unknown", part.name, image.file, message, remedy, fixable=True)
    says = f"{image.entry}states {stated[1]}x{stated[0]}, {is_}"
    if stated == facts.stored_size:
        message = f"{says} after the rotation that its EXIF data asks for"
        remedy = "nothing: training takes the pixels unrotated, as the boxes were drawn"
        return Finding(NOTE, "size-of-stored-pixels", part.name, image.file, message, remedy)
    swapped = stated == facts.size[::-1]
    if image.size == stated:
        severity = WARNING if part.skips_broken_images else ERROR
        effect = "training leaves the image out" if part.skips_broken_images else "training stops there"
    else:
        severity, effect = WARNING, "the boxes fit the image better, so training believes it"
    if swapped:
        remedy = "look whether the boxes fit the image, and swap width and height"
    else:
        remedy = "look whether the boxes fit: an image scaled after labelling needs scaled boxes"
    code = "size-swapped" if swapped else "size-differs"
    return Finding(severity, code, part.name, image.file, f"{says}: {effect}", remedy, fixable=True)


def rotation_finding(image: StatedImage, part: str, facts: ImageFacts) -> Finding | None:
    """A rotation that the stated size does not tell from none: training goes by the displayed image, tools differ."""
    told = image.stated_size is not None and facts.size != facts.stored_size
    if facts.orientation == 1 or told or not image.boxes:
        return None
    size = "no size is stated" if image.stated_size is None else "its size is the same unturned"
    message = f"EXIF orientation {facts.orientation}, and {size}: training takes boxes as drawn on the turned image"
    remedy = "look at its boxes; where the tool ignored EXIF, save the image upright and draw them again"
    return Finding(WARNING, "rotation-unclear", part, image.path, message, remedy)


def judged(image: StatedImage) -> list[Judgement]:
    """The judgements of an image's boxes under the names that training gives them."""
    return judge_boxes(image.boxes, image.size, lambda name: new_name(image.builder, name))
