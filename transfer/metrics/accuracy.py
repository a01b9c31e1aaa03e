"""Top-k accuracy, accuracy by class and calibration of a classifier, from exact counts.

Top-k: an image is right where fewer than k classes come before its own. A class comes before another where its score is
higher, or equal and its number lower: the scores sorted, equal ones in the order of the classes. So a model that says
the same of every class is right for the images of the first class alone. An image with a score that is not a number is
wrong for every k; it counts as an image of its class, and as a prediction of none.

Expected calibration error: Guo et al. 2017 (arXiv 1706.04599), equation 3, with its 15 bins of equal width, each open
on the left, closed on the right. An image's confidence is its highest score. The error is the mean over images of the
difference between its bin's accuracy and mean confidence. Images with a score that is not a number are left out of it.

Counts are int64, and so are sums of confidences: each is rounded to 2^-32 and added as a whole number. The figures thus
do not depend on the order of the images, on batches or on the number of processes, to the last bit; the rounding
changes the calibration error by at most 2^-33, and a sum would overflow beyond 2^31 images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfer.metrics.result import MetricResult
from transfer.types import UserError

_ONE = 2**32
"""What a confidence of 1 adds to a bin's sum."""
_ROUNDING = 1e-4
"""By how much a score may lie outside [0, 1]: averages of probabilities do by a little."""


class ClassificationCounts:
    """Images by true and predicted class, by rank of the true class and by confidence.

    Args:
        num_classes: K, at least 1.
        topk: the k that are counted.
        bins: of the confidence.

    Raises:
        UserError: no classes.
    """

    def __init__(self, num_classes: int, topk: Sequence[int] = (1, 5), bins: int = 15) -> None:
        if num_classes < 1:
            raise UserError(f"ClassificationCounts: num_classes={num_classes} must be at least 1")
        self.topk = tuple(topk)
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        """[K, K] int64: rows are the true classes, columns the predicted ones."""
        self.undecided = np.zeros(num_classes, dtype=np.int64)
        """[K] int64: images of each class with a score that is not a number; they are not in `confusion`."""
        self.hits = np.zeros(len(self.topk), dtype=np.int64)
        """[len(topk)] int64: images that are right for each k."""
        self.bin_images = np.zeros(bins, dtype=np.int64)
        """[bins] int64: images by confidence."""
        self.bin_hits = np.zeros(bins, dtype=np.int64)
        """[bins] int64: of them, those whose highest score is that of the true class."""
        self.bin_confidence = np.zeros(bins, dtype=np.int64)
        """[bins] int64: sum of their confidences, in units of 2^-32."""

    @property
    def class_images(self) -> np.ndarray:
        """[K] int64: images of each true class."""
        return self.confusion.sum(axis=1) + self.undecided

    def add(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """Count some images.

        Args:
            labels: [B] int64, 0..K-1.
            scores: [B, K] float32, probabilities (of softmax, or of each class's sigmoid).

        Raises:
            UserError: The two do not fit together, or hold what is no class or no probability.
        """
        labels, scores = np.asarray(labels), np.asarray(scores)
        self._check(labels, scores)
        known = ~np.isnan(scores).any(axis=1)
        np.add.at(self.undecided, labels[~known], 1)
        labels, scores = labels[known].astype(np.int64), scores[known]
        if not len(labels):
            return
        own = np.take_along_axis(scores, labels[:, None], axis=1)  # [B, 1]
        earlier = np.arange(scores.shape[1]) < labels[:, None]  # [B, K]
        rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)  # [B]: classes that come before
        self.hits += np.array([(rank < k).sum() for k in self.topk], dtype=np.int64)
        np.add.at(self.confusion, (labels, scores.argmax(axis=1)), 1)  # of equal scores the first, as above
        self._calibrate(scores.max(axis=1).astype(np.float64).clip(0.0, 1.0), rank == 0)

    def _calibrate(self, confidence: np.ndarray, right: np.ndarray) -> None:
        # [B] each. Bin m is ((m - 1) / M, m / M]; the product is exact for scores of float32.
        bins = len(self.bin_images)
        place = np.ceil(confidence * bins).astype(np.int64).clip(1, bins) - 1
        np.add.at(self.bin_images, place, 1)
        np.add.at(self.bin_hits, place, right.astype(np.int64))
        np.add.at(self.bin_confidence, place, np.rint(confidence * _ONE).astype(np.int64))

    def merge(self, other: ClassificationCounts) -> None:
        """Add the counts of another process, or of other images.

        Args:
            other: of the same classes, k and bins.

        Raises:
            UserError: It is not.
        """
        mine, theirs = self._kind(), other._kind()
        if mine != theirs:
            raise UserError(f"ClassificationCounts: cannot add counts of {theirs} to counts of {mine}")
        self.confusion += other.confusion
        self.undecided += other.undecided
        self.hits += other.hits
        self.bin_images += other.bin_images
        self.bin_hits += other.bin_hits
        self.bin_confidence += other.bin_confidence

    def _kind(self) -> str:
        return f"{len(self.confusion)} classes, topk {self.topk}, {len(self.bin_images)} bins"

    def _check(self, labels: np.ndarray, scores: np.ndarray) -> None:
        classes = len(self.confusion)
        problems = []
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            problems.append(f"labels are {labels.shape}, {labels.dtype}, they must be [B] int64")
        elif len(labels) and (labels.min() < 0 or labels.max() >= classes):
            problems.append(f"labels hold {labels.min()} to {labels.max()}, but classes are 0..{classes - 1}")
        if scores.ndim != 2 or scores.shape[1] != classes or scores.dtype.kind != "f":
            problems.append(f"scores are {scores.shape}, {scores.dtype}, they must be [B, {classes}] float32")
        elif ((scores < -_ROUNDING) | (scores > 1 + _ROUNDING)).any():
            problems.append(
                f"scores hold {np.nanmin(scores):.4g} to {np.nanmax(scores):.4g}, they must be probabilities in [0, 1]"
            )
        if not problems and len(labels) != len(scores):
            problems.append(f"{len(labels)} labels for scores of {len(scores)} images")
        if problems:
            raise UserError("ClassificationCounts: " + "; ".join(problems))


class Accuracy:
    """Top-k accuracy, mean accuracy of the classes and expected calibration error, with the figures of each class.

    Args:
        topk: whole numbers above 0, 1 among them; those of K and more are left out of the result.
        bins: of the calibration error, at least 1.

    Raises:
        UserError: An argument is not as said above.
    """

    task = "classification"

    def __init__(self, *, topk: Sequence[int] = (1, 5), bins: int = 15) -> None:
        problems = []
        if (
            not isinstance(topk, (list, tuple))
            or not all(type(k) is int and k > 0 for k in topk)
            or len(set(topk)) != len(topk)
            or 1 not in topk
        ):
            problems.append(f"topk={topk!r} must be a list of whole numbers above 0, each once, 1 among them")
        if type(bins) is not int or bins < 1:
            problems.append(f"bins={bins!r} must be a whole number above 0")
        if problems:
            raise UserError("Accuracy: " + "; ".join(problems))
        self.topk, self.bins = tuple(sorted(topk)), bins

    def start(self, num_classes: int) -> ClassificationCounts:
        """Empty counts to add images to.

        Args:
            num_classes: K.
        """
        return ClassificationCounts(num_classes, self.topk, self.bins)

    def result(self, counts: ClassificationCounts, class_names: Sequence[str]) -> MetricResult:
        """The figures of everything that was counted.

        Args:
            counts: what `start` gave, with all images and processes added.
            class_names: the name of class k.

        Returns:
            top1 and the other k below K, mean_class_accuracy, ece; for each class accuracy (its recall), precision and
            images. Without images a class has no accuracy, without predictions no precision (NaN); with no image at all
            every figure is NaN.

        Raises:
            UserError: Names and counts have different numbers of classes, or the counts are of other k or bins.
        """
        asked = ClassificationCounts(len(class_names), self.topk, self.bins)._kind()
        if counts._kind() != asked:
            raise UserError(f"Accuracy: counts of {counts._kind()} where {asked} are wanted")
        num_classes, images, correct = len(class_names), counts.class_images, counts.confusion.diagonal()
        total = int(images.sum())
        accuracy = _divided(correct, images)
        precision = _divided(correct, counts.confusion.sum(axis=0))
        kept = [k for k in self.topk if k == 1 or k < num_classes]
        hits = dict(zip(counts.topk, counts.hits.tolist()))
        values = {f"top{k}": hits[k] / total if total else float("nan") for k in kept}
        values["mean_class_accuracy"] = _mean(accuracy)
        values["ece"] = calibration_error(counts)
        per_class = {
            name: {
                "accuracy": float(accuracy[label]),
                "precision": float(precision[label]),
                "images": int(images[label]),
            }
            for label, name in enumerate(class_names)
        }
        with_images = int((images > 0).sum())
        return MetricResult(
            protocol=f"Accuracy over {total} images of {num_classes} classes; of equal scores the first class counts",
            main="top1",
            values=values,
            per_class=per_class,
            meanings={
                **{f"top{k}": f"images whose class is among the {k} of highest score" for k in kept},
                "top1": "images whose class has the highest score",
                "mean_class_accuracy": f"mean accuracy of {with_images} of {num_classes} classes, those with images",
                "ece": f"expected calibration error, {self.bins} bins of equal width; lower is better",
                "accuracy": "part of the class's images that was found",
                "precision": "part of the images taken for the class that is of it",
            },
            count_columns=("images",),
            absent="a class without images is left out of mean_class_accuracy, one never predicted has no precision",
        )


def calibration_error(counts: ClassificationCounts) -> float:
    """Expected calibration error, in [0, 1]; NaN without an image.

    Args:
        counts: of any images.
    """
    total = int(counts.bin_images.sum())
    if not total:
        return float("nan")
    # |hits - sum of confidences| of each bin, in Python's whole numbers: exact, and without overflow.
    gaps = [abs(hits * _ONE - sure) for hits, sure in zip(counts.bin_hits.tolist(), counts.bin_confidence.tolist())]
    return sum(gaps) / (_ONE * total)


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    # [K] int64 each -> [K] float64, NaN where the denominator is 0
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _mean(figures: np.ndarray) -> float:
    # Of those that are defined.
    defined = figures[~np.isnan(figures)]
    return float(defined.mean()) if len(defined) else float("nan")
