"""Ultralytics' training loader without mosaic, beside this project's one-stage pipeline.

Source: https://github.com/ultralytics/ultralytics, PyPI ultralytics 8.4.190, AGPL-3.0; called here, nothing of it is
copied or shipped. Its own data set class, transforms and collate are used, with its default hyperparameters but for the
mosaic, which is off (as in its last ten epochs).

What differs from the pipeline here: its geometry is a resize to 416, then one affine warp (scale 0.5 to 1.5, shifts),
where here an expanded canvas, an overlap-guided crop and a resize follow one another; its colour step changes hue,
saturation and value by way of HSV, where here brightness, contrast, saturation and hue are one matrix.
Two things would flatter it or slow it down, and are off: the images it keeps decoded in a buffer for mosaics (a larger
data set would not meet them again so soon), and the albumentations step that it adds by itself where that library is
installed (blur and the like with probability 0.01).
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

VERSION = "8.4.190"


def installed() -> bool:
    """Whether the peer can be imported."""
    return importlib.util.find_spec("ultralytics") is not None


def loader(
    folder: Path,
    paths: Sequence[str],
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    size: int,
    batches: list[list[int]],
) -> DataLoader[Any]:
    """Its loader over the same images and boxes.

    Args:
        folder: where links to the images and its label files are written.
        paths: of the images.
        boxes: of each [N, 4] xyxy pixels.
        labels: of each [N].
        size: side of the square, pixels.
        batches: the images of each batch of an epoch.
    """
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="ultralytics-"))
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics.cfg import get_cfg  # type: ignore[import-not-found]
    from ultralytics.data.augment import Albumentations  # type: ignore[import-not-found]
    from ultralytics.data.dataset import YOLODataset  # type: ignore[import-not-found]

    _write(folder, paths, boxes, labels)
    hyperparameters = get_cfg(overrides=dict(mosaic=0.0, imgsz=size))
    names = {label: str(label) for label in range(1 + max(int(each.max()) for each in labels if len(each)))}
    dataset = YOLODataset(
        img_path=str(folder / "images"),
        imgsz=size,
        augment=True,
        hyp=hyperparameters,
        batch_size=len(batches[0]),
        rect=False,
        data={"names": names, "nc": len(names), "channels": 3},
        task="detect",
    )
    dataset.max_buffer_length = 0
    for transform in dataset.transforms.transforms:
        if isinstance(transform, Albumentations):
            transform.transform = None
    return DataLoader(dataset, batch_sampler=batches, collate_fn=YOLODataset.collate_fn)


def _write(folder: Path, paths: Sequence[str], boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> None:
    """Links to the images and a label file each: class, centre and sides as shares of the image."""
    from transfer.data.image import image_size

    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number, (path, of_image, classes) in enumerate(zip(paths, boxes, labels, strict=True)):
        height, width = image_size(path)
        (folder / "images" / f"{number:05d}.jpg").symlink_to(Path(path).resolve())
        centres = (of_image[:, :2] + of_image[:, 2:]) / 2 / (width, height)
        sides = (of_image[:, 2:] - of_image[:, :2]) / (width, height)
        rows = [
            f"{label} {x:.6f} {y:.6f} {wide:.6f} {high:.6f}\n"
            for label, (x, y), (wide, high) in zip(classes, centres, sides)
        ]
        (folder / "labels" / f"{number:05d}.txt").write_text("".join(rows))
