"""The embedded data set: a small VOC devkit of photograph-like scenes, with masks and single-object crops, from a seed.

It lets transfer learning run with no download: grow a backbone on the crops, graft it, fine-tune on the scenes. Eight
classes are in both, six only in the crops, four only in the scenes. Everything is drawn by this project's own code
(`sample_scene` composes, `sample_nature` and `sample_made` draw objects, `sample_surfaces` backgrounds).

Layout: VOCdevkit/VOC2007 with JPEGImages, Annotations, ImageSets/{Main,Segmentation} and SegmentationClass as in the
PASCAL VOC 2007 development kit (Everingham et al.), and crops/{train,val}/<class>/*.jpg. Deviations: `occluded` is
written as in the kits after 2007; test images are numbered from 500001, so an image is the same whatever the counts;
there is no SegmentationObject and there are no per-class lists.

Each picture draws from its own SeedSequence (seed, part, number): the same seed and library versions give the same
bytes, and no picture depends on another.
"""

from __future__ import annotations

import io
import json
import tempfile
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from transfer.data import sample_scene
from transfer.data.home import cache_home
from transfer.data.sample_objects import CROP_CLASSES, SAMPLE_CLASSES
from transfer.data.sample_scene import Scene, make_crop, make_scene, scene_names
from transfer.types import Size, UserError

__all__ = ["CROP_CLASSES", "CROP_SIZE", "FORMAT_VERSION", "SAMPLE_CLASSES", "make_sample", "sample_folder"]

FORMAT_VERSION = 1
"""Raised whenever the same arguments would give other files."""
STAMP = "sample.json"
CROP_SIZE = (96, 96)
CROPS_PER_VAL = 5
"""Every fifth crop of a class is for validation."""
VAL_OF_20 = (3, 10, 17)
"""Of every twenty trainval images these are val: 15 %."""
EMPTY_OF_33 = 5
"""Of every 33 trainval images this one holds no object: 3 %."""
FIRST_TEST_NUMBER = 500_001
SMALLEST_SIDE = 64
_TRAINVAL, _TEST, _CROPS = 0, 1, 2
_DIFFICULTY = ("SMALL_SHARE", "LARGE_SHARE", "OCCLUSION_SHARE", "TRUNCATION_SHARE", "CLUTTER_COUNT", "DISTRACTOR_SHARE")
_STYLE = ("VARIATION", "SENSOR_NOISE", "BLUR")


def sample_folder() -> Path:
    """Where the default sample lives: below `cache_home()`."""
    return cache_home() / f"sample-v{FORMAT_VERSION}-seed0"


def make_sample(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 400,
    test: int = 240,
    crops_per_class: int = 60,
    size: Size = (320, 320),
) -> Path:
    """Write the sample, or return at once if it is there already.

    Args:
        folder: where to write; made if need be, under its final name only when complete.
        seed: of everything random, at least 0.
        train: number of trainval images (15 % of them val), at least 1.
        test: number of test images, at least 0.
        crops_per_class: crops of each class in CROP_CLASSES, a fifth of them val; at least 0.
        size: of the scenes, each side at least 64 pixels.

    Returns:
        `folder`; the devkit is `folder / "VOCdevkit"`, the crops are `folder / "crops"`.

    Raises:
        UserError: an argument is out of range, or the folder holds something else.
    """
    folder = Path(folder)
    _check(seed, train, test, crops_per_class, size)
    stamp = _stamp(seed, train, test, crops_per_class, size)
    if _is_there(folder, stamp):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        built = Path(scratch) / folder.name
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # pictures are small: more threads cost more than they bring
        try:
            _write_devkit(built / "VOCdevkit" / "VOC2007", seed, train, test, size)
            _write_crops(built / "crops", seed, crops_per_class)
        finally:
            cv2.setNumThreads(threads)
        (built / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        try:
            built.rename(folder)
        except OSError:
            if not _is_there(folder, stamp):  # another process may have been quicker
                raise
    return folder


def _check(seed: int, train: int, test: int, crops_per_class: int, size: Size) -> None:
    """Raise one UserError that names every argument out of range."""
    problems = []
    limits = {"seed": (seed, 0, 2**63), "train": (train, 1, FIRST_TEST_NUMBER), "test": (test, 0, 500_000)}
    limits["crops_per_class"] = (crops_per_class, 0, 100_000)
    for name, (value, low, high) in limits.items():
        if not low <= value < high:
            problems.append(f"{name} is {value}: give {low} to {high - 1}")
    if len(size) != 2 or min(size) < SMALLEST_SIDE:
        problems.append(f"size is {tuple(size)}: give (height, width), each at least {SMALLEST_SIDE}")
    if problems:
        raise UserError("make_sample: " + "; ".join(problems))


def _stamp(seed: int, train: int, test: int, crops_per_class: int, size: Size) -> dict[str, Any]:
    """What a sample is told by."""
    difficulty = {name: getattr(sample_scene, name) for name in _DIFFICULTY + _STYLE}
    numbers = {"seed": seed, "train": train, "test": test, "crops_per_class": crops_per_class, "size": list(size)}
    return {"format_version": FORMAT_VERSION, **numbers, "difficulty": difficulty}


def _is_there(folder: Path, stamp: dict[str, Any]) -> bool:
    """Whether the folder holds this very sample.

    Raises:
        UserError: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = "give another folder, or delete this one first"
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder} exists and is no sample (no readable {STAMP}): {remedy}") from None
    if found == stamp:
        return True
    have = found if isinstance(found, dict) else {}
    other = [f"{name} {have.get(name)} instead of {value}" for name, value in stamp.items() if have.get(name) != value]
    raise UserError(f"{folder} holds another sample ({'; '.join(other) or 'unknown fields'}): {remedy}")


def _generator(seed: int, part: int, number: int) -> np.random.Generator:
    """The source of one picture's randomness."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, part, number])))


def _write_devkit(root: Path, seed: int, train: int, test: int, size: Size) -> None:
    """Write scenes, annotations, masks and lists."""
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    splits: dict[str, list[str]] = {"train": [], "val": [], "trainval": [], "test": []}
    for part, count, first in ((_TRAINVAL, train, 1), (_TEST, test, FIRST_TEST_NUMBER)):
        for number in range(count):
            stem = f"{first + number:06d}"
            _write_scene(root, stem, seed, part, number, size)
            if part == _TEST:
                splits["test"].append(stem)
            else:
                splits["val" if number % 20 in VAL_OF_20 else "train"].append(stem)
                splits["trainval"].append(stem)
    for task in ("Main", "Segmentation"):
        for name, stems in splits.items():
            (root / "ImageSets" / task / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def _write_scene(root: Path, stem: str, seed: int, part: int, number: int, size: Size) -> None:
    """Draw one scene and write its three files."""
    rng = _generator(seed, part, number)
    empty = part == _TRAINVAL and number % 33 == EMPTY_OF_33
    first = SAMPLE_CLASSES[number * 5 % len(SAMPLE_CLASSES)]  # 5 and 12 share no factor: every class has its turn
    scene = make_scene(rng, size, [] if empty else scene_names(rng, first))
    _write_jpeg(root / "JPEGImages" / f"{stem}.jpg", scene.image, int(rng.integers(55, 96)))
    (root / "Annotations" / f"{stem}.xml").write_text(_annotation(f"{stem}.jpg", scene), encoding="utf-8")
    mask = Image.fromarray(scene.mask, mode="P")
    mask.putpalette(_palette())
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", compress_level=3)
    (root / "SegmentationClass" / f"{stem}.png").write_bytes(buffer.getvalue())


def _write_crops(root: Path, seed: int, crops_per_class: int) -> None:
    """Write the single-object crops."""
    for part in ("train", "val"):
        for name in CROP_CLASSES:
            (root / part / name).mkdir(parents=True)
    for label, name in enumerate(CROP_CLASSES):
        for number in range(crops_per_class):
            rng = _generator(seed, _CROPS + label, number)
            part = "val" if number % CROPS_PER_VAL == CROPS_PER_VAL - 1 else "train"
            crop = make_crop(rng, CROP_SIZE, name)
            _write_jpeg(root / part / name / f"{number:05d}.jpg", crop, int(rng.integers(60, 96)))


def _write_jpeg(path: Path, image: np.ndarray, quality: int) -> None:
    """Write [H, W, 3] uint8 RGB."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    path.write_bytes(data.tobytes())


def _annotation(filename: str, scene: Scene) -> str:
    """The XML of one scene; corners 1-based and inclusive."""
    height, width = scene.mask.shape
    top = ElementTree.Element("annotation")
    segmented = int(bool(scene.objects))
    for name, value in (("folder", "VOC2007"), ("filename", filename)):
        ElementTree.SubElement(top, name).text = value
    ElementTree.SubElement(ElementTree.SubElement(top, "source"), "database").text = "Trickstack embedded sample"
    dimensions = ElementTree.SubElement(top, "size")
    for name, number in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(dimensions, name).text = str(number)
    ElementTree.SubElement(top, "segmented").text = str(segmented)
    for truth in scene.objects:
        node = ElementTree.SubElement(top, "object")
        for name, value in (("name", truth.name), ("pose", truth.pose)):
            ElementTree.SubElement(node, name).text = value
        for name, flag in (
            ("truncated", truth.truncated),
            ("occluded", truth.occluded),
            ("difficult", truth.difficult),
        ):
            ElementTree.SubElement(node, name).text = str(int(flag))
        box = ElementTree.SubElement(node, "bndbox")
        x_min, y_min, x_max, y_max = truth.box
        for name, corner in (("xmin", x_min + 1), ("ymin", y_min + 1), ("xmax", x_max), ("ymax", y_max)):
            ElementTree.SubElement(box, name).text = str(corner)
    ElementTree.indent(top, "\t")
    return ElementTree.tostring(top, encoding="unicode") + "\n"


@cache
def _palette() -> list[int]:
    """The VOC colour map: bit k of a label's three low bits, three bits at a time, goes to bit 7 - k of R, G, B."""
    channels = [(label, channel) for label in range(256) for channel in range(3)]
    return [sum(((label >> (3 * k + channel)) & 1) << (7 - k) for k in range(8)) for label, channel in channels]
