"""The same test images under each backbone, beside the truth; the files become part of the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from transfer.ranking.record import PictureRecord
from transfer.ranking.report.blocks import Block, Heading, Picture, Pictures, Section, Text
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import counted

MOST_IMAGES = 8
"""Of a task."""
_SIDE = 480
"""Pixels; larger pictures are made smaller, or the page would grow to hundreds of megabytes."""
_BYTES = 120_000
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


def pictures_section(view: View) -> Section:
    """Rows of pictures for each task."""
    blocks: list[Block] = []
    for task in view.record.tasks:
        of_task = [each for each in view.record.pictures if each.task == task.name]
        if not of_task:
            continue
        order = view.ranked(task.name)
        blocks.append(Heading(task.name))
        blocks += [_row(view, each, order) for each in of_task[:MOST_IMAGES]]
        if len(of_task) > MOST_IMAGES:
            more = counted(len(of_task) - MOST_IMAGES, "more image")
            blocks.append(Text(f"{more} in the ranking's folder."))
    if blocks:
        blocks.insert(0, Text("Drawings of the truth first, then of the predictions, the best backbone first."))
    return Section("pictures", "The same images under each backbone", blocks or [Text("There are no pictures.")])


def _row(view: View, record: PictureRecord, order: list[str]) -> Pictures:
    known = [name for name in order if name in record.predictions]
    files = [("truth", "the truth", record.truth)]
    files += [(name, f"prediction of {name}", record.predictions[name]) for name in known]
    pictures = []
    for name, what, path in files:
        data, size = read_picture(view.folder, path)
        pictures.append(Picture(name, f"Test image {record.image_id} of {record.task}: {what}", path, data, size))
    return Pictures(f"Image {record.image_id}", pictures)


def read_picture(folder: Path, path: str) -> tuple[str | None, tuple[int, int]]:
    """A picture as data URI, small enough for a page, and its (height, width); None where it cannot be read.

    Args:
        folder: of the ranking; nothing outside it is read.
        path: of a PNG or JPEG file, from there.
    """
    try:
        file = (folder / path).resolve()
        if not file.is_relative_to(folder.resolve()):
            return None, (0, 0)
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=list(_TYPES)) as image:
            kind, image_size = str(image.format), image.size
            image.load()
            if max(image_size) > _SIDE or len(content) > _BYTES:
                image.thumbnail((_SIDE, _SIDE))
                buffer = io.BytesIO()
                image.convert("RGB").save(buffer, "JPEG", quality=85)
                kind, content, image_size = "JPEG", buffer.getvalue(), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's, for damaged files
        return None, (0, 0)
    return f"data:{_TYPES[kind]};base64,{base64.b64encode(content).decode()}", (image_size[1], image_size[0])
