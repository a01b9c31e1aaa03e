"""Test-time augmentation of segmentation: several scales, mirrored, and in windows; probabilities are averaged.

Source: multi-scale and flip testing as FCN and its successors report it (GluonCV, MMSegmentation): the softmax of each
view is resized to the original image, averaged over the views, and the most probable class is taken. Sliding windows
of the training crop's size, as MMSegmentation's "slide" mode: logits are averaged where windows overlap.

Figures measured so are not comparable with single-view ones of the whole image: whoever reports them must say it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.engine.task import SegmentationTask
from transfer.engine.views import Views, check_scales, mirror
from transfer.types import Batch, LabelMap, Size, UserError, is_number


@dataclass(frozen=True, kw_only=True)
class SegmentationTestTime:
    """The config's `loader.test_time` for segmentation."""

    scales: Sequence[float] = (1.0,)
    """Factors of what the test pipeline resizes to."""
    flip: bool = True
    """Each scale also mirrored."""
    window: int | None = None
    """Side of square windows that are predicted one by one, pixels of the resized image; None: the whole image."""
    overlap: float = 1 / 3
    """Share of a window's side that the next one covers again, in [0, 1)."""

    def __post_init__(self) -> None:
        problems = check_scales(self.scales)
        if not isinstance(self.flip, bool):
            problems.append(f"flip={self.flip!r} must be True or False")
        if self.window is not None and (not isinstance(self.window, int) or self.window < 32):
            problems.append(f"window={self.window!r} must be whole pixels, 32 at the least, or None for no windows")
        if not is_number(self.overlap) or not 0 <= self.overlap < 1:
            problems.append(f"overlap={self.overlap!r} must be in [0, 1)")
        if problems:
            raise UserError("loader.test_time: " + "; ".join(problems))


class SegmentationViewsTask(SegmentationTask):
    """A task whose probabilities are averaged over several views.

    Args:
        task: predicts a single view; its postprocess has `probabilities`.
        views: which.
    """

    def __init__(self, task: SegmentationTask, views: SegmentationTestTime) -> None:
        super().__init__(task.model, task.criterion, task.postprocess)
        self.views = views

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[LabelMap]:
        """As `SegmentationTask.predict`; a batch may be `Views`."""
        network: Any = model
        if self.views.window is not None:
            network = SlidingWindows(model, self.views.window, overlap=self.views.overlap)
        sums: list[Tensor] = []
        for view in (batch, *batch.others) if isinstance(batch, Views) else (batch,):
            scores = self._probabilities(network, view)
            if self.views.flip:
                mirrored = self._probabilities(network, mirror(view))
                scores = [own + other.flip(-1) for own, other in zip(scores, mirrored, strict=True)]
            sums = scores if not sums else [a + b for a, b in zip(sums, scores, strict=True)]
        return [LabelMap(total.argmax(dim=0).to(torch.uint8).cpu()) for total in sums]

    def _probabilities(self, network: Any, view: Batch) -> list[Tensor]:
        output = network(view.images, [target.size for target in view.targets])
        probabilities: list[Tensor] = self.postprocess.probabilities(output, view.targets)  # type: ignore[attr-defined]
        return probabilities


class SlidingWindows:
    """A network that sees its images in overlapping square windows.

    Args:
        model: (images, sizes) -> output with `logits` [B, K, h, w] and the `size` they cover.
        window: side, pixels; an image smaller than it is one window.
        overlap: share of a window's side that the next one covers again at the least, in [0, 1).
    """

    def __init__(self, model: nn.Module, window: int, *, overlap: float) -> None:
        self.model, self.window, self.overlap = model, window, overlap

    def __call__(self, images: Tensor, sizes: Sequence[Size]) -> Any:
        """Args: images [B, 3, H, W]; sizes: not read. Returns: the model's output, logits [B, K, H, W]."""
        height, width = int(images.shape[2]), int(images.shape[3])
        total = counts = output = None
        for top in starts(height, self.window, self.overlap):
            for left in starts(width, self.window, self.overlap):
                part = images[:, :, top : top + self.window, left : left + self.window]
                rows, columns = int(part.shape[2]), int(part.shape[3])
                output = self.model(part, [(rows, columns)] * len(part))
                logits = F.interpolate(output.logits.float(), size=output.size, mode="bilinear", align_corners=False)
                if total is None or counts is None:
                    total = logits.new_zeros((len(images), logits.shape[1], height, width))
                    counts = logits.new_zeros((height, width))
                total[:, :, top : top + rows, left : left + columns] += logits[:, :, :rows, :columns]
                counts[top : top + rows, left : left + columns] += 1
        assert total is not None
        assert counts is not None
        return dataclasses.replace(output, logits=total / counts, size=(height, width))  # type: ignore[type-var]


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one side: evenly spread, the first at the start and the last at the end.

    Args:
        length: of the side, pixels.
        window: pixels.
        overlap: see `SlidingWindows`.
    """
    if length <= window:
        return [0]
    steps = math.ceil((length - window) / max(1, int(window * (1 - overlap))))
    return [round(step * (length - window) / steps) for step in range(steps + 1)]
