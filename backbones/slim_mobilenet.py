"""MobileNet-v1 of half and quarter width, which timm has no names for.

Source: Howard et al. 2017 (arXiv 1704.04861), section 3.3, the width multiplier; layers and key names are timm's.
Padding is TensorFlow's ("same"): the published weights of these widths are from there, and expect images in [-1, 1].
Dequantised weights are best trained with norm="frozen": their statistics are those of integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import _gen_mobilenet_v1

from backbones.contract import BackboneError
from backbones.timm_backbone import TimmBackbone

__all__: list[str] = []  # timm adds what it registers

_HALF = (0.5, 0.5, 0.5)
_COMMON = {"mean": _HALF, "std": _HALF, "first_conv": "conv_stem", "classifier": "classifier"}
default_cfgs = generate_default_cfgs(
    {
        "mobilenetv1_050.untrained": {**_COMMON, "input_size": (3, 160, 160)},
        "mobilenetv1_025.untrained": {**_COMMON, "input_size": (3, 128, 128)},
    }
)
"""What timm reads beside a model of the same module."""


@register_model
def mobilenetv1_050(pretrained: bool = False, **options: Any) -> Any:
    """Half width, as timm builds its own."""
    return _gen_mobilenet_v1("mobilenetv1_050", 0.5, pretrained=pretrained, **options)


@register_model
def mobilenetv1_025(pretrained: bool = False, **options: Any) -> Any:
    """Quarter width."""
    return _gen_mobilenet_v1("mobilenetv1_025", 0.25, pretrained=pretrained, **options)


_NAMES = {0.5: "mobilenetv1_050", 0.25: "mobilenetv1_025"}


class SlimMobileNet(TimmBackbone):
    """MobileNet-v1 of half or quarter width.

    Args:
        width: 0.5 or 0.25.
        weights: a file in timm's key names, or None for random values.
        output_stride: as for `TimmBackbone`.
        out_strides: as for `TimmBackbone`.
        frozen_stages: as for `TimmBackbone`.
        norm: as for `TimmBackbone`.

    Raises:
        BackboneError: another width; whatever `TimmBackbone` refuses.
    """

    def __init__(
        self,
        width: float,
        *,
        weights: str | Path | None = None,
        output_stride: int = 32,
        out_strides: Sequence[int] | None = None,
        frozen_stages: int = 0,
        norm: str = "batch",
    ) -> None:
        if width not in _NAMES:
            raise BackboneError(f"width={width!r}: give 0.5 or 0.25 (TimmBackbone has 'mobilenetv1_100')")
        super().__init__(
            _NAMES[width],
            weights=weights,
            output_stride=output_stride,
            out_strides=out_strides,
            frozen_stages=frozen_stages,
            norm=norm,
            model_options={"pad_type": "same"},
        )
