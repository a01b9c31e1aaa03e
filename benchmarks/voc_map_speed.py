"""How long VOC scoring takes at the size of VOC2007 test, beside pycocotools and faster-coco-eval.

    python benchmarks/voc_map_speed.py

Synthetic truth and detections from a seed: 4,952 images, 20 classes, 12,000 truth boxes, 240,000 detections, of which
nearly half lie near a truth box of their class. Every time is "all in": from records and predictions (torch tensors) to
figures. The libraries are asked for the least they can do: IoU 0.5 only, all areas only, one limit of detections. Their
AP is COCO's (101 recall points, another matching), so only times are compared. Median of the repeats; one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from transfer.metrics.coco_map import accumulate, coco_datasets
from transfer.metrics.flat import flatten_detections, flatten_truths
from transfer.metrics.voc_map import VOCMeanAP
from transfer.types import Prediction, Record

_WIDTH, _HEIGHT = 500, 375


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """[count, 4] float32 boxes of 10 pixels to the whole image, whole numbers."""
    size = generator.integers(10, (_WIDTH, _HEIGHT), (count, 2))
    corner = generator.integers(0, np.array((_WIDTH, _HEIGHT)) - size + 1)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def synthetic_data(
    *, images: int, truths: int, detections: int, classes: int, seed: int
) -> tuple[list[Record], list[Prediction]]:
    """Records and predictions: per truth box nine detections around it, the others anywhere."""
    generator = np.random.default_rng(seed)
    truth_image = np.sort(generator.integers(0, images, truths))
    truth_boxes, truth_labels = random_boxes(generator, truths), generator.integers(0, classes, truths)
    difficult = generator.random(truths) < 0.15

    near = np.repeat(np.arange(truths), 9)[:detections]
    far = detections - len(near)
    jitter = generator.normal(0, 12, (len(near), 4)).astype(np.float32)
    image = np.concatenate([truth_image[near], generator.integers(0, images, far)])
    boxes = np.concatenate([truth_boxes[near] + jitter, random_boxes(generator, far)])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate([truth_labels[near], generator.integers(0, classes, far)])
    scores = np.concatenate([generator.beta(2, 2, len(near)), generator.beta(1, 6, far)]).astype(np.float32)
    order = np.lexsort((-scores, image))
    image, boxes, labels, scores = image[order], boxes[order], labels[order], scores[order]

    truth_bounds = np.searchsorted(truth_image, np.arange(images + 1))
    bounds = np.searchsorted(image, np.arange(images + 1))
    records, predictions = [], []
    for position in range(images):
        mine = slice(truth_bounds[position], truth_bounds[position + 1])
        own = truth_boxes[mine]
        records.append(
            Record(
                path=f"{position:06d}.jpg",
                image_id=f"{position:06d}",
                size=(_HEIGHT, _WIDTH),
                boxes=own,
                labels=truth_labels[mine],
                difficult=difficult[mine],
                crowd=np.zeros(len(own), bool),
                areas=(own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1]),
            )
        )
        found = slice(bounds[position], bounds[position + 1])
        predictions.append(
            Prediction(torch.tensor(boxes[found]), torch.tensor(scores[found]), torch.tensor(labels[found]))
        )
    return records, predictions


def timed(function: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4952)
    parser.add_argument("--truths", type=int, default=12_000)
    parser.add_argument("--detections", type=int, default=240_000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    records, predictions = synthetic_data(
        images=options.images,
        truths=options.truths,
        detections=options.detections,
        classes=options.classes,
        seed=options.seed,
    )
    names = [f"class {label}" for label in range(options.classes)]
    ids = list(range(1, options.classes + 1))

    def by_library(backend: str) -> Callable[[], object]:
        def run() -> object:
            truths = flatten_truths(records, options.classes)
            detections = flatten_detections(records, predictions, options.classes)
            truth, found = coco_datasets(truths, detections, len(records), options.classes)
            return accumulate(backend, truth, found, [100], iou_thresholds=[0.5], all_areas_only=True)

        return run

    contestants: dict[str, Callable[[], object]] = {
        "VOCMeanAP, 11-point": lambda: VOCMeanAP().evaluate(records, predictions, names, ids),
        "VOCMeanAP, area": lambda: VOCMeanAP(protocol="voc_area").evaluate(records, predictions, names, ids),
    }
    for backend, module in (("faster-coco-eval", "faster_coco_eval"), ("pycocotools", "pycocotools")):
        if importlib.util.find_spec(module):
            contestants[f"{backend}, IoU 0.5 only"] = by_library(backend)

    print(
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}"
    )
    print(
        f"{options.images} images, {options.truths} truth boxes, {options.detections} detections, "
        f"{options.classes} classes, seed {options.seed}, median of {options.repeats}, one thread"
    )
    baseline = None
    for name, function in contestants.items():
        function()  # imports and caches
        seconds = timed(function, options.repeats)
        median = statistics.median(seconds)
        baseline = baseline or median
        print(f"{name:32s} {median:7.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})  {median / baseline:6.1f}x")


if __name__ == "__main__":
    main()
