"""What the loop trains: a model, its criterion and its postprocess, joined by the kind of output the model needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transfer.types import Batch, ClassScores, LabelMap, Prediction, Target


class Task:
    """A model with its criterion and postprocess.

    Args:
        model: (images, sizes, targets or None) -> output.
        criterion: (output, targets) -> scalar losses named `loss_*`.
        postprocess: (output, targets) -> one prediction an image.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Any, Sequence[Target]], dict[str, Tensor]],
        postprocess: Callable[[Any, Sequence[Target]], Any],
    ) -> None:
        self.model, self.criterion, self.postprocess = model, criterion, postprocess

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            model: this task's, or the same within DistributedDataParallel.
            batch: on the model's device.
        """
        output = model(batch.images, [target.size for target in batch.targets], batch.targets)
        return self.criterion(output, batch.targets)


class DetectionTask(Task):
    """A detector."""

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Predictions in original pixels, on the CPU.

        Args:
            model: this task's, or its moving average, in eval mode.
            batch: on the model's device; only sizes and scales of the targets are read.
        """
        output = model(batch.images, [target.size for target in batch.targets])
        return [
            Prediction(p.boxes.float().cpu(), p.scores.float().cpu(), p.labels.cpu())
            for p in self.postprocess(output, batch.targets)
        ]


class SegmentationTask(Task):
    """A segmenter."""

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[LabelMap]:
        """The class of each pixel of the original images, on the CPU.

        Args:
            model: this task's, or its moving average, in eval mode.
            batch: on the model's device; only sizes of the targets are read.
        """
        output = model(batch.images, [target.size for target in batch.targets])
        return [LabelMap(label_map.labels.cpu()) for label_map in self.postprocess(output, batch.targets)]


class ClassificationTask(Task):
    """A classifier."""

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[ClassScores]:
        """The probability of each class, on the CPU.

        Args:
            model: this task's, or its moving average, in eval mode.
            batch: on the model's device; the targets are not read.
        """
        output = model(batch.images, [target.size for target in batch.targets])
        return [ClassScores(each.scores.float().cpu()) for each in self.postprocess(output, batch.targets)]
