"""The second stage of Faster R-CNN: regions of interest, the box head and its criterion.

Source: Fast R-CNN (Girshick 2015), RoIAlign (He et al. 2017), level assignment of FPN (Lin et al. 2017, equation 1).
The background is class K, behind the K classes; box deltas are one set a class, or one set for all.

Deviations from Fast R-CNN: negatives are all regions of IoU below 0.5 (not 0.1 to 0.5), and smooth L1 turns linear at
1/9 (not 1), both as in the authors' later code and in torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from transfer.losses.soft_targets import soft_cross_entropy
from transfer.ops.boxes import box_area, encode_boxes
from transfer.ops.matching import check_difficult, match, truth_for_training
from transfer.ops.roi_rows import roi_align_rows
from transfer.ops.sampling import sample_balanced
from transfer.ops.world import mean_over_processes
from transfer.types import Target, UserError, is_number

BoxCode = tuple[float, float, float, float]
"""Factors of a box's deltas (dx, dy, dw, dh); see `transfer.ops.boxes.encode_boxes`."""

PROPOSAL_CODE: BoxCode = (10.0, 10.0, 5.0, 5.0)
BACKGROUND = -1
"""Label of a region that is none of the classes, before the head gives the background its place."""


class PyramidRoIAlign(nn.Module):
    """RoIAlign from the pyramid level that fits a region's size.

    Args:
        strides: of the levels to read, fine to coarse, each twice the one before.
        output_size: cells a side.
        sampling_ratio: samples a cell and side, at least 1.
        canonical_side: a region of this side, in pixels, is read from the level of stride 16 (FPN: 224).

    Raises:
        UserError: a sampling_ratio below 1, by which torchvision's operator takes a number that grows with the region.
    """

    def __init__(
        self, strides: Sequence[int], *, output_size: int = 7, sampling_ratio: int = 2, canonical_side: float = 224.0
    ) -> None:
        super().__init__()
        if sampling_ratio < 1:
            raise UserError(f"PyramidRoIAlign: sampling_ratio={sampling_ratio!r} must be a whole number of at least 1")
        self.strides = tuple(strides)
        self.output_size, self.sampling_ratio, self.canonical_side = output_size, sampling_ratio, canonical_side

    def levels(self, boxes: Tensor) -> Tensor:
        """Args: boxes [R, 4]. Returns: [R] int64, index into the strides."""
        sides = box_area(boxes).clamp(min=0).sqrt()
        finest = torch.log2(torch.tensor(16.0 / self.strides[0]))  # levels between the finest and stride 16
        level = torch.floor(finest + torch.log2(sides / self.canonical_side + 1e-6))
        return level.clamp(0, len(self.strides) - 1).to(torch.int64)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Features of each region.

        Args:
            maps: [B, C, H_i, W_i] of at least the levels to read.
            boxes: [R_b, 4] xyxy pixels, one tensor an image.
        Returns:
            [R, C, output_size, output_size], images one after another.
        """
        images = torch.cat([x.new_full((len(x), 1), float(i)) for i, x in enumerate(boxes)])
        regions = torch.cat([images, torch.cat(list(boxes))], dim=1)  # [R, 5]
        maps = maps[: len(self.strides)]
        return self._read_rows(maps, regions) if maps[0].device.type == "cpu" else self._read_levels(maps, regions)

    def _read_levels(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Regions [R, 5] of the maps of all levels, [R, C, output_size, output_size], by torchvision's operator."""
        if len(self.strides) == 1:  # nothing to gather, so no copy of what is large: 128 regions of C4 take 100 MB
            return self._read(maps[0], regions, self.strides[0])
        levels = self.levels(regions[:, 1:])
        size = self.output_size
        pooled = maps[0].new_zeros((len(regions), maps[0].shape[1], size, size))
        for level, stride in enumerate(self.strides):
            chosen = torch.nonzero(levels == level).flatten()
            pooled.index_copy_(0, chosen, self._read(maps[level], regions[chosen], stride))
        return pooled

    def _read_rows(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """The same to rounding, several times faster on a CPU."""
        pooled = roi_align_rows(
            [x.float() if x.element_size() < 4 else x for x in maps],
            regions.float(),
            self.levels(regions[:, 1:]),
            strides=self.strides,
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
        )
        return pooled.to(maps[0].dtype)

    def _read(self, features: Tensor, regions: Tensor, stride: int) -> Tensor:
        """Regions [R, 5] of one map, [R, C, output_size, output_size]."""
        # In float32 also under autocast: half precision would move a corner at 777 px by more than a pixel.
        pooled = roi_align(
            features.float(), regions.float(), self.output_size, 1 / stride, self.sampling_ratio, aligned=True
        )
        return pooled.to(features.dtype)


class TwoLayerHead(nn.Module):
    """Two fully connected layers on pooled regions.

    Args:
        channels: of the pooled regions.
        cells: a side of the pooled regions.
        width: of both layers.
    """

    def __init__(self, channels: int, cells: int, *, width: int = 1024) -> None:
        super().__init__()
        self.channels, self.cells, self.width = channels, cells, width
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * cells * cells, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                # He et al. 2015: torch's default for linear layers shrinks what passes two of them with ReLU sixfold.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def another(self) -> TwoLayerHead:
        """A head of the same shape with random values of its own."""
        return TwoLayerHead(self.channels, self.cells, width=self.width)

    def forward(self, regions: Tensor) -> Tensor:
        """Args: regions [R, C, cells, cells]. Returns: [R, width]."""
        return self.layers(regions)


class BoxPredictor(nn.Module):
    """Class logits and box deltas of each region.

    Args:
        width: of the features.
        num_classes: K, without the background.
        class_agnostic: one set of deltas for all classes instead of one a class.
    """

    def __init__(self, width: int, num_classes: int, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.width, self.num_classes = width, num_classes
        self.delta_sets = 1 if class_agnostic else num_classes
        self.logits = nn.Linear(width, num_classes + 1)
        self.deltas = nn.Linear(width, self.delta_sets * 4)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.logits.bias)
        nn.init.zeros_(self.deltas.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Args: features [R, width]. Returns: logits [R, K + 1], background last, and deltas [R, K or 1, 4]."""
        return self.logits(features), self.deltas(features).view(-1, self.delta_sets, 4)


@dataclass(slots=True)
class RegionTargets:
    """What the regions of a batch are to be taught; R over all images, one image after another."""

    labels: Tensor
    """[R] int64; BACKGROUND where the region is none of the classes."""
    weights: Tensor
    """[R] float32: the truth box's weight; 1 for background."""
    boxes: Tensor
    """[P, 4] float32 xyxy: the truth boxes of the P regions that are not background, in their order."""


class RegionSampler:
    """The proposals a box head learns from, and what it learns.

    Args:
        count: regions an image; None: all that are positive or negative, whatever their shares.
        positive_fraction: share of positives at the most.
        iou: from which on a region is positive; below, it is negative.
        difficult: "ignore", "train" or "drop"; see `transfer.ops.matching.truth_for_training`.
    """

    def __init__(
        self, *, count: int | None = 512, positive_fraction: float = 0.25, iou: float = 0.5, difficult: str = "ignore"
    ) -> None:
        problems = []
        if count is not None and (type(count) is not int or count < 1):
            problems.append(f"rois={count!r} must be a whole number above 0")
        if not is_number(positive_fraction) or not 0 < positive_fraction <= 1:
            problems.append(f"roi_positive_fraction={positive_fraction!r} must be a number in (0, 1]")
        if not is_number(iou) or not 0 < iou <= 1:
            problems.append(f"iou={iou!r} must be a number in (0, 1]")
        if problems:
            raise UserError("sampling of regions: " + "; ".join(problems))
        self.count, self.positive_fraction, self.iou = count, positive_fraction, iou
        self.difficult = check_difficult(difficult)

    @torch.no_grad()
    def __call__(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> tuple[list[Tensor], RegionTargets]:
        """A sample of each image's proposals, to which the truth boxes are added.

        Args:
            proposals: [P, 4] an image.
            targets: of the same images.
        Returns:
            Regions [R_b, 4] an image, and the targets of all of them.
        """
        regions, labels, weights, boxes = [], [], [], []
        for image_proposals, target in zip(proposals, targets):
            truth = truth_for_training(target, self.difficult)
            candidates = torch.cat([image_proposals, truth.boxes])
            matches = match(candidates, truth, high=self.iou, low=self.iou)
            positives, negatives = sample_balanced(
                matches,
                count=len(candidates) if self.count is None else self.count,
                positive_fraction=1.0 if self.count is None else self.positive_fraction,
                seed=target.seed ^ 1,
            )
            matched = matches[positives]
            regions.append(candidates[torch.cat([positives, negatives])])
            labels += [truth.labels[matched], torch.full_like(negatives, BACKGROUND)]
            weights += [truth.weights[matched], torch.ones(len(negatives), device=negatives.device)]
            boxes.append(truth.boxes[matched])
        return regions, RegionTargets(torch.cat(labels), torch.cat(weights), torch.cat(boxes))


class BoxCriterion:
    """Losses of the box head: class (softmax cross entropy) and box (smooth L1 on the true class's deltas).

    Both are divided by the number of regions. A box's weight multiplies the losses of its positives (BoF's mixup); the
    normaliser stays unweighted.

    Args:
        label_smoothing: eps in [0, 1); see `transfer.losses.soft_targets`.
        smoothing_form: "usual" or "paper".
        beta: where smooth L1 turns from square to linear.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        smoothing_form: Literal["usual", "paper"] = "usual",
        beta: float = 1 / 9,
    ) -> None:
        if not is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            raise UserError(f"BoxCriterion: label_smoothing={label_smoothing!r} must be a number in [0, 1)")
        if not is_number(beta) or beta <= 0:
            raise UserError(f"BoxCriterion: beta={beta!r} must be a number above 0")
        self.label_smoothing, self.smoothing_form, self.beta = label_smoothing, smoothing_form, beta

    def __call__(
        self,
        logits: Tensor,
        deltas: Tensor,
        regions: Sequence[Tensor],
        targets: RegionTargets,
        *,
        code: BoxCode = PROPOSAL_CODE,
    ) -> tuple[Tensor, Tensor]:
        """The two losses of a batch.

        Args:
            logits: [R, K + 1], background last.
            deltas: [R, K, 4], or [R, 1, 4]: one set for all classes.
            regions: [R_b, 4] an image; R over all images.
            targets: of the R regions.
            code: of the deltas.
        Returns:
            Class loss and box loss, scalars.
        """
        logits, deltas = logits.float(), deltas.float()
        background = logits.shape[1] - 1
        normalizer = mean_over_processes(len(targets.labels), logits.device).clamp(min=1)
        class_loss = soft_cross_entropy(
            logits,
            torch.where(targets.labels == BACKGROUND, background, targets.labels),
            smoothing=self.label_smoothing,
            form=self.smoothing_form,
            weights=targets.weights,
            reduction="sum",
        )
        positive = torch.nonzero(targets.labels != BACKGROUND).flatten()
        box_loss = deltas.sum() * 0  # keeps the graph where nothing is positive
        if len(positive):
            wanted = encode_boxes(targets.boxes, torch.cat(list(regions))[positive], code)
            which = targets.labels[positive].clamp(max=deltas.shape[1] - 1)  # 0 where there is one set for all classes
            predicted = deltas[positive, which]
            distance = F.smooth_l1_loss(predicted, wanted, beta=self.beta, reduction="none").sum(dim=1)
            box_loss = box_loss + (distance * targets.weights[positive]).sum()
        return class_loss / normalizer, box_loss / normalizer
