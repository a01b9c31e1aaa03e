"""How long the confusion matrix of a segmentation takes, an image, beside np.bincount alone and beside other libraries.

    python benchmarks/mean_iou_speed.py

Synthetic masks from a seed: 512x512, 150 classes, 5 percent of the truth ignored; either scenes of large regions (a
prediction differs in a fifth of them) or noise. 64 different pairs are used in turn, until 2,000 images are counted.
CPU time an image, median of the repeats, one thread; so other load on the machine changes little. "np.bincount alone"
gets the joint index of truth and prediction ready-made, as int64; the confusion matrix is to cost at most half as much
again. The other forms of np.bincount build their index. Libraries count fewer images, because they are slower; smp
counts true and false positives and negatives of each class. All matrices are compared before they are timed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from transfer.metrics.mean_iou import MeanIoU
from transfer.types import IGNORED_PIXEL

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


def milliseconds(count: Count, pairs: int, images: int, repeats: int) -> list[float]:
    """CPU time an image of each of the repeats."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for image in range(images):
            count(image % pairs)
        times.append(1000 * (time.process_time() - start) / images)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--library-images", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, OpenCV {cv2.__version__}, "
        f"torch {torch.__version__}"
    )
    for draw in (scenes, noise):
        generator = np.random.default_rng(options.seed)
        pairs = [draw(generator, size=options.size, classes=options.classes) for _ in range(options.pairs)]
        print(
            f"\n{draw.__name__}: {options.images} images of {options.size}x{options.size}, {options.classes} classes, "
            f"seed {options.seed}, CPU ms an image, median of {options.repeats}, one thread"
        )
        own = own_counters(pairs, options.classes)
        counters = {**own, **library_counters(pairs, options.classes)}
        baseline = None
        for name, count in counters.items():
            if count is None:
                print(f"{name:30s} not installed")
                continue
            counts = count(0)  # imports and caches, too
            expected = own["np.bincount alone"](0)
            assert counts is None or np.array_equal(np.asarray(counts), np.asarray(expected)), (
                f"{name} counts otherwise"
            )
            images = options.images if name in own else options.library_images
            times = milliseconds(count, len(pairs), images, options.repeats)
            median = statistics.median(times)
            baseline = baseline or median
            print(f"{name:30s} {median:7.3f}  ({min(times):.3f} to {max(times):.3f})  {median / baseline:6.2f}x")


if __name__ == "__main__":
    main()
