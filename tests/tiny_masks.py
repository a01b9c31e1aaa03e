"""A drawn folder of images and masks, and the config of a tiny segmenter on it: tests that train in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CLASS_NAMES = ("ground", "round", "square")
COLOURS = ((60, 60, 60), (210, 60, 40), (40, 90, 220))

CONFIG = '''"""A tiny segmenter."""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import segmentation_test, segmentation_train
from transfer.data.mask_folder import MaskFolderDataset
from transfer.heads.fcn import fcn
from transfer.heads.segmentation import SegmentationCriterion, SegmentationPostprocess
from transfer.metrics.mean_iou import MeanIoU
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Constant, WarmUp

task = "segmentation"
model = dict(
    type=fcn,
    backbone=dict(type=TimmBackbone, name="test_resnet", weights=None, output_stride=16, norm="batch"),
    width=16,
)
criterion = dict(type=SegmentationCriterion)
postprocess = dict(type=SegmentationPostprocess)
_part = dict(type=MaskFolderDataset, root="ROOT", classes=["ground", "round", "square"])
data = dict(
    train=dict(**_part, images="train", masks="trainannot"),
    val=None,
    test=dict(**_part, images="test", masks="testannot"),
)
augment = dict(
    train=dict(type=segmentation_train, base=96, crop=64, scale=(0.8, 1.2)), test=dict(type=segmentation_test)
)
loader = dict(batch_size=4, test_batch_size=2, workers=0, on_broken="stop")
optimizer = dict(type=SGD, lr=0.05, base_batch=4, momentum=0.9, nesterov=True, weight_decay=1e-4)
schedule = dict(type=WarmUp, iterations=2, then=dict(type=Constant))
training = dict(epochs=2, seed=0, clip_norm=10.0, evaluate_every=1, log_every=2, pictures=4)
metrics = [dict(type=MeanIoU)]
'''


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image [H, W, 3] with a disc and a square on grey, and its mask [H, W]: the disc's border is ignored."""
    rng = np.random.default_rng(number)
    height, width = (72, 96) if number % 3 else (80, 64)
    mask = np.zeros((height, width), np.uint8)
    x, y = int(rng.integers(0, width - 28)), int(rng.integers(0, height - 28))
    cv2.rectangle(mask, (x, y), (x + 26, y + 26), 2, -1)
    x, y = int(rng.integers(14, width - 14)), int(rng.integers(14, height - 14))
    cv2.circle(mask, (x, y), 13, 1, -1)
    image = np.asarray(COLOURS, np.uint8)[mask]
    cv2.circle(mask, (x, y), 13, 255, 1)
    noise = rng.integers(-12, 13, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask


def write_masks(root: Path, *, train: int = 8, test: int = 5) -> Path:
    """Write train/, trainannot/, test/ and testannot/, as CamVid has them."""
    for part, numbers in (("train", range(train)), ("test", range(100, 100 + test))):
        for name in (part, f"{part}annot"):
            (root / name).mkdir(parents=True)
        for number in numbers:
            image, mask = draw(number)
            cv2.imwrite(str(root / part / f"{number:03d}.png"), image[:, :, ::-1])
            cv2.imwrite(str(root / f"{part}annot" / f"{number:03d}.png"), mask)
    return root


def write_config(path: Path, root: Path) -> Path:
    """Write the config of a tiny FCN on that folder."""
    path.write_text(CONFIG.replace("ROOT", root.as_posix()), encoding="utf-8")
    return path
