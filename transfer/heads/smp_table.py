"""What has to be known of each decoder of segmentation_models_pytorch to put it on a backbone.

Source: the models of segmentation_models_pytorch 0.6, which build each decoder from an encoder: their defaults, the
kernel of the head behind it, the stride of the map it gives, and what it assumes of its input without saying so
(U-Net++, MAnet, LinkNet and FPN double a map from stage to stage, whatever the next one's size is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backbones.contract import Backbone

STAGES = {32: (4, 8, 16, 32), 16: (4, 8, 16, 16), 8: (4, 8, 8, 8)}
"""Strides of the four stages, by that of the last."""
DILATED = (8, 16)
ANY = (8, 16, 32)
HALVING = (32,)


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """One decoder of smp's."""

    name: str
    """The class."""
    module: str
    """`segmentation_models_pytorch.decoders.<module>.decoder` holds it."""
    reads: Literal["stages", "last", "resized"] = "stages"
    """Stride 2 and the four stages; the last level alone; or up to four levels, which it resizes itself."""
    last_strides: tuple[int, ...] = ANY
    """Which strides the last level may have; empty: any."""
    stride: int | None = 4
    """Of the map it gives; None: that of the last level."""
    kernel: int = 1
    """Of smp's head behind it."""
    width: str
    """The argument that says how many channels the map has; a list means its last number."""
    defaults: Mapping[str, Any]
    """Arguments as smp's model gives them."""
    initialized: bool = True
    """Whether smp's model initialises it; DeepLab is left as torch makes it."""
    cells: int = 1
    """What height and width of the last level must be at the least."""

    def levels(self, backbone: Backbone) -> list[int] | None:
        """Which of the backbone's levels it reads, fine to coarse; None where they do not fit."""
        strides = backbone.strides
        last = strides[-1]
        if self.last_strides and last not in self.last_strides:
            return None
        if self.reads == "last":
            return [len(strides) - 1]
        if self.reads == "resized":
            chosen = list(range(len(strides)))[-4:]
            return chosen if all(strides[level] in (4, 8, 16, 32) for level in chosen) else None
        chosen = []
        for stride in dict.fromkeys((2, *STAGES[last])):
            found = [level for level, value in enumerate(strides) if value == stride]
            count = STAGES[last].count(stride)
            if len(found) < count:
                return None
            chosen += found[-max(1, count) :]  # the deepest of that stride; of stride 2 there may be none
        return chosen

    def need(self) -> str:
        """What `levels` asks for, in words."""
        if self.reads == "last":
            return f"a last level of stride {_or(self.last_strides)}"
        if self.reads == "resized":
            return "levels of strides among 4, 8, 16 and 32"
        return "levels of strides " + " or ".join(
            ", ".join(map(str, STAGES[last])) for last in sorted(self.last_strides, reverse=True)
        )


def _or(strides: tuple[int, ...]) -> str:
    return " or ".join(map(str, strides))


_UNET: dict[str, Any] = {
    "stride": 1,
    "kernel": 3,
    "width": "decoder_channels",
    "defaults": {"decoder_channels": (256, 128, 64, 32, 16)},
}
_DEEPLAB: dict[str, Any] = {
    "module": "deeplabv3",
    "last_strides": DILATED,
    "width": "out_channels",
    "initialized": False,
}

DECODERS: dict[str, Decoder] = {
    "unet": Decoder(name="UnetDecoder", module="unet", **_UNET),
    "unetplusplus": Decoder(name="UnetPlusPlusDecoder", module="unetplusplus", last_strides=HALVING, **_UNET),
    "manet": Decoder(name="MAnetDecoder", module="manet", last_strides=HALVING, **_UNET),
    "linknet": Decoder(
        name="LinknetDecoder",
        module="linknet",
        last_strides=HALVING,
        stride=1,
        width="prefinal_channels",
        defaults={"prefinal_channels": 32},
    ),
    "fpn": Decoder(
        name="FPNDecoder",
        module="fpn",
        last_strides=HALVING,
        width="segmentation_channels",
        defaults={"segmentation_channels": 128},
    ),
    "pspnet": Decoder(
        name="PSPDecoder",
        module="pspnet",
        reads="last",
        last_strides=(),
        stride=None,
        kernel=3,
        width="out_channels",
        defaults={"out_channels": 512},
    ),
    "pan": Decoder(
        name="PANDecoder",
        module="pan",
        kernel=3,
        width="decoder_channels",
        defaults={"decoder_channels": 32},
        cells=8,  # it halves the last level three times
    ),
    "deeplabv3": Decoder(
        name="DeepLabV3Decoder",
        reads="last",
        stride=None,
        defaults={"out_channels": 256, "aspp_separable": False, "aspp_dropout": 0.5},
        **_DEEPLAB,
    ),
    "deeplabv3plus": Decoder(
        name="DeepLabV3PlusDecoder",
        defaults={"out_channels": 256, "aspp_separable": True, "aspp_dropout": 0.5},
        **_DEEPLAB,
    ),
    "upernet": Decoder(
        name="UPerNetDecoder", module="upernet", width="decoder_channels", defaults={"decoder_channels": 256}
    ),
    "segformer": Decoder(
        name="SegformerDecoder",
        module="segformer",
        width="segmentation_channels",
        defaults={"segmentation_channels": 256},
    ),
    "dpt": Decoder(
        name="DPTDecoder",
        module="dpt",
        reads="resized",
        stride=2,
        kernel=3,
        width="fusion_channels",
        defaults={"fusion_channels": 256},
    ),
}


def fitting(backbone: Backbone) -> list[str]:
    """Names of the decoders that fit a backbone's levels."""
    return [name for name, decoder in DECODERS.items() if decoder.levels(backbone) is not None]
