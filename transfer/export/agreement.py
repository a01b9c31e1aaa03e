"""Whether an exported file says the same as the model it was made of, on real images.

Classifiers and segmenters are compared by their logits; detectors by their detections, because the graph numbers its
boxes otherwise: each one of either side needs a counterpart of the same class in the other. Where scores are equal but
for rounding, either may be the one that a limit or a suppression leaves, so a small share without counterpart is
tolerated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transfer.types import Batch, ClassScores, LabelMap, Prediction, UserError

LOGIT_TOLERANCE = 1e-3
"""Of logits, as a share of the largest."""
BOX_TOLERANCE, SCORE_TOLERANCE = 0.5, 1e-3
"""Of a corner, pixels of the original image, and of a score: what is farther away is no counterpart."""
UNLIKE_TOLERANCE = 0.01
"""Share of the detections without counterpart, or of the pixels or images of another class."""


@dataclass
class Agreement:
    """How far two models are apart, over some batches."""

    logits: float | None = None
    """Largest difference as a share of the largest value; None of detectors."""
    box: float | None = None
    """Largest difference of a corner among counterparts, pixels; None of others than detectors."""
    score: float | None = None
    compared: int = 0
    """Detections of both sides, pixels or images."""
    unlike: int = 0
    """Those without counterpart, or of another class."""

    def add(self, expected: Any, found: Any) -> None:
        """Count one prediction: `Prediction`, `LabelMap` or `ClassScores`."""
        if isinstance(expected, Prediction):
            for one, other in ((expected, found), (found, expected)):
                unmatched, box, score = _unmatched(one, other)
                self.compared, self.unlike = self.compared + len(one.scores), self.unlike + unmatched
                self.box, self.score = max(self.box or 0.0, box), max(self.score or 0.0, score)
        elif isinstance(expected, LabelMap):
            self.compared += expected.labels.numel()
            self.unlike += int((expected.labels != found.labels).sum())
        elif isinstance(expected, ClassScores):
            self.compared += 1
            self.unlike += int(expected.scores.argmax() != found.scores.argmax())

    def add_logits(self, expected: Tensor, found: Tensor) -> None:
        """Count the logits of a batch."""
        share = float("inf")
        if expected.shape == found.shape:
            distance = float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-6))
            share = share if math.isnan(distance) else distance
        self.logits = max(self.logits or 0.0, share)

    @property
    def problems(self) -> list[str]:
        """What is beyond tolerance."""
        texts = []
        if self.logits is not None and not self.logits <= LOGIT_TOLERANCE:
            texts.append(f"logits differ by {self.logits:.2g} of the largest, {LOGIT_TOLERANCE:g} is tolerated")
        if self.unlike > UNLIKE_TOLERANCE * self.compared:
            texts.append(f"{self.unlike} of {self.compared} {self._what} differ, {UNLIKE_TOLERANCE:.0%} is tolerated")
        return texts

    @property
    def _what(self) -> str:
        return "pixels or images" if self.box is None else "detections"

    def text(self) -> str:
        """For a log."""
        if not self.compared:
            return "nothing was detected on either side, so nothing was compared: give images with objects (--check)"
        if self.box is not None:
            apart = f"boxes at most {self.box:.2g} px and scores {self.score:.2g} apart"
        else:
            apart = f"logits at most {self.logits or 0:.2g} of the largest apart"
        return f"{apart}; {self.unlike} of {self.compared} {self._what} differ"


def agreement(task: Any, exported: Any, batches: Sequence[Batch]) -> Agreement:
    """How far an exported file is from the model it was made of.

    Args:
        task: of the model, in eval mode.
        exported: of the file; see `transfer.export.session.restore_exported`.
        batches: on the CPU.
    """
    result = Agreement()
    for batch in batches:
        sizes = [target.size for target in batch.targets]
        with torch.no_grad():
            outputs = task.model(batch.images, sizes), exported.model(batch.images, sizes)
        both = task.postprocess(outputs[0], batch.targets), exported.postprocess(outputs[1], batch.targets)
        for one, other in zip(*both, strict=True):
            result.add(one, other)
        if hasattr(outputs[0], "logits") and not isinstance(both[0][0], Prediction):
            result.add_logits(outputs[0].logits, outputs[1].logits)
    return result


def check(task: Any, exported: Any, batches: Sequence[Batch], what: str) -> Agreement:
    """`agreement`, where it is good enough.

    Raises:
        UserError: it is not within tolerance.
    """
    found = agreement(task, exported, batches)
    if found.problems:
        raise UserError(
            f"the exported file gives other results than the checkpoint on {what}: {'; '.join(found.problems)}. "
            "Nothing was written; try another --opset or a fixed --size, and report it"
        )
    return found


def _unmatched(one: Prediction, other: Prediction) -> tuple[int, float, float]:
    """How many detections of one have no counterpart in the other, and the largest differences of those that have."""
    if not len(one.scores) or not len(other.scores):
        return len(one.scores), 0.0, 0.0
    boxes = (one.boxes[:, None] - other.boxes[None]).abs().amax(dim=2)  # [N, M]
    scores = (one.scores[:, None] - other.scores[None]).abs()
    near = (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE) & (one.labels[:, None] == other.labels[None])
    distance = torch.where(near, boxes + scores, float("inf"))
    nearest = distance.min(dim=1)
    matched = nearest.values.isfinite()
    rows = torch.arange(len(boxes))[matched], nearest.indices[matched]
    if not len(rows[0]):
        return len(one.scores), 0.0, 0.0
    return int((~matched).sum()), float(boxes[rows].max()), float(scores[rows].max())
