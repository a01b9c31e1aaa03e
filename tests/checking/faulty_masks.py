"""A tiny set of images and masks without any fault, and faults to plant into it, one at a time.

Every fault says which finding it causes: code, severity, the file named, and a piece of the message.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hand_made_png import RGB, write_png
from PIL import Image

NAMES = ["sky", "road", "car"]
SPLITS = {"train": 6, "val": 2, "test": 3}
MASK = np.zeros((8, 12), int)
MASK[4:], MASK[6:, 6:], MASK[0] = 1, 2, 255
KIND = "transfer.data.mask_folder.MaskFolderDataset"


def pixels_of(name: str) -> np.ndarray:
    """Noise that is this name's alone."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (*MASK.shape, 3), dtype=np.uint8)


def write_set(root: Path) -> Path:
    """Images and masks of three splits; nothing wrong with them."""
    for split, count in SPLITS.items():
        (root / split).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(pixels_of(f"{split}{number}")).save(root / split / f"{number}.png")
            write_png(root / f"{split}annot" / f"{number}.png", MASK)
    return root


def config_of(root: Path, **changes: Any) -> dict[str, Any]:
    """What a check uses of a config; `changes` are arguments of every data set."""
    nodes = {
        split: {"type": KIND, "root": str(root), "images": split, "masks": f"{split}annot", "classes": NAMES, **changes}
        for split in SPLITS
    }
    return {"data": nodes, "loader": {"on_broken": "stop"}, "training": {"seed": 0}}


@dataclass(frozen=True)
class Fault:
    """One thing wrong and the finding it causes."""

    plant: Callable[[Path], object]
    code: str
    severity: str
    file: str
    """What the finding's file ends with; "" where no file is at fault."""
    message: str
    part: str = "train"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def turned(orientation: int, *, mask: np.ndarray | None = None) -> Callable[[Path], None]:
    """The first photograph with an orientation; the mask as it is, or another."""

    def plant(root: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels_of("turned")).save(root / "train/0.png", exif=exif)
        if mask is not None:
            write_png(root / "trainannot/0.png", mask)

    return plant


def without_car(split: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for path in (root / f"{split}annot").iterdir():
            write_png(path, np.where(MASK == 2, 1, MASK))

    return plant


def all_ignored(split: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for path in (root / f"{split}annot").iterdir():
            path.unlink()
            (root / split / path.name).unlink()
        Image.fromarray(pixels_of("only")).save(root / split / "0.png")
        write_png(root / f"{split}annot/0.png", np.full((8, 12), 255))

    return plant


STRAY = np.where(MASK == 2, 7, MASK)
STRAY[1, 1] = 200
SMALLER = MASK[:7]

FAULTS = {
    "no mask": Fault(
        lambda root: (root / "trainannot/1.png").unlink(), "mask-missing", "error", "train/1.png", "has no mask '1'"
    ),
    "no image": Fault(
        lambda root: (root / "test/1.png").unlink(),
        "image-missing", "error", "testannot/1.png", "has no image '1'", "test",
    ),
    "cut mask": Fault(
        lambda root: cut(root / "valannot/1.png"),
        "mask-unreadable", "error", "valannot/1.png", "cannot be decoded", "val",
    ),
    "empty mask file": Fault(
        lambda root: (root / "trainannot/0.png").write_bytes(b""),
        "mask-unreadable", "error", "trainannot/0.png", "is empty (0 bytes)",
    ),
    "JPEG mask": Fault(
        lambda root: Image.fromarray(MASK.astype(np.uint8)).save(root / "trainannot/0.png", "JPEG"),
        "mask-unreadable", "error", "trainannot/0.png", "JPEG or WebP, whose compression changes values",
    ),
    "mask of colours": Fault(
        lambda root: write_png(root / "trainannot/0.png", np.stack([MASK, MASK, 0 * MASK], 2), RGB),
        "mask-unreadable", "error", "trainannot/0.png", "holds colours, such as (255, 255, 0), not numbers",
    ),
    "cut image": Fault(
        lambda root: cut(root / "train/2.png"), "image-truncated", "error", "train/2.png", "cannot be decoded"
    ),
    "no picture": Fault(
        lambda root: (root / "train/2.png").write_bytes(b"<html>"),
        "image-unreadable", "error", "train/2.png", "is no image",
    ),
    "stray values": Fault(
        lambda root: write_png(root / "trainannot/3.png", STRAY),
        "mask-value-unknown", "error", "trainannot/3.png",
        "has values 7 (12 pixels), 200 (1 pixel) without a class (known are 0 to 2, and to be ignored 255)",
    ),
    "other size": Fault(
        lambda root: write_png(root / "testannot/2.png", SMALLER),
        "mask-size-differs", "error", "testannot/2.png", "the mask is 12x7, its image 12x8", "test",
    ),
    "all ignored": Fault(
        lambda root: write_png(root / "trainannot/5.png", np.full((8, 12), 255)),
        "mask-empty", "warning", "trainannot/5.png", "all 96 pixels are ignored",
    ),
    "class not in train": Fault(
        without_car("train"), "class-without-pixels", "warning", "", "no pixel of 'car': it cannot be learned"
    ),
    "class not in test": Fault(
        without_car("test"), "class-without-pixels", "warning", "", "no pixel of 'car': it cannot be measured", "test"
    ),
    "class not in val": Fault(
        without_car("val"), "class-without-pixels", "note", "", "no pixel of 'car': it cannot be measured", "val"
    ),
    "in train and test": Fault(
        lambda root: shutil.copy(root / "train/4.png", root / "test/0.png"),
        "image-leak", "error", "train/4.png", "is in train, and byte for byte in test", "train, test",
    ),
    "in train and val, in another encoding": Fault(
        lambda root: Image.fromarray(pixels_of("train4")).save(root / "val/0.png", compress_level=0),
        "image-leak", "error", "train/4.png", "the same pixels in another encoding in val", "train, val",
    ),
    "twice in train": Fault(
        lambda root: shutil.copy(root / "train/4.png", root / "train/5.png"),
        "image-duplicate", "warning", "train/5.png", "is there before, byte for byte",
    ),
    "photograph turned by EXIF": Fault(
        turned(6),
        "size-of-stored-pixels", "note", "trainannot/0.png", "the mask is 12x8, its image 8x12 after the rotation",
    ),
    "photograph upside down by EXIF": Fault(
        turned(3), "rotation-unclear", "warning", "train/0.png", "EXIF orientation 3, and the size is the same unturned"
    ),
}  # fmt: skip
