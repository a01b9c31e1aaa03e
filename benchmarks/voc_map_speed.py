"""How long VOC scoring takes at the size of VOC2007 test, beside pycocotools and faster-coco-eval.

    OMP_NUM_THREADS=1 python benchmarks/voc_map_speed.py

Synthetic truth and detections from a seed: 4,952 images, 20 classes, 12,000 truth boxes (15 % difficult), 240,000
detections, of which nearly half lie near a truth box of their class. Every time is "all in": from what a test loop
leaves, records and predictions image by image (small tensors), to the figures. For the libraries that means the lists
of dicts that they read, made as `transfer.metrics.coco_map` makes them, their index, `evaluate` and `accumulate`; what
`evaluate` and `accumulate` take alone is said beside it. They are asked for the least they can do: IoU 0.5 only, all
areas only, one limit of detections. Their AP is COCO's (101 recall points, another matching), so only times are
compared. CPU time, one thread.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable

import numpy as np
import torch
from comparison import Result, Row, benchmark_parser, in_turn, one_thread, ratio_of, report, versions_of

from transfer.metrics.coco_map import accumulate, coco_datasets
from transfer.metrics.flat import flatten_detections, flatten_truths
from transfer.metrics.voc_map import VOCMeanAP
from transfer.types import Prediction, Record

IMAGES, TRUTHS, DETECTIONS, CLASSES = 4952, 12_000, 240_000, 20
FORMS = {"VOC07 11-point": "voc07_11point", "area": "voc_area"}
LIBRARIES = {"pycocotools": ("pycocotools", 5.0), "faster-coco-eval": ("faster_coco_eval", 2.0)}
"""Package -> its module, and how many times as fast the figures here were to be."""
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


def by_library(
    backend: str, records: list[Record], predictions: list[Prediction]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """All in; and `evaluate` and `accumulate` with the library's index, from lists of dicts that are there."""

    def datasets() -> tuple[dict[str, object], dict[str, object]]:
        truths = flatten_truths(records, CLASSES)
        detections = flatten_detections(records, predictions, CLASSES)
        return coco_datasets(truths, detections, len(records), CLASSES)

    def evaluate(truth: dict[str, object], found: dict[str, object]) -> object:
        return accumulate(backend, truth, found, [100], iou_thresholds=[0.5], all_areas_only=True)

    ready = datasets()
    return lambda: evaluate(*datasets()), lambda: evaluate(*ready)


def result(*, quick: bool) -> Result:
    """Both forms of VOC's mAP beside every library that is installed."""
    records, predictions = synthetic_data(images=IMAGES, truths=TRUTHS, detections=DETECTIONS, classes=CLASSES, seed=0)
    names = [f"class {label}" for label in range(CLASSES)]
    ids = list(range(1, CLASSES + 1))
    runs: dict[str, Callable[[], object]] = {}
    for form, protocol in FORMS.items():
        metric = VOCMeanAP(protocol=protocol)
        runs[form] = lambda metric=metric: metric.evaluate(records, predictions, names, ids)  # type: ignore[misc]
    installed = [name for name, (module, _) in LIBRARIES.items() if importlib.util.find_spec(module)]
    for library in installed:
        runs[library], runs[f"{library} alone"] = by_library(library, records, predictions)
    times = in_turn(runs, rounds=1 if quick else 5, warm_up=0 if quick else 1)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    rows = []
    for form in FORMS:
        for library in installed:
            ratio, spread = ratio_of(times[library], times[form])
            alone = ratio_of(times[f"{library} alone"], times[form])[0]
            rows.append(
                Row(
                    key=f"voc_map_{FORMS[form]}_{library}",
                    what=f"VOC mAP, {form}, difficult boxes ignored, {IMAGES:,} images, {DETECTIONS:,} detections",
                    ours=f"{seconds[form]:.3f} s",
                    beside=f"{library}, IoU 0.5 and all areas only: {seconds[library]:.2f} s",
                    ratio=ratio,
                    spread=spread,
                    target=LIBRARIES[library][1],
                    note=f"all in; from ready dicts on it takes {seconds[f'{library} alone']:.2f} s, {alone:.1f} times",
                )
            )
    for library in LIBRARIES.keys() - installed:
        print(f"{library} is not installed: left out")
    return Result(rows, versions_of("numpy", "torch", *LIBRARIES))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    one_thread()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
