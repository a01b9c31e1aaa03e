"""A data set in VOC's layout and a config for it, both so small that a training step takes under a tenth of a second.

The photographs are coloured rectangles on noise; red, green and blue ones are the three classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
CLASS_NAMES = tuple(COLOURS)
SPLITS = {"train": range(8), "val": range(8, 12), "trainval": range(12), "test": range(12, 17)}

CONFIG = '''"""A tiny detector."""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import square_test, square_train
from transfer.data.voc import VOCDataset
from transfer.heads.box_head import BoxCriterion
from transfer.heads.faster_rcnn import FasterRCNNCriterion, FasterRCNNPostprocess, faster_rcnn_fpn
from transfer.heads.rpn import RPNCriterion
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Constant, WarmUp

model = dict(
    type=faster_rcnn_fpn,
    backbone=dict(type=TimmBackbone, name="test_resnet", weights=None, norm="batch"),
    width=16,
    head_width=32,
    anchor_scales=(4.0,),
    proposals_before_nms=(64, 32),
    proposals=(32, 16),
    rois=16,
)
criterion = dict(
    type=FasterRCNNCriterion, rpn=dict(type=RPNCriterion, count=32), box=dict(type=BoxCriterion, label_smoothing=0.0)
)
postprocess = dict(type=FasterRCNNPostprocess, score_threshold=0.0, nms_iou=0.5, max_detections=10)
_root = "ROOT"
data = dict(
    train=dict(type=VOCDataset, root=_root, splits="train"),
    val=None,
    test=dict(type=VOCDataset, root=_root, splits="test"),
)
augment = dict(train=dict(type=square_train, size=64, flip=0.5), test=dict(type=square_test, size=64))
loader = dict(batch_size=2, test_batch_size=2, workers=0, on_broken="stop")
optimizer = dict(type=SGD, lr=0.01, base_batch=2, momentum=0.9, nesterov=True, weight_decay=1e-4)
schedule = dict(type=WarmUp, iterations=2, then=dict(type=Constant))
training = dict(epochs=2, seed=0, clip_norm=10.0, evaluate_every=1, log_every=2, pictures=4)
metrics = [dict(type=VOCMeanAP, protocol="voc_area")]
'''


def write_devkit(folder: Path) -> Path:
    """Write 17 images with their splits; the same at each call."""
    year = folder / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / name).mkdir(parents=True)
    for index in range(17):
        _write_image(year, index)
    for split, indices in SPLITS.items():
        text = "".join(f"{index:06d}\n" for index in indices)
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


def _write_image(year: Path, index: int) -> None:
    rng = np.random.default_rng(index)
    height, width = (72, 96) if index % 2 else (96, 64)
    pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
    objects = []
    for number in range(1 + index % 3):
        name = CLASS_NAMES[(index + number) % 3]
        left, top = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        right, bottom = left + int(rng.integers(16, width // 2)), top + int(rng.integers(16, height // 2))
        pixels[top:bottom, left:right] = COLOURS[name]
        objects.append(  # VOC's corners: 1-based, inclusive
            f"<object><name>{name}</name><difficult>{int(number == 2)}</difficult><bndbox><xmin>{left + 1}</xmin>"
            f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        )
    Image.fromarray(pixels).save(year / "JPEGImages" / f"{index:06d}.jpg", quality=95)
    (year / "Annotations" / f"{index:06d}.xml").write_text(
        f"<annotation><filename>{index:06d}.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{''.join(objects)}</annotation>",
        encoding="utf-8",
    )


def write_config(path: Path, devkit: Path, *changes: tuple[str, str]) -> Path:
    """Write the config, with (text, other text) replaced in it."""
    text = CONFIG.replace("ROOT", devkit.as_posix())
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is not once in the config"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path
