"""Average precision and recall by the COCO protocol: the twelve figures, and AP of each class.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the COCO challenge's detection rules.
The figures come from pycocotools, or from faster-coco-eval, whose figures are the same in a fraction of the time.

Deviations: (1) an image keeps its `max_detections` best detections over all classes, as the challenge asks; pycocotools
alone limits each class of an image. The two differ only for images with more detections. (2) VOC's difficult boxes,
which COCO does not know, are ignored as COCO ignores objects outside an area range: matched by plain IoU, one detection
each, neither right nor wrong. (3) Undefined figures are NaN, not -1.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.metrics.flat import Detections, Predicted, Truths, check_classes, flatten_detections, flatten_truths
from transfer.metrics.result import MetricResult
from transfer.types import Record, UserError

_BACKENDS = {"auto": "", "pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}  # -> module
_OUTSIDE_EVERY_AREA_RANGE = -1.0
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # the order of the library's area ranges
_IOU_50, _IOU_75 = 0, 5  # positions in 0.50, 0.55, ..., 0.95


class COCOMeanAP:
    """COCO's AP and AR for boxes.

    Args:
        backend: "pycocotools", "faster-coco-eval", or "auto": the latter where installed. The figures are the same.
        max_detections: how many detections of an image count, those of highest score; at least 1. COCO says 100.

    Raises:
        UserError: An unknown or absent backend, or a limit below 1.
    """

    task = "detection"

    def __init__(self, *, backend: str = "auto", max_detections: int = 100) -> None:
        problems = []
        if backend not in _BACKENDS:
            near = difflib.get_close_matches(str(backend), _BACKENDS, n=1, cutoff=0)[0]
            problems.append(
                f"backend={backend!r} is not one of {', '.join(map(repr, _BACKENDS))}; did you mean {near!r}?"
            )
        elif backend != "auto" and importlib.util.find_spec(_BACKENDS[backend]) is None:
            problems.append(f"backend={backend!r} is not installed: `pip install {backend}`, or backend='auto'")
        if max_detections < 1:
            problems.append(f"max_detections={max_detections!r} must be at least 1; COCO's protocol says 100")
        if problems:
            raise UserError("COCOMeanAP: " + "; ".join(problems))
        if backend == "auto":
            backend = "faster-coco-eval" if importlib.util.find_spec("faster_coco_eval") else "pycocotools"
        self.backend = backend
        self.max_detections = max_detections

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
            category_ids: one per class; checked, otherwise unused (figures do not depend on ids).

        Returns:
            AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100 (the last for `max_detections`), ARs, ARm, ARl; for each
            class ap, ap50, ar, truths (without the ignored), ignored and detections (within the limit). With truth and
            no detection a figure is 0; without truth (of that class or area) it is NaN.

        Raises:
            ValueError: Records, predictions and classes do not fit together, or a number is not finite.
        """
        check_classes(class_names, category_ids)
        num_classes = len(class_names)
        truths = flatten_truths(records, num_classes)
        detections = flatten_detections(records, predictions, num_classes).best_per_image(self.max_detections)
        limits = [limit for limit in (1, 10) if limit < self.max_detections] + [self.max_detections]
        datasets = coco_datasets(truths, detections, len(records), num_classes)
        precision, recall = accumulate(self.backend, *datasets, limits)
        values, meanings = _twelve_figures(precision, recall, limits)
        return MetricResult(
            protocol=(
                f"COCO box AP at IoU 0.50:0.95, at most {self.max_detections} detections an image; "
                "crowd and difficult boxes ignored"
            ),
            main="AP",
            values=values,
            per_class=_class_figures(precision, recall, truths, detections, class_names),
            meanings={
                **meanings,
                "ap": "as AP",
                "ap50": "as AP50",
                "ar": f"as AR{self.max_detections}",
                "ignored": "crowd or difficult truth boxes, not in truths",
                "detections": f"within the {self.max_detections} best of their image",
            },
            count_columns=("truths", "ignored", "detections"),
        )


def coco_datasets(
    truths: Truths, detections: Detections, num_images: int, num_classes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Truth and detections as the content of two COCO files; image position i has id i + 1, label k category k + 1."""
    images = [{"id": position + 1} for position in range(num_images)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(num_classes)]
    shared = {"images": images, "categories": categories}
    return (
        {**shared, "annotations": _truth_annotations(truths)},
        {**shared, "annotations": _detection_annotations(detections)},
    )


def _truth_annotations(truths: Truths) -> list[dict[str, Any]]:
    areas = np.where(truths.difficult, _OUTSIDE_EVERY_AREA_RANGE, truths.areas)
    return [
        # ids begin at 1: the libraries take a match with id 0 for no match
        {"id": number, "image_id": image + 1, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": crowd}
        for number, (image, label, box, area, crowd) in enumerate(
            zip(
                truths.image.tolist(),
                truths.labels.tolist(),
                boxes_xywh(truths.boxes).tolist(),
                areas.tolist(),
                truths.crowd.astype(int).tolist(),
            ),
            start=1,
        )
    ]


def _detection_annotations(detections: Detections) -> list[dict[str, Any]]:
    xywh = boxes_xywh(detections.boxes)
    areas = xywh[:, 2] * xywh[:, 3]
    return [
        {"id": number, "image_id": image + 1, "category_id": label + 1, "bbox": box, "area": area, "score": score}
        for number, (image, label, box, area, score) in enumerate(
            zip(
                detections.image.tolist(),
                detections.labels.tolist(),
                xywh.tolist(),
                areas.tolist(),
                detections.scores.tolist(),
            ),
            start=1,
        )
    ]


def boxes_xywh(boxes: np.ndarray) -> np.ndarray:
    """[N, 4] xyxy, exclusive -> [N, 4] x_min, y_min, width, height, as COCO writes boxes."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def accumulate(
    backend: str,
    truth: dict[str, Any],
    detections: dict[str, Any],
    max_detections: list[int],
    *,
    iou_thresholds: Sequence[float] | None = None,
    all_areas_only: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Let the library match and accumulate, without its prints.

    Args:
        backend: "pycocotools" or "faster-coco-eval".
        truth: images, categories and annotations.
        detections: the same with scores.
        max_detections: ascending limits an image and class, M of them.
        iou_thresholds: T of them; None for COCO's ten.
        all_areas_only: whether the three area ranges are left out.

    Returns:
        precision [T, 101, K, A, M] and recall [T, K, A, M]; NaN where there is no truth.
    """

    def silent(*_: object) -> None:
        pass

    with contextlib.redirect_stdout(io.StringIO()):
        if backend == "faster-coco-eval":
            from faster_coco_eval import COCO, COCOeval_faster

            # it logs where pycocotools prints
            datasets = [COCO(print_function=silent), COCO(print_function=silent)]
        else:
            from pycocotools.coco import COCO

            datasets = [COCO(), COCO()]
        for coco, content in zip(datasets, (truth, detections)):
            coco.dataset = content
            coco.createIndex()
        if backend == "faster-coco-eval":
            evaluator = COCOeval_faster(*datasets, "bbox", print_function=silent)
        else:
            from pycocotools.cocoeval import COCOeval

            evaluator = COCOeval(*datasets, "bbox")
        evaluator.params.maxDets = list(max_detections)
        if iou_thresholds is not None:
            evaluator.params.iouThrs = np.asarray(iou_thresholds)
        if all_areas_only:
            evaluator.params.areaRng = evaluator.params.areaRng[:1]
            evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
        evaluator.evaluate()
        evaluator.accumulate()
    precision, recall = (np.asarray(evaluator.eval[name], np.float64) for name in ("precision", "recall"))
    return np.where(precision > -1, precision, np.nan), np.where(recall > -1, recall, np.nan)


def _twelve_figures(
    precision: np.ndarray, recall: np.ndarray, limits: list[int]
) -> tuple[dict[str, float], dict[str, str]]:
    """COCO's figures in its order, and what each means."""
    most = f"{limits[-1]} detections"
    ious = "IoU 0.50:0.95"
    figures: list[tuple[str, np.ndarray, str]] = [
        ("AP", precision[:, :, :, _ALL, -1], f"{ious}, all areas, {most}"),
        ("AP50", precision[_IOU_50, :, :, _ALL, -1], f"IoU 0.50, all areas, {most}"),
        ("AP75", precision[_IOU_75, :, :, _ALL, -1], f"IoU 0.75, all areas, {most}"),
        ("APs", precision[:, :, :, _SMALL, -1], f"{ious}, area below 32^2 pixels, {most}"),
        ("APm", precision[:, :, :, _MEDIUM, -1], f"{ious}, area 32^2 to 96^2 pixels, {most}"),
        ("APl", precision[:, :, :, _LARGE, -1], f"{ious}, area above 96^2 pixels, {most}"),
    ]
    for position, limit in enumerate(limits):
        # the libraries apply the two small limits to each class of an image
        count = most if limit == limits[-1] else f"the best {limit} of each class of an image"
        figures.append((f"AR{limit}", recall[:, :, _ALL, position], f"{ious}, all areas, {count}"))
    figures += [
        ("ARs", recall[:, :, _SMALL, -1], f"{ious}, area below 32^2 pixels, {most}"),
        ("ARm", recall[:, :, _MEDIUM, -1], f"{ious}, area 32^2 to 96^2 pixels, {most}"),
        ("ARl", recall[:, :, _LARGE, -1], f"{ious}, area above 96^2 pixels, {most}"),
    ]
    return {name: _mean(array) for name, array, _ in figures}, {name: meaning for name, _, meaning in figures}


def _class_figures(
    precision: np.ndarray, recall: np.ndarray, truths: Truths, detections: Detections, class_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    per_class: dict[str, dict[str, float]] = {}
    for label, name in enumerate(class_names):
        ignored = truths.ignored[truths.labels == label]
        per_class[name] = {
            "ap": _mean(precision[:, :, label, _ALL, -1]),
            "ap50": _mean(precision[_IOU_50, :, label, _ALL, -1]),
            "ar": _mean(recall[:, label, _ALL, -1]),
            "truths": int((~ignored).sum()),
            "ignored": int(ignored.sum()),
            "detections": int((detections.labels == label).sum()),
        }
    return per_class


def _mean(figures: np.ndarray) -> float:
    """The mean of the figures that are defined; NaN if none is."""
    defined = figures[~np.isnan(figures)]
    return float(defined.mean()) if defined.size else float("nan")
