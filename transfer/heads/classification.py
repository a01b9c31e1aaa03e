"""An image classifier: the backbone's pooled features, dropout, one linear layer.

Source: the networks of He et al. 2018, Bag of Tricks (arXiv 1812.01187, section 4): global average pooling and a fully
connected layer. Where a network does something of its own between its last map and its classifier, its backbone does it
in `pooled`.

Deviation: the paper draws the layer's weights by Xavier's rule, uniform in +-sqrt(6 / (C + K)). Here they are normal
with a standard deviation of 0.01, and biases 0, as in Goyal et al. 2017 (arXiv 1706.02677, section 5.1): the first
logits are nearly equal whatever C and K are, and the first steps disturb a pretrained backbone less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.types import ClassScores, Size, Target, UserError, is_number

ACTIVATIONS = ("softmax", "sigmoid")


@dataclass(slots=True)
class ClassifierOutput:
    """Raw logits of a batch."""

    logits: Tensor
    """[B, K]."""
    images: Tensor
    """[B, 3, H, W], what the network was given: a teacher is shown the same."""


class Classifier(nn.Module):
    """A classifier from built parts.

    Args:
        backbone: gives the pooled features.
        num_classes: K.
        dropout: probability, of the pooled features.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(backbone.pooled_channels, num_classes)
        self.num_classes = num_classes
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(
        self, images: Tensor, sizes: Sequence[Size] = (), targets: Sequence[Target] | None = None
    ) -> ClassifierOutput:
        """Raw logits.

        Args:
            images: [B, 3, H, W] uint8, or floating in 0..255 where images were mixed.
            sizes: not read: images of classification are not padded.
            targets: not read: the criterion does.
        """
        features = self.backbone.pooled(images)  # [B, C]
        return ClassifierOutput(self.fc(self.dropout(features)), images)


def classifier(backbone: Backbone, num_classes: int, *, dropout: float = 0.0) -> Classifier:
    """A classifier on any backbone.

    Args:
        backbone: any.
        num_classes: K, at least 2.
        dropout: of the pooled features, in [0, 1).

    Raises:
        UserError: an argument is not as said above.
    """
    problems = []
    if type(num_classes) is not int or num_classes < 2:
        problems.append(f"num_classes={num_classes!r}: a classifier tells at least two classes apart")
    if not is_number(dropout) or not 0 <= dropout < 1:
        problems.append(f"model.dropout={dropout!r} must be a number in [0, 1)")
    if problems:
        raise UserError("; ".join(problems))
    return Classifier(backbone, num_classes, dropout=dropout)


class ClassificationPostprocess:
    """The probabilities of each image's classes.

    Args:
        activation: "softmax"; or "sigmoid" for a model trained with loss="bce" or "focal", whose classes are told apart
            one by one and need not sum to 1.

    Raises:
        UserError: another activation.
    """

    def __init__(self, *, activation: str = "softmax") -> None:
        if activation not in ACTIVATIONS:
            raise UserError(
                f"ClassificationPostprocess: activation={activation!r} is none of {', '.join(ACTIVATIONS)}: give "
                "softmax for a model trained with cross entropy, sigmoid for bce or focal"
            )
        self.activation = activation

    @torch.no_grad()
    def __call__(self, output: ClassifierOutput, targets: Sequence[Target]) -> list[ClassScores]:
        """Args: the model's output; targets for their number only. Returns: [K] float32 on the CPU an image."""
        assert len(output.logits) == len(targets), f"{len(output.logits)} rows of logits, {len(targets)} targets"
        logits = output.logits.float() if output.logits.element_size() < 4 else output.logits
        scores = logits.softmax(dim=1) if self.activation == "softmax" else logits.sigmoid()
        return [ClassScores(row) for row in scores.float().cpu()]
