"""How many images a second the training pipelines prepare on one core, beside torchvision v2 and Ultralytics' loader.

    python benchmarks/input_pipelines.py
    IMAGES=~/VOCdevkit/VOC2007/JPEGImages python benchmarks/input_pipelines.py

From the JPEG file to the uint8 batch: reading, decoding, augmentation, collate. With IMAGES, photographs found below
that folder are used; without, scenes of the embedded sample's generator are written as JPEG of 500x375 (softer than
photographs: fewer bytes to decode). Boxes, masks and classes are drawn from a seed for either. Every loader works in
this process, on one thread, and is timed over whole batches in CPU time; the ratio is taken within each round.

`torchvision_pipelines.py` and `ultralytics_loader.py` say how the peers are set up and what differs. torchvision's
pipelines run on tensors and on Pillow's images: the row's figure is the quicker of the two.

Ultralytics: pip install --no-deps --target PEER ultralytics==8.4.190, then PYTHONPATH=PEER before the command.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from comparison import Result, Row, Times, benchmark_parser, in_turn, one_thread, ratio_of, report, versions_of

from transfer.augment.classification_presets import classification_train
from transfer.augment.pipeline import Pipeline
from transfer.augment.presets import one_stage_train, segmentation_train, two_stage_train
from transfer.batch.collate import Collate, make_loader
from transfer.batch.requests import RequestBatches
from transfer.batch.view import TrainingView
from transfer.data.classification_dataset import LabelledImages
from transfer.data.image import image_size
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.masks import ValueCoding
from transfer.data.table import DetectionTable, TableDataset
from transfer.types import AnyDataset

CLASSES = 20
BATCHES = {"one-stage": 16, "two-stage": 4, "classification": 16, "segmentation": 16}
"""Images of a batch; those of two-stage are grouped by aspect, as in its configs and in torchvision's reference."""
SIZE, SHORT, LONG_MAX, CROP_SIZE, BASE, WINDOW = 416, 600, 1000, 224, 520, 480
"""Of the one-stage, two-stage, classification and segmentation pipelines, pixels."""
MEAN = (124, 117, 104)


@dataclass
class Pictures:
    """JPEG files with truth of every kind."""

    paths: list[str]
    boxes: list[np.ndarray]
    """Of each, [N, 4] float32 xyxy pixels."""
    labels: list[np.ndarray]
    masks: list[str]
    """PNG files."""


def photographs(folder: Path, count: int) -> list[str]:
    """JPEG files below a folder, evenly spaced in the order of their names."""
    found = sorted(str(path) for path in folder.expanduser().rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"IMAGES={folder}: no JPEG file below it")
    return [found[position * len(found) // count] for position in range(min(count, len(found)))]


def drawn_scenes(folder: Path, count: int) -> list[str]:
    """Scenes of the embedded sample's generator, 500x375 or 375x500, as JPEG."""
    from transfer.data.sample_objects import SAMPLE_CLASSES
    from transfer.data.sample_scene import make_scene, scene_names

    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        size = (375, 500) if number % 4 else (500, 375)
        scene = make_scene(rng, size, scene_names(rng, SAMPLE_CLASSES[number % len(SAMPLE_CLASSES)]))
        paths.append(str(folder / f"{number:04d}.jpg"))
        assert cv2.imwrite(paths[-1], scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def with_truth(paths: list[str], folder: Path) -> Pictures:
    """One to five boxes and a mask of some eighty regions for each image."""
    pictures = Pictures(paths, [], [], [])
    for number, path in enumerate(paths):
        rng = np.random.default_rng([1, number])
        height, width = image_size(path)
        count = int(rng.integers(1, 6))
        sides = rng.uniform(0.1, 0.8, (count, 2)) * (width, height)
        corners = rng.uniform(0, 1, (count, 2)) * ((width, height) - sides)
        pictures.boxes.append(np.concatenate([corners, corners + sides], axis=1).astype(np.float32))
        pictures.labels.append(rng.integers(CLASSES, size=count))
        regions = rng.integers(0, CLASSES, (9, 9), dtype=np.uint8)
        pictures.masks.append(str(folder / f"mask-{number:04d}.png"))
        mask = cv2.resize(regions, (width, height), interpolation=cv2.INTER_NEAREST)
        assert cv2.imwrite(pictures.masks[-1], mask)
    return pictures


def detection(pictures: Pictures) -> TableDataset:
    """The images with their boxes."""
    rows = np.concatenate(pictures.boxes)
    table = DetectionTable(
        paths=pictures.paths,
        image_ids=list(range(len(pictures.paths))),
        sizes=np.array([image_size(path) for path in pictures.paths]),
        starts=np.cumsum([0, *(len(boxes) for boxes in pictures.boxes)]),
        boxes=rows,
        labels=np.concatenate(pictures.labels),
        difficult=np.zeros(len(rows), bool),
        crowd=np.zeros(len(rows), bool),
        areas=(rows[:, 2:] - rows[:, :2]).prod(axis=1),
    )
    return TableDataset(table, [str(label) for label in range(CLASSES)])


def classification(pictures: Pictures) -> LabelledImages:
    """The images with one class each."""
    labels = np.arange(len(pictures.paths)) % CLASSES
    return LabelledImages("/", pictures.paths, labels, [str(label) for label in range(CLASSES)])


def segmentation(pictures: Pictures) -> MaskDataset:
    """The images with their masks."""
    names = [str(label) for label in range(CLASSES)]
    coding = ValueCoding({label: label for label in range(CLASSES)})
    return MaskDataset(pictures.paths, pictures.paths, MaskFiles(pictures.masks, coding), names)


def requests_of(kind: str, pictures: Pictures) -> RequestBatches:
    """The batches of a training run without end."""
    aspect = None
    if kind == "two-stage":
        aspect = [height / width for height, width in map(image_size, pictures.paths)]
    return RequestBatches(len(pictures.paths), batch_size=BATCHES[kind], seed=0, aspect=aspect)


def endless(loader: Any) -> Iterator[Any]:
    """A peer's loader, epoch after epoch."""
    while True:
        yield from loader


def ours(pictures: Pictures) -> dict[str, Iterator[Any]]:
    """This project's four loaders."""
    boxes = detection(pictures)
    runs: dict[str, tuple[AnyDataset, Pipeline]] = {
        "one-stage": (boxes, one_stage_train(SIZE)),
        "two-stage": (boxes, two_stage_train(SHORT, LONG_MAX)),
        "classification": (classification(pictures), classification_train(CROP_SIZE, pca_noise=0)),
        "segmentation": (segmentation(pictures), segmentation_train(BASE, WINDOW, colour=True)),
    }
    return {
        kind: iter(make_loader(TrainingView(dataset, pipeline), requests_of(kind, pictures), Collate(MEAN)))
        for kind, (dataset, pipeline) in runs.items()
    }


def torchvisions(pictures: Pictures) -> dict[str, Iterator[Any]]:
    """torchvision's four on tensors and on Pillow's images."""
    import torchvision_pipelines as peer

    def truths(kind: str) -> list[dict[str, Any]]:
        if kind == "classification":
            return [{"label": number % CLASSES} for number in range(len(pictures.paths))]
        if kind == "segmentation":
            return [{"mask": path} for path in pictures.masks]
        pairs = zip(pictures.boxes, pictures.labels, strict=True)
        return [{"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)} for boxes, labels in pairs]

    transforms = {
        "one-stage": peer.one_stage(SIZE),
        "two-stage": peer.two_stage(SHORT, LONG_MAX),
        "classification": peer.classification(CROP_SIZE),
        "segmentation": peer.segmentation(BASE, WINDOW),
    }
    found: dict[str, Iterator[Any]] = {}
    for kind, transform in transforms.items():
        collate = peer.padded if kind == "two-stage" else peer.stacked
        batches = requests_of(kind, pictures).epoch_batches(0).tolist()
        for backend in ("tensor", "pillow"):
            images = peer.TorchvisionImages(pictures.paths, truths(kind), transform, backend)
            found[f"{kind}, torchvision, {backend}"] = endless(peer.loader(images, collate, batches))
    return found


def decoding(pictures: Pictures) -> Iterator[None]:
    """Reading and decoding alone, by OpenCV, sixteen images at a time: what no pipeline can do without."""
    paths = cycle(pictures.paths)
    while True:
        for path in islice(paths, 16):
            cv2.imread(path, cv2.IMREAD_COLOR)
        yield


def check(batches: dict[str, Iterator[Any]]) -> None:
    """Peers must give what is given here: uint8 of one shape."""
    shapes: dict[str, torch.Size] = {}
    for name, iterator in batches.items():
        batch = next(iterator)
        if name == "decoding alone":
            continue
        images = batch["img"] if isinstance(batch, dict) else batch[0] if isinstance(batch, tuple) else batch.images
        assert images.dtype == torch.uint8, name
        kind = name.partition(",")[0]
        shape = shapes.setdefault(kind, images.shape)
        # batches of whole images are as large as the largest image in them, which is not the same one
        assert images.shape == shape or kind == "two-stage", f"{name}: {images.shape}, not {shape}"


def measured(pictures: Pictures, folder: Path, *, rounds: int, images: int) -> Times:
    """CPU seconds an image of each pipeline, by round of so many images."""
    import ultralytics_loader as ultralytics

    loaders = {"decoding alone": decoding(pictures), **ours(pictures), **torchvisions(pictures)}
    if ultralytics.installed():
        batches = requests_of("one-stage", pictures).epoch_batches(0).tolist()
        peer = ultralytics.loader(folder / "yolo", pictures.paths, pictures.boxes, pictures.labels, SIZE, batches)
        loaders["one-stage, Ultralytics"] = endless(peer)
    check(loaders)

    def run(name: str) -> Callable[[], None]:
        batches = images // BATCHES.get(name.partition(",")[0], 16)

        def take() -> None:
            for _ in range(batches):
                next(loaders[name])

        return take

    times = in_turn({name: run(name) for name in loaders}, rounds=rounds)
    return {name: [seconds / images for seconds in taken] for name, taken in times.items()}


def rate(seconds: list[float]) -> str:
    """Median images a second."""
    return f"{1 / float(np.median(seconds)):.0f} images/s"


def row_of(times: Times, kind: str, names: list[str], what: str, target: float) -> Row:
    """One pipeline beside the quickest of its peers."""
    best = min(names, key=lambda name: float(np.median(times[name])))
    ratio, spread = ratio_of(times[best], times[kind])
    share = float(np.median(times["decoding alone"])) / float(np.median(times[kind]))
    beside = f"{best.partition(', ')[2]}: {rate(times[best])}"
    note = f"decoding alone is {share:.0%} of the time here"
    return Row("input-pipelines", what, rate(times[kind]), beside, ratio, spread, target, note=note)


def result(*, quick: bool) -> Result:
    """Measure everything."""
    one_thread()
    source = os.environ.get("IMAGES")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = 32 if quick else 96
        paths = photographs(Path(source), count) if source else drawn_scenes(folder, count // 2)
        pictures = with_truth(paths, folder)
        times = measured(pictures, folder, rounds=3 if quick else 11, images=16 if quick else 48)
    kinds = {
        "one-stage": (f"decode, colour, expand, crop, resize to {SIZE}, flip, collate", 3.5),
        "two-stage": (f"decode, flip, resize to short side {SHORT}, collate", 1.5),
        "classification": (f"decode, random resized crop {CROP_SIZE}, flip, colour, collate", 1.5),
        "segmentation": (f"decode with mask, scale 0.5-2, crop {WINDOW} of {BASE}, flip, blur, colour, collate", 2.0),
    }
    rows = []
    for kind, (what, target) in kinds.items():
        names = [name for name in times if name.startswith(f"{kind}, torchvision")]
        rows.append(row_of(times, kind, names, f"{kind}: {what}", target))
        for name in names:
            print(f"{name}: {rate(times[name])}")
    name = "one-stage, Ultralytics"
    if name in times:
        rows.insert(1, row_of(times, "one-stage", [name], "one-stage, as above; Ultralytics without mosaic", 1.3))
    else:
        print("Ultralytics is not installed: its row is left out")
    return Result(rows, versions_of("torch", "torchvision", "opencv-python-headless", "pillow", "ultralytics"))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
