"""How long the confusion matrix of a segmentation takes, an image, beside np.bincount alone and beside other libraries.

    OMP_NUM_THREADS=1 python benchmarks/mean_iou_speed.py

Synthetic masks from a seed: 512x512, 150 classes, 5 percent of the truth ignored; either scenes of large regions (a
prediction differs in a fifth of them) or noise. 16 different pairs are counted in turn, in each round by every one of
the ways. "np.bincount alone" gets the joint index of truth and prediction ready-made, as int64; the confusion matrix
is to cost at most half as much again. The other forms of np.bincount build their index. The libraries get their int64
tensors ready-made; smp counts true and false positives and negatives of each class. All matrices are compared before
they are timed. CPU time, one thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from collections.abc import Callable

import cv2
import numpy as np
import torch
from comparison import Result, Row, Times, benchmark_parser, in_turn, one_thread, ratio_of, report, versions_of

from transfer.metrics.mean_iou import MeanIoU
from transfer.types import IGNORED_PIXEL

SIZE, CLASSES, PAIRS = 512, 150, 16
OURS, ALONE = "MeanIoU", "np.bincount alone"
TARGETS = {"torchmetrics": 6.0}
"""Library -> how many times as fast the matrix here was to be."""
OVER_BINCOUNT = 1.5
"""What the matrix may cost at most, as a multiple of np.bincount alone."""

Pair = tuple[np.ndarray, np.ndarray]
Count = Callable[[int], object]
"""Counts one pair by its position; gives the [K, K] counts where it has them, else None."""
IN_CACHE = 32_768
"""Pixels of a piece whose int64 index, which np.bincount makes, stays in the cache."""


def scenes(generator: np.random.Generator, *, size: int, classes: int) -> Pair:
    """Truth and prediction of about 80 regions."""

    def enlarged(small: np.ndarray) -> np.ndarray:
        return cv2.resize(small.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)

    truth, other = (enlarged(generator.integers(0, classes, (9, 9))) for _ in range(2))
    wrong, ignored = (enlarged(generator.random((40, 40)) < share) for share in (0.2, 0.05))
    return np.where(ignored, IGNORED_PIXEL, truth).astype(np.uint8), np.where(wrong, other, truth)


def noise(generator: np.random.Generator, *, size: int, classes: int) -> Pair:
    """Truth and prediction in which every pixel is drawn for itself."""
    truth, other = (generator.integers(0, classes, (size, size), dtype=np.uint8) for _ in range(2))
    wrong, ignored = (generator.random((size, size)) < share for share in (0.2, 0.05))
    return np.where(ignored, IGNORED_PIXEL, truth).astype(np.uint8), np.where(wrong, other, truth)


def own_counters(pairs: list[Pair], classes: int) -> dict[str, Count]:
    """np.bincount with its index given, ours, and np.bincount with its index built in several ways."""
    indices = [int64_index(*pair, classes) for pair in pairs]
    matrix = MeanIoU().start(classes)

    def counted(index: np.ndarray) -> np.ndarray:
        return np.bincount(index, minlength=classes * classes)[: classes * classes].reshape(classes, -1)

    def counted_bytes(index: np.ndarray) -> np.ndarray:
        return np.bincount(index, minlength=2**16).reshape(256, 256)[:classes, :classes]

    def in_pieces(index: np.ndarray) -> np.ndarray:
        counts = np.zeros((classes, classes), dtype=np.int64)
        for start in range(0, len(index), IN_CACHE):
            counts += counted_bytes(index[start : start + IN_CACHE])
        return counts

    def ours(position: int) -> np.ndarray:
        matrix.counts[:] = 0
        matrix.add(*pairs[position])
        return matrix.counts

    return {
        "np.bincount alone": lambda position: counted(indices[position]),
        "MeanIoU": ours,
        "np.bincount, int64 index": lambda position: counted(int64_index(*pairs[position], classes)),
        "np.bincount, uint16 index": lambda position: counted(uint16_index(*pairs[position], classes)),
        "np.bincount, bytes merged": lambda position: counted_bytes(merged(*pairs[position])),
        "np.bincount, merged, in pieces": lambda position: in_pieces(merged(*pairs[position])),
    }


def int64_index(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[H * W] int64: truth * K + prediction; 255 comes behind all classes."""
    return (truth.astype(np.int64) * classes + predicted).ravel()


def uint16_index(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[H * W] uint16: as `int64_index`, calculated in place; fits for all K, as 255 * 255 + 254 does."""
    index = truth.astype(np.uint16)
    index *= classes
    index += predicted
    return index.ravel()


def merged(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[H * W] uint16: truth * 256 + prediction, on a little-endian machine."""
    return cv2.merge([predicted, truth]).view(np.uint16).ravel()


def library_counters(pairs: list[Pair], classes: int) -> dict[str, Count | None]:
    """torchmetrics and smp, None where one is not installed."""
    tensors = [tuple(torch.from_numpy(mask).long()[None] for mask in pair) for pair in pairs]
    counters: dict[str, Count | None] = {"torchmetrics": None, "smp": None}
    if importlib.util.find_spec("torchmetrics"):
        confusion = importlib.import_module("torchmetrics.functional.classification").multiclass_confusion_matrix

        def by_torchmetrics(position: int) -> np.ndarray:
            truth, predicted = tensors[position]
            counts = confusion(predicted, truth, num_classes=classes, ignore_index=IGNORED_PIXEL, validate_args=False)
            return counts.numpy()

        counters["torchmetrics"] = by_torchmetrics
    if importlib.util.find_spec("segmentation_models_pytorch"):
        from segmentation_models_pytorch.metrics import get_stats

        def by_smp(position: int) -> None:
            truth, predicted = tensors[position]
            get_stats(predicted, truth, mode="multiclass", num_classes=classes, ignore_index=IGNORED_PIXEL)

        counters["smp"] = by_smp
    return counters


def checked(own: dict[str, Count], libraries: dict[str, Count | None]) -> dict[str, Count]:
    """Those that are there, after a look at what they count. Raises: AssertionError where that differs."""
    expected = own[ALONE](0)
    counters = {**own, **{name: count for name, count in libraries.items() if count is not None}}
    for name, count in counters.items():
        counts = count(0)
        assert counts is None or np.array_equal(np.asarray(counts), np.asarray(expected)), f"{name} counts otherwise"
    return counters


def all_pairs(count: Count, repeats: int) -> Callable[[], None]:
    """Counts every pair, so often."""

    def run() -> None:
        for _ in range(repeats):
            for position in range(PAIRS):
                count(position)

    return run


def rows_of(kind: str, times: Times, repeats: dict[str, int]) -> list[Row]:
    """Ours beside each of the others."""
    an_image = {name: [each / (PAIRS * repeats[name]) for each in seconds] for name, seconds in times.items()}
    shown = {name: f"{1000 * statistics.median(each):.3f} ms" for name, each in an_image.items()}
    rows = []
    for name in times:
        if name == OURS:
            continue
        above, below = (OURS, name) if name == ALONE else (name, OURS)
        ratio, spread = ratio_of(an_image[above], an_image[below])
        rows.append(
            Row(
                key=f"mean_iou_{kind}_{name}",
                what=f"confusion matrix, {CLASSES} classes, {SIZE}x{SIZE}, {kind}",
                ours=shown[OURS],
                beside=f"{name}: {shown[name]}",
                ratio=ratio,
                spread=spread,
                target=OVER_BINCOUNT if name == ALONE else TARGETS.get(name),
                wanted="at most" if name == ALONE else "at least",
                note="ours over it, whose index is ready-made" if name == ALONE else "",
            )
        )
    return rows


def result(*, quick: bool) -> Result:
    """Scenes and noise, each counted in every way."""
    rows, libraries = [], {}
    for draw in (scenes, noise):
        generator = np.random.default_rng(0)
        pairs = [draw(generator, size=SIZE, classes=CLASSES) for _ in range(PAIRS)]
        own, libraries = own_counters(pairs, CLASSES), library_counters(pairs, CLASSES)
        counters = checked(own, libraries)
        repeats = {name: 8 if name in own and not quick else 1 for name in counters}  # libraries are slower
        runs = {name: all_pairs(count, repeats[name]) for name, count in counters.items()}
        times = in_turn(runs, rounds=3 if quick else 9)
        rows += rows_of(draw.__name__, times, repeats)
    for name, count in libraries.items():
        if count is None:
            print(f"{name} is not installed: left out")
    return Result(rows, versions_of("numpy", "opencv-python-headless", "torch", *libraries))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    one_thread()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
