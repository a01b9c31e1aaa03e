"""FCN: a fully convolutional head on a dilated backbone, with an auxiliary head.

Source: Long et al. 2015 (arXiv 1411.4038) in the form that He et al. 2018, Bag of Tricks (arXiv 1812.01187, section
6.2) transfer to, from GluonCV, which is torchvision's, too: on the last stage, at output stride 8, a 3x3 convolution to
a quarter of the channels, norm, ReLU, dropout 0.1 and a 1x1 convolution; the same on the stage before for an auxiliary
loss in training. With ResNet-50 and 21 classes it has 35,322,218 parameters, as torchvision's fcn_resnet50.

Deviation: images are padded to a multiple of the stride, where torchvision stretches the logits; see
`transfer.heads.dense_features`. Where both sides are such multiples, the outputs are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.dense_features import dense_features
from transfer.heads.segmentation import SegmentationOutput, class_problems
from transfer.types import Size, Target, UserError, is_number

NORMS = ("batch", "group")


class FCNHead(nn.Sequential):
    """3x3 convolution, norm, ReLU, dropout, 1x1 convolution.

    Args:
        inputs: channels.
        num_classes: K.
        width: channels between; None: a quarter of `inputs`. A multiple of 16 for norm="group".
        dropout: probability.
        norm: "batch", or "group" (Wu and He 2018, 16 channels a group).
    """

    def __init__(
        self, inputs: int, num_classes: int, *, width: int | None = None, dropout: float = 0.1, norm: str = "batch"
    ) -> None:
        width = max(1, inputs // 4) if width is None else width
        if norm == "group" and width % 16:
            raise UserError(
                f"model.norm='group' needs 16 channels a group: give a width that is a multiple, not {width}"
            )
        super().__init__(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(width // 16, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, num_classes, 1),
        )


class FCN(nn.Module):
    """A segmentation model from built parts.

    Args:
        backbone: gives the features; its last level is used, and for the auxiliary head the one before.
        head: last level to logits.
        auxiliary_head: level before to logits, run in training alone; None: no such loss.
        num_classes: K.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, auxiliary_head: nn.Module | None, *, num_classes: int
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.auxiliary_head = backbone, head, auxiliary_head
        self.num_classes = num_classes

    def forward(
        self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None
    ) -> SegmentationOutput:
        """Raw logits.

        Args:
            images: [B, 3, H, W] uint8, of any size.
            sizes: not read: nothing here depends on which part of an image is padding.
            targets: not read: the criterion does.
        Raises:
            UserError: a backbone of unpadded convolutions.
        """
        maps, size = dense_features(self.backbone, images)
        # The head comes first: its dropout draws the same with and without the auxiliary head.
        logits = self.head(maps[-1])
        auxiliary = self.auxiliary_head(maps[-2]) if self.auxiliary_head is not None and self.training else None
        return SegmentationOutput(logits, auxiliary, size)


def fcn(
    backbone: Backbone,
    num_classes: int,
    *,
    auxiliary: bool = True,
    dropout: float = 0.1,
    norm: str = "batch",
    width: int | None = None,
) -> FCN:
    """FCN on any padded backbone.

    Args:
        backbone: in the paper a ResNet-50 with output_stride=8; any stride works, a larger one gives coarser maps.
        num_classes: K, 2 to 255.
        auxiliary: add the auxiliary head, on the level before the last. Its loss's weight is the criterion's.
        dropout: of both heads, in [0, 1).
        norm: of both heads. "batch" becomes synchronized along with the backbone, where the backbone's norm is
            "synchronized"; "group" for batches too small for statistics.
        width: channels of both heads' 3x3 convolution; None: a quarter of what they read.

    Raises:
        UserError: an argument is not as said above.
    """
    problems = class_problems(num_classes) + auxiliary_problems(backbone, auxiliary)
    if not is_number(dropout) or not 0 <= dropout < 1:
        problems.append(f"model.dropout={dropout!r} must be a number in [0, 1)")
    if norm not in NORMS:
        problems.append(f"model.norm={norm!r} is none of {', '.join(NORMS)} (the backbone has a norm of its own)")
    if width is not None and (type(width) is not int or width < 1):
        problems.append(f"model.width={width!r} must be a whole number of channels, or None: a quarter of the input's")
    if problems:
        raise UserError("; ".join(problems))
    # In this order: the head starts from the same values with and without the auxiliary one.
    head = FCNHead(backbone.channels[-1], num_classes, width=width, dropout=dropout, norm=norm)
    auxiliary_head = None
    if auxiliary:
        auxiliary_head = FCNHead(backbone.channels[-2], num_classes, width=width, dropout=dropout, norm=norm)
    return FCN(backbone, head, auxiliary_head, num_classes=num_classes)


def auxiliary_problems(backbone: Backbone, auxiliary: object) -> list[str]:
    """What keeps a backbone from having an auxiliary head, for a builder's error."""
    if not isinstance(auxiliary, bool):
        return [f"model.auxiliary={auxiliary!r} must be True or False"]
    if auxiliary and len(backbone.channels) < 2:
        return [
            f"model.auxiliary=True needs a level before the last, {backbone.name} gives one level alone (stride "
            f"{backbone.strides[0]}): leave out_strides unset, or give auxiliary=False"
        ]
    return []
