"""Mean IoU and its relatives, from one exact confusion matrix of pixels.

Sources: Long et al. 2015, Fully Convolutional Networks, arXiv 1411.4038, section 5 (pixel accuracy, mean accuracy, mean
IU, frequency-weighted IU); the scene parsing benchmark's evaluation code (CSAILVision/sceneparsing, evaluationCode and
demoEvaluation.m), whose conventions GluonCV's figures for ADE20K follow, too.

Pixels whose truth is ignored are left out altogether, their predictions included. Two protocols differ in one thing:
what becomes of a class that is absent from the truth and from the predictions (of the counted pixels).

- "mean_iou": such a class has no IoU and is left out of the mean, as in MMSegmentation. A class without truth that was
  predicted somewhere has IoU 0, and counts.
- "sceneparsing": every class counts, an absent one with IoU 0: the code divides 0 by the smallest float.

They agree wherever every class occurs. The benchmark adds 2.2e-16 to the union of every image, which changes no figure
by more than 1e-12, and is left out here, except for its effect on absent classes.

Counts are int64 and added image by image, so the figures do not depend on the order of the images, on batches or on the
number of processes.

Speed. np.bincount needs one index of truth and prediction, and copies it to int64 before it counts. OpenCV's histogram
of two variables reads the two uint8 masks as they are. CPU time for a pair of 512x512 masks with 150 classes, made of
regions / of noise, as a multiple of np.bincount alone, which is given its int64 index (0.79 / 0.67 ms): `add`, its
checks included, 0.67 / 0.81; np.bincount with an int64 index to build 1.25 / 1.29, with a uint16 index built in place
1.04 / 1.01, with the two masks' bytes merged to uint16 0.95 / 0.96, the same in pieces that stay in the cache 1.14 /
1.17. Measured by `benchmarks/mean_iou_speed.py` (one thread of a busy two-core AVX2 machine, numpy
2.4.6, OpenCV 5.0.0). Regions cost more than noise: neighbouring pixels count into the same place, one after the other.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import cv2
import numpy as np

from transfer.metrics.result import MetricResult
from transfer.types import IGNORED_PIXEL, UserError

_PROTOCOLS = {
    "mean_iou": "absent classes left out of the mean",
    "sceneparsing": "scene parsing benchmark: mean over all classes, absent ones with IoU 0",
}
_EXACT_IN_FLOAT32 = 2**24  # OpenCV counts in int32, but hands counts over as float32


class ConfusionMatrix:
    """Pixels by true and predicted class, added up image by image.

    Args:
        num_classes: K, in [1, 255].

    Raises:
        UserError: Too many classes for a mask of uint8, or none.
    """

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= IGNORED_PIXEL:
            raise UserError(
                f"ConfusionMatrix: num_classes={num_classes} must be in 1..{IGNORED_PIXEL}: masks are uint8"
            )
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)
        """[K, K] int64: rows are the true classes, columns the predicted ones."""

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels of one image.

        Args:
            truth: [H, W] uint8, 0..K-1 or IGNORED_PIXEL.
            predicted: [H, W] uint8, 0..K-1; where the truth is ignored, anything.

        Raises:
            UserError: The two do not fit together, or hold what is no class.
        """
        truth, predicted = np.ascontiguousarray(truth), np.ascontiguousarray(predicted)
        self._check(truth, predicted)
        num_classes = len(self.counts)
        rows_at_once = max(1, _EXACT_IN_FLOAT32 // truth.shape[1])
        counts = np.zeros_like(self.counts)
        for row in range(0, truth.shape[0], rows_at_once):
            piece = [truth[row : row + rows_at_once], predicted[row : row + rows_at_once]]
            limits = [0, num_classes, 0, num_classes]  # what is outside is not counted: so is 255
            histogram = cv2.calcHist(piece, [0, 1], None, [num_classes, num_classes], limits)  # [K, K] float32
            counts += histogram.astype(np.int64)
        if counts.sum() != truth.size - np.count_nonzero(truth == IGNORED_PIXEL):
            self._explain(truth, predicted)
        self.counts += counts

    def merge(self, other: ConfusionMatrix | np.ndarray) -> None:
        """Add the counts of another process, or of other images.

        Args:
            other: of the same number of classes; or its `counts`, [K, K] int64.

        Raises:
            UserError: Another number of classes, or counts that are not whole numbers.
        """
        counts = np.asarray(other.counts if isinstance(other, ConfusionMatrix) else other)
        if counts.shape != self.counts.shape or counts.dtype.kind not in "iu":
            raise UserError(
                f"ConfusionMatrix: cannot add {counts.dtype} counts of shape {counts.shape} to int64 counts of shape "
                f"{self.counts.shape}"
            )
        self.counts += counts.astype(np.int64)

    def _check(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        problems = [
            f"the {name} is {array.shape}, {array.dtype}, it must be [H, W] uint8 and not empty"
            for name, array in (("truth", truth), ("prediction", predicted))
            if array.ndim != 2 or array.dtype != np.uint8 or array.size == 0
        ]
        if not problems and truth.shape != predicted.shape:
            problems.append(
                f"the truth is {truth.shape}, the prediction {predicted.shape}: predict in the original image's size"
            )
        if problems:
            raise UserError("ConfusionMatrix: " + "; ".join(problems))

    def _explain(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        # Raises: some pixel was not counted, though its truth is not ignored.
        num_classes = len(self.counts)
        known = truth != IGNORED_PIXEL
        problems = [
            f"the {name} holds {', '.join(map(str, wrong))}"
            for name, labels in (("truth", truth), ("prediction", predicted))
            if len(wrong := np.unique(labels[known & (labels >= num_classes)]))
        ]
        raise UserError(
            f"ConfusionMatrix: {'; '.join(problems)}, but classes are 0..{num_classes - 1}; {IGNORED_PIXEL} in the "
            "truth is ignored"
        )


class MeanIoU:
    """Mean IoU, pixel accuracy, mean accuracy and frequency-weighted IoU, with the figures of each class.

    Args:
        protocol: "mean_iou" or "sceneparsing"; see above.

    Raises:
        UserError: An unknown protocol.
    """

    task = "segmentation"

    def __init__(self, *, protocol: str = "mean_iou") -> None:
        if protocol not in _PROTOCOLS:
            near = difflib.get_close_matches(str(protocol), _PROTOCOLS, n=1, cutoff=0)[0]
            raise UserError(
                f"MeanIoU: protocol={protocol!r} is not one of {', '.join(map(repr, _PROTOCOLS))}; did you mean "
                f"{near!r}?"
            )
        self.protocol = protocol

    def start(self, num_classes: int) -> ConfusionMatrix:
        """An empty confusion matrix to add images to.

        Args:
            num_classes: K, in [1, 255].
        """
        return ConfusionMatrix(num_classes)

    def result(self, matrix: ConfusionMatrix | np.ndarray, class_names: Sequence[str]) -> MetricResult:
        """The figures of everything that was counted.

        Args:
            matrix: what `start` gave, with all images and processes added; or its `counts`, [K, K] int64.
            class_names: the name of class k.

        Returns:
            mIoU, pixel_accuracy, mean_accuracy and frequency_weighted_iou; for each class iou, accuracy, and the pixels
            of truth and of predictions. Accuracy is the part of a class's true pixels that was found; without truth it
            is NaN, and left out of its mean. With no pixel at all every figure is NaN.

        Raises:
            UserError: Names and matrix have different numbers of classes.
        """
        counts = matrix.counts if isinstance(matrix, ConfusionMatrix) else np.asarray(matrix)
        if counts.shape != (len(class_names), len(class_names)):
            raise UserError(f"MeanIoU: a matrix of shape {counts.shape} for {len(class_names)} class names")
        correct, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)  # [K] each, int64
        total = int(truth.sum())
        iou = _divided(correct, truth + predicted - correct)  # NaN for an absent class
        num_absent = int(np.isnan(iou).sum())
        if self.protocol == "sceneparsing" and total:
            iou = np.nan_to_num(iou)
        accuracy = _divided(correct, truth)
        values = {
            "mIoU": _mean(iou),
            "pixel_accuracy": float(correct.sum() / total) if total else float("nan"),
            "mean_accuracy": _mean(accuracy),
            "frequency_weighted_iou": float((truth * np.nan_to_num(iou)).sum() / total) if total else float("nan"),
        }
        per_class = {
            name: {
                "iou": float(iou[label]),
                "accuracy": float(accuracy[label]),
                "truth_pixels": int(truth[label]),
                "predicted_pixels": int(predicted[label]),
            }
            for label, name in enumerate(class_names)
        }
        return self._table(values, per_class, num_absent, total)

    def _table(
        self, values: dict[str, float], per_class: dict[str, dict[str, float]], num_absent: int, total: int
    ) -> MetricResult:
        num_classes = len(per_class)
        num_counted = num_classes - num_absent if self.protocol == "mean_iou" else num_classes
        num_with_truth = sum(figures["truth_pixels"] > 0 for figures in per_class.values())
        absent = "is left out of mIoU" if self.protocol == "mean_iou" else "has IoU 0"
        return MetricResult(
            protocol=f"Mean IoU over {total} labelled pixels; {_PROTOCOLS[self.protocol]}",
            main="mIoU",
            values=values,
            per_class=per_class,
            meanings={
                "mIoU": f"mean IoU of {num_counted} of {num_classes} classes",
                "pixel_accuracy": "labelled pixels with the right class",
                "mean_accuracy": f"mean accuracy of {num_with_truth} of {num_classes} classes, those with truth",
                "frequency_weighted_iou": "IoU, weighted by pixels of truth",
                "accuracy": "part of the class's pixels that was found",
                "predicted_pixels": "of the labelled ones",
            },
            count_columns=("truth_pixels", "predicted_pixels"),
            absent=f"a class without truth and predictions {absent}, one without truth is left out of mean_accuracy",
        )


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    # [K] int64 each -> [K] float64, NaN where the denominator is 0
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _mean(figures: np.ndarray) -> float:
    # Of those that are defined.
    defined = figures[~np.isnan(figures)]
    return float(defined.mean()) if len(defined) else float("nan")
