"""Mean average precision by the rules of the PASCAL VOC development kit.

Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, and the kit's
evaluation of the detection task (2007: eleven recall thresholds; from 2010: area under the curve).

A detection belongs to the truth box of its class and image with the highest IoU (the first of several), difficult boxes
included. Below the IoU threshold it is false; on a difficult box it is neither true nor false; on a box that a better
detection already took it is false, with no second choice. Detections are ranked over the whole data set; of equal
scores the earlier image, then the earlier detection, comes first.

The kit stores inclusive corners and adds 1 to widths. Here boxes are stored exclusive, (x_min - 1, y_min - 1, x_max,
y_max), which gives the same IoU with no 1 added.

Deviations: COCO's crowd boxes count as difficult. The eleven recall thresholds are compared as whole numbers,
10 * true >= k * truths: as floats, 3/10, 6/10 and 7/10 fall on the wrong side.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from transfer.metrics.flat import Detections, Predicted, Truths, check_classes, flatten_detections, flatten_truths
from transfer.metrics.result import MetricResult
from transfer.types import Record, UserError

_PROTOCOLS = {"voc07_11point": "VOC2007 11-point AP", "voc_area": "VOC2010+ AP (area under the curve)"}
_PAIRS_AT_ONCE = 1_000_000  # detection and truth box; bounds the working memory to some 150 MB


class VOCMeanAP:
    """VOC's mean average precision, with precision and recall of each class at one score.

    Args:
        protocol: "voc07_11point" (VOC2007) or "voc_area" (VOC2010 and later).
        iou_threshold: least IoU of a true detection, in (0, 1].
        score_for_precision_recall: precision and recall count the detections of at least this score. Scores are
            float32, so the comparison is made in float32.

    Raises:
        UserError: An unknown protocol or an IoU threshold out of range.
    """

    task = "detection"

    def __init__(
        self,
        *,
        protocol: str = "voc07_11point",
        iou_threshold: float = 0.5,
        score_for_precision_recall: float = 0.5,
    ) -> None:
        problems = []
        if protocol not in _PROTOCOLS:
            near = difflib.get_close_matches(str(protocol), _PROTOCOLS, n=1, cutoff=0)[0]
            problems.append(
                f"protocol={protocol!r} is not one of {', '.join(map(repr, _PROTOCOLS))}; did you mean {near!r}?"
            )
        if not 0 < iou_threshold <= 1:
            problems.append(f"iou_threshold={iou_threshold!r} must be above 0 and at most 1, such as 0.5")
        if problems:
            raise UserError("VOCMeanAP: " + "; ".join(problems))
        self.protocol = protocol
        self.iou_threshold = iou_threshold
        self.score_for_precision_recall = score_for_precision_recall

    def evaluate(
        self,
        records: Sequence[Record],
        predictions: Sequence[Predicted],
        class_names: Sequence[str],
        category_ids: Sequence[int],
    ) -> MetricResult:
        """Score the detections of a data set.

        Args:
            records: the truth, one per image.
            predictions: predictions[i] belongs to records[i].
            class_names: the name of label k.
            category_ids: one per class; checked, otherwise unused.

        Returns:
            The mean over classes with truth ("mAP50" for IoU 0.5) and for each class ap, precision, recall, truths
            (without the ignored), ignored and detections. A class without truth has NaN for the first three; a class
            with truth and no detection has ap and recall 0 and precision NaN. With no truth at all the mean is NaN.

        Raises:
            ValueError: Records, predictions and classes do not fit together, or a number is not finite.
        """
        check_classes(class_names, category_ids)
        truths = flatten_truths(records, len(class_names))
        detections = flatten_detections(records, predictions, len(class_names))
        is_true, is_false = match_detections(truths, detections, len(records), self.iou_threshold)

        # lexsort is stable: by class, then best score first, then image and detection
        order = np.lexsort((-detections.scores, detections.labels))
        bounds = np.searchsorted(detections.labels[order], np.arange(len(class_names) + 1))
        num_truths = np.bincount(truths.labels[~truths.ignored], minlength=len(class_names))
        num_ignored = np.bincount(truths.labels[truths.ignored], minlength=len(class_names))
        per_class: dict[str, dict[str, float]] = {}
        for label, name in enumerate(class_names):
            ranked = order[bounds[label] : bounds[label + 1]]
            per_class[name] = {
                **self._figures(
                    is_true[ranked], is_false[ranked], detections.scores[ranked], num_truths=int(num_truths[label])
                ),
                "truths": int(num_truths[label]),
                "ignored": int(num_ignored[label]),
                "detections": len(ranked),
            }
        return self._result(per_class)

    def _figures(
        self, is_true: np.ndarray, is_false: np.ndarray, scores: np.ndarray, *, num_truths: int
    ) -> dict[str, float]:
        """AP, precision and recall of one class from its detections, best first."""
        if num_truths == 0:
            return {"ap": float("nan"), "precision": float("nan"), "recall": float("nan")}
        average = eleven_point_ap if self.protocol == "voc07_11point" else area_ap
        # a score stored as float32 of 0.9 is 0.89999998 in float64, below 0.9: both sides in float32
        confident = scores.astype(np.float32) >= np.float32(self.score_for_precision_recall)
        num_true = int(is_true[confident].sum())
        num_counted = num_true + int(is_false[confident].sum())
        return {
            "ap": average(is_true, is_false, num_truths),
            "precision": num_true / num_counted if num_counted else float("nan"),
            "recall": num_true / num_truths,
        }

    def _result(self, per_class: dict[str, dict[str, float]]) -> MetricResult:
        main = f"mAP{100 * self.iou_threshold:g}"
        defined = [figures["ap"] for figures in per_class.values() if figures["truths"]]
        at_score = f"of the detections of score >= {self.score_for_precision_recall:g}"
        return MetricResult(
            protocol=(
                f"{_PROTOCOLS[self.protocol]} at IoU {self.iou_threshold:g}; difficult and crowd boxes ignored; "
                "boxes stored exclusive, which equals the devkit's inclusive IoU"
            ),
            main=main,
            values={main: float(np.mean(defined)) if defined else float("nan")},
            per_class=per_class,
            meanings={
                main: f"mean AP of {len(defined)} of {len(per_class)} classes, those with truth",
                "precision": at_score,
                "recall": at_score,
                "ignored": "difficult or crowd truth boxes, not in truths",
            },
            count_columns=("truths", "ignored", "detections"),
        )


def match_detections(
    truths: Truths, detections: Detections, num_images: int, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Decide for every detection whether it is true, false or (both False) neither.

    Args:
        truths: T boxes.
        detections: D boxes.
        num_images: above every image position.
        iou_threshold: least IoU of a match.

    Returns:
        is_true [D] bool and is_false [D] bool, in the order of `detections`.
    """
    best_iou, best_truth = _best_truths(truths, detections, num_images)
    matched = best_iou >= iou_threshold
    neither = np.zeros_like(matched)
    neither[matched] = truths.ignored[best_truth[matched]]

    # Of the detections that claim a truth box the best ranked is true. Rank matters only within a box, so within a
    # class: one order by score serves all classes. np.unique names the first place each box occurs at.
    claims = np.flatnonzero(matched & ~neither)
    claims = claims[np.argsort(-detections.scores[claims], kind="stable")]
    _, first = np.unique(best_truth[claims], return_index=True)
    is_true = np.zeros_like(matched)
    is_true[claims[first]] = True
    return is_true, ~is_true & ~neither


def _best_truths(truths: Truths, detections: Detections, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest IoU of each detection with a truth box of its class and image, and that box, the first of equals.

    Returns:
        best_iou [D] float64, 0 where there is no such box, and best_truth [D] int64, -1 there.
    """
    best_iou = np.zeros(len(detections.labels))
    best_truth = np.full(len(detections.labels), -1)
    # One number for each (class, image); truth boxes in its order, so those of one class and image are neighbours.
    truth_group = truths.labels * num_images + truths.image
    truth_order = np.argsort(truth_group, kind="stable")
    truth_group = truth_group[truth_order]
    group = detections.labels * num_images + detections.image
    begin = np.searchsorted(truth_group, group, side="left")  # [D]
    count = np.searchsorted(truth_group, group, side="right") - begin  # [D] truth boxes to compare with

    candidates = np.flatnonzero(count)
    pairs_so_far = np.cumsum(count[candidates])
    num_pieces = int(pairs_so_far[-1] // _PAIRS_AT_ONCE + 1) if len(candidates) else 0
    cuts = np.searchsorted(pairs_so_far, _PAIRS_AT_ONCE * np.arange(1, num_pieces))
    for piece in np.split(candidates, cuts) if num_pieces else []:
        if len(piece) == 0:
            continue
        counts = count[piece]
        offsets = np.cumsum(counts) - counts  # where each detection's pairs begin
        # [P] pairs: detection 0 with all its truth boxes, detection 1 with all its truth boxes, ...
        truth = truth_order[np.arange(counts.sum()) + np.repeat(begin[piece] - offsets, counts)]
        iou = _paired_iou(detections.boxes[np.repeat(piece, counts)], truths.boxes[truth])
        highest = np.maximum.reduceat(iou, offsets)
        # Within a class and image the truth boxes keep their order: the first of equals has the lowest index.
        is_highest = iou == np.repeat(highest, counts)
        best_iou[piece] = highest
        best_truth[piece] = np.minimum.reduceat(np.where(is_highest, truth, len(truths.labels)), offsets)
    return best_iou, best_truth


def _paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [P] of boxes [P, 4] with others [P, 4], pair by pair; 0 where both have no area."""
    left_top = np.maximum(boxes[:, :2], others[:, :2])
    right_bottom = np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.prod(np.maximum(right_bottom - left_top, 0), axis=1)
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    other_area = np.prod(np.maximum(others[:, 2:] - others[:, :2], 0), axis=1)
    union = area + other_area - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def eleven_point_ap(is_true: np.ndarray, is_false: np.ndarray, num_truths: int) -> float:
    """VOC2007: the mean, over recall 0, 0.1, ..., 1, of the best precision at that recall or a higher one.

    Args:
        is_true: [N] bool, best score first.
        is_false: [N] bool; a detection that is neither is left out.
        num_truths: truth boxes to find, at least 1.

    Returns:
        AP in [0, 1].
    """
    num_true = np.cumsum(is_true)
    reached = np.searchsorted(10 * num_true, num_truths * np.arange(11), side="left")  # first place of each recall
    best_from = np.append(_best_precision_from_here(num_true, np.cumsum(is_false)), 0.0)  # 0: recall never reached
    return float(best_from[reached].sum() / 11)


def area_ap(is_true: np.ndarray, is_false: np.ndarray, num_truths: int) -> float:
    """VOC2010 and later: the area under precision made non-increasing, over recall.

    Args:
        is_true: [N] bool, best score first.
        is_false: [N] bool; a detection that is neither is left out.
        num_truths: truth boxes to find, at least 1.

    Returns:
        AP in [0, 1].
    """
    best_from = _best_precision_from_here(np.cumsum(is_true), np.cumsum(is_false))
    return float(best_from[is_true].sum() / num_truths)  # recall grows by 1 / num_truths at each true detection


def _best_precision_from_here(num_true: np.ndarray, num_false: np.ndarray) -> np.ndarray:
    """[N]: the highest precision at this place of the ranking or later; 0 while nothing counts yet."""
    precision = num_true / np.maximum(num_true + num_false, 1)
    return np.maximum.accumulate(precision[::-1])[::-1]
