"""Feature pyramid on any backbone.

Source: Feature Pyramid Networks (Lin et al. 2017); torchvision's module, with a max-pooled coarsest level for the RPN.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from transfer.types import UserError


class FPN(nn.Module):
    """Maps of one width from the backbone's levels, and one coarser level.

    Args:
        channels: of the backbone's levels, fine to coarse.
        strides: of the backbone's levels; from the finest one used on, each twice the one before.
        width: channels of every output map.
        finest_stride: finer levels are not used.
        norm: "none", as in the paper, or "group": group norm (Wu and He 2018, 16 channels a group) after each of the
            pyramid's convolutions. Backbones whose maps are not of unit scale need it: the last convolution of an
            inverted residual block is linear, and ImageNet-trained EfficientNets give maps of standard deviation 6.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        width: int = 256,
        finest_stride: int = 4,
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.first = next((i for i, stride in enumerate(strides) if stride >= finest_stride), len(strides))
        channels, strides = channels[self.first :], strides[self.first :]
        if not strides:
            raise UserError(f"an FPN needs levels of stride {finest_stride} or coarser; the backbone gives none")
        if any(coarse != 2 * fine for fine, coarse in zip(strides, strides[1:])):
            raise UserError(
                f"an FPN needs levels whose strides double, the backbone gives {tuple(strides)}: "
                "choose other levels with out_strides, or output_stride=32"
            )
        if norm not in ("none", "group"):
            raise UserError(f"FPN norm={norm!r} is none of none, group")
        self.pyramid = FeaturePyramidNetwork(
            list(channels),
            width,
            extra_blocks=LastLevelMaxPool(),
            norm_layer=_group_norm if norm == "group" else None,
        )
        self.backbone_strides = tuple(strides)
        self.strides = (*strides, 2 * strides[-1])
        self.width = width

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Args: all features [B, C_i, H_i, W_i] of the backbone. Returns: maps [B, width, H_i, W_i] of `strides`."""
        used = features[self.first :]
        return list(self.pyramid(OrderedDict((str(level), x) for level, x in enumerate(used))).values())


def _group_norm(channels: int) -> nn.GroupNorm:
    """16 channels a group; one group where that does not divide."""
    return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)
