"""Detections as a file in COCO's results format, for other tools.

A JSON list with one object a line: image_id, category_id, bbox as x_min, y_min, width, height in pixels, and score.
Boxes are rounded to a thousandth of a pixel; scores are written in full, so ranks and ties survive.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer.metrics.coco_map import boxes_xywh
from transfer.metrics.flat import Predicted, check_classes, flatten_detections
from transfer.types import Record, UserError

_BOX_DECIMALS = 3


def write_coco_detections(
    path: str | Path,
    records: Sequence[Record],
    predictions: Sequence[Predicted],
    category_ids: Sequence[int],
    *,
    max_detections: int | None = None,
) -> None:
    """Write the detections of a data set as COCO results; the file appears whole or not at all.

    `pycocotools.coco.COCO.loadRes` reads the file, unless it holds no detection (a limit of that reader).

    Args:
        path: of the file, replaced if there; its folder is made if absent.
        records: one per image; `image_id` is written as it is, a string as a string.
        predictions: predictions[i] belongs to records[i].
        category_ids: the id written for label k.
        max_detections: write only so many detections of an image, the best; None: all.

    Raises:
        UserError: `path` is a folder, or two images have one id.
        ValueError: Records and predictions do not fit together, or a number is not finite.
    """
    path = Path(path)
    problems = []
    if path.is_dir():
        problems.append(f"{path} is a folder: name a file, such as {path / 'detections.json'}")
    image_ids = [record.image_id if isinstance(record.image_id, str) else int(record.image_id) for record in records]
    if len(set(image_ids)) < len(image_ids):
        repeated = [repr(image_id) for image_id, count in Counter(image_ids).items() if count > 1]
        problems.append(f"image ids must be distinct, found more than once: {', '.join(repeated[:5])}")
    if problems:
        raise UserError("\n".join(problems))
    check_classes([str(category_id) for category_id in category_ids], category_ids)
    detections = flatten_detections(records, predictions, len(category_ids))
    if max_detections is not None:
        detections = detections.best_per_image(max_detections)

    categories = [int(category_id) for category_id in category_ids]
    columns = zip(
        detections.image.tolist(),
        detections.labels.tolist(),
        np.round(boxes_xywh(detections.boxes), _BOX_DECIMALS).tolist(),
        detections.scores.tolist(),
    )
    lines = [
        json.dumps({"image_id": image_ids[image], "category_id": categories[label], "bbox": box, "score": score})
        for image, label, box, score in columns
    ]
    _write_whole(path, "[" + ",\n".join(lines) + "]\n")


def _write_whole(path: Path, text: str) -> None:
    """Write to a temporary neighbour, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
