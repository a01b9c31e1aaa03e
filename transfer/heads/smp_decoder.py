"""The decoders of segmentation_models_pytorch on this project's backbones.

Source: segmentation_models_pytorch 0.6 (Iakubovskii, github.com/qubvel-org/segmentation_models.pytorch), whose decoder
and head classes are used as they are; the papers are named there. Its encoders are not used: the backbone's levels are
handed to the decoder in the order it expects, an empty map of stride 1 (no decoder reads its values), stride 2, then
four stages. A backbone that gives no level of stride 2 (by default none does: ask with out_strides=[2, 4, 8, 16, 32])
has an empty map there, too, as smp itself does for ConvNeXt and Swin.

Deviations from smp, each for a reason:

- the last upsampling is left to the criterion and the postprocess: corners are not aligned, as everywhere here;
- PSPNet reads the backbone's last level. smp reads the third of five, undilated, and leaves the rest of the network
  out; the paper (Zhao et al. 2017, arXiv 1612.01105, section 3.3) dilates to stride 8, which is output_stride=8 on the
  backbone. smp's form is out_strides=[8] there;
- DeepLab's rates are 6, 12, 18 at output stride 16 and twice that at 8, as in the paper (Chen et al. 2017, arXiv
  1706.05587, section 3.3); smp's default is the latter for both;
- DPT gets no class tokens, because backbones here give none (readout "ignore"), and so works on convolutional ones;
- an auxiliary head like FCN's can be added;
- a map of a wrong size is an error (smp's Inception-V3 with PSPNet gives one in silence).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.dense_features import dense_features
from transfer.heads.fcn import FCNHead, auxiliary_problems
from transfer.heads.segmentation import SegmentationOutput, class_problems
from transfer.heads.smp_table import DECODERS, Decoder, fitting
from transfer.types import Size, Target, UserError

_ATROUS_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class SMPDecoder(nn.Module):
    """A segmentation model from built parts.

    Args:
        backbone: gives the features.
        decoder: smp's, built for the levels that `table` chooses.
        head: the decoder's map to logits.
        auxiliary_head: level before the last to logits, run in training alone; None: no such loss.
        table: what is known of the decoder.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: nn.Module,
        head: nn.Module,
        auxiliary_head: nn.Module | None,
        *,
        table: Decoder,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.head, self.auxiliary_head = backbone, decoder, head, auxiliary_head
        self.table, self.num_classes = table, num_classes
        levels = table.levels(backbone)
        assert levels is not None
        self.levels = levels
        self.stride = table.stride or backbone.strides[-1]
        coarsest = 2 ** (len(levels) + 1) if table.reads == "resized" else 1  # to which DPT resizes its last level
        self.multiple = math.lcm(max(backbone.strides), coarsest)

    def forward(
        self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None
    ) -> SegmentationOutput:
        """Raw logits.

        Args:
            images: [B, 3, H, W] uint8, of any size (PAN: the last level needs 8x8 cells).
            sizes: not read: nothing here depends on which part of an image is padding.
            targets: not read: the criterion does.
        Raises:
            UserError: images too small, a backbone of unpadded convolutions, one image alone in training where the
                decoder normalises over a map of one cell.
        """
        maps, size = dense_features(self.backbone, images, multiple=self.multiple)
        if min(maps[-1].shape[2:]) < self.table.cells:
            raise UserError(
                f"images of {size[0]}x{size[1]} px: {self.table.name} needs {self.table.cells} cells of stride "
                f"{self.backbone.strides[-1]} on each side: {self.table.cells * self.backbone.strides[-1]} px or more"
            )
        try:
            logits = self.head(self._decoded(maps, size))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"{self.table.name} has a batch norm over a map of one cell and cannot be trained on one image a "
                "process: raise loader.batch_size, or take norm='synchronized' on the backbone and several processes"
            ) from error
        wanted = (size[0] // self.stride, size[1] // self.stride)
        assert tuple(logits.shape[2:]) == wanted, f"{self.table.name} gives {tuple(logits.shape[2:])}, not {wanted}"
        auxiliary = self.auxiliary_head(maps[-2]) if self.auxiliary_head is not None and self.training else None
        return SegmentationOutput(logits, auxiliary, size)

    def _decoded(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """The decoder's map [B, C, H / stride, W / stride]."""
        features = [maps[level] for level in self.levels]
        if self.table.reads == "resized":
            return self.decoder(features, [None] * len(features))
        if self.table.reads == "stages":
            missing = (1,) if self.backbone.strides[self.levels[0]] == 2 else (1, 2)
            shapes = [(len(features[0]), 0, size[0] // stride, size[1] // stride) for stride in missing]
            features = [features[0].new_empty(shape) for shape in shapes] + features
        return self.decoder(features)


def smp_decoder(
    backbone: Backbone,
    num_classes: int,
    *,
    decoder: str = "unet",
    auxiliary: bool = False,
    options: Mapping[str, Any] | None = None,
) -> SMPDecoder:
    """A decoder of segmentation_models_pytorch on a backbone.

    Args:
        backbone: with the levels the decoder needs; which do is in `transfer.heads.smp_table`.
        num_classes: K, 2 to 255.
        decoder: "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "deeplabv3", "deeplabv3plus",
            "upernet", "segformer" or "dpt".
        auxiliary: add FCN's auxiliary head on the level before the last. Its loss's weight is the criterion's.
        options: arguments of smp's decoder class by smp's names, such as {"decoder_channels": [64, 48, 32, 24, 16]}.

    Raises:
        UserError: an unknown decoder or option, a backbone whose levels do not fit.
    """
    problems = class_problems(num_classes) + auxiliary_problems(backbone, auxiliary)
    table = DECODERS.get(decoder) if isinstance(decoder, str) else None
    if table is None:
        near = difflib.get_close_matches(str(decoder).lower(), DECODERS, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        problems.append(f"model.decoder={decoder!r} is none of {', '.join(DECODERS)}{hint}")
    elif table.levels(backbone) is None:
        problems.append(
            f"model.decoder={decoder!r} needs {table.need()}; {backbone.name} gives "
            f"{', '.join(map(str, backbone.strides))}: set output_stride and out_strides on the backbone, or take a "
            f"decoder that fits as it is: {', '.join(fitting(backbone)) or 'none does'}"
        )
    if options is not None and not isinstance(options, Mapping):
        problems.append(f"model.options={options!r} must be a dict of arguments of smp's decoder class")
    if problems or table is None:
        raise UserError("; ".join(problems))
    # smp takes 7 s to import: not before it is asked for.
    module = importlib.import_module(f"segmentation_models_pytorch.decoders.{table.module}.decoder")
    build = getattr(module, table.name)
    arguments = _arguments(backbone, table, build, {} if options is None else options)
    try:
        built = build(**arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.options: {table.name} refuses {dict(options or {})}: {error}") from error
    head = _head(table, arguments, num_classes)
    if table.initialized:
        from segmentation_models_pytorch.base import initialization

        initialization.initialize_decoder(built)
        initialization.initialize_head(head)
    auxiliary_head = FCNHead(backbone.channels[-2], num_classes) if auxiliary else None
    return SMPDecoder(backbone, built, head, auxiliary_head, table=table, num_classes=num_classes)


def _arguments(
    backbone: Backbone, table: Decoder, build: Callable[..., nn.Module], options: Mapping[str, Any]
) -> dict[str, Any]:
    """All arguments of smp's decoder: what follows from the backbone, smp's defaults, the user's options."""
    levels = table.levels(backbone)
    assert levels is not None
    channels = [backbone.channels[level] for level in levels]
    strides = [backbone.strides[level] for level in levels]
    follows = {
        "encoder_channels": [0] * (6 - len(channels)) + channels,
        "encoder_depth": 5,
        "n_blocks": 5,
        "in_channels": channels[-1],
        "output_stride": strides[-1],
        "encoder_out_channels": channels,
        "encoder_output_strides": strides,
        "encoder_has_prefix_tokens": False,
        "readout": "ignore",
        "center": False,  # U-Net++: smp 0.6 builds the block and never runs it, so its parameters get no gradient
    }
    defaults = {
        **table.defaults,
        "atrous_rates": _ATROUS_RATES.get(strides[-1]),
        "add_center_block": backbone.name.startswith("vgg"),  # behind its last pooling, as in smp's model
        "intermediate_channels": (256, 512, 1024, 1024)[: len(channels)],
    }
    known = inspect.signature(build).parameters
    free = [name for name in known if name not in follows]
    problems = []
    for name in options:
        if name in follows and name in known:
            problems.append(f"{name} is given already, as {follows[name]}")
        elif name not in known:
            near = difflib.get_close_matches(str(name), free, n=1, cutoff=0.5)
            problems.append(
                f"{table.name} takes no {name!r}" + (f", did you mean {near[0]!r}?" if near else f": {', '.join(free)}")
            )
    if problems:
        raise UserError(f"model.options: {'; '.join(problems)}")
    return {name: value for name, value in {**follows, **defaults, **options}.items() if name in known}


def _head(table: Decoder, arguments: Mapping[str, Any], num_classes: int) -> nn.Module:
    """smp's head behind the decoder, without its upsampling."""
    width = arguments[table.width]
    width = width[-1] if isinstance(width, Sequence) else width
    if arguments.get("merge_policy") == "cat":  # FPN then lays its four maps side by side
        width *= 4
    if table.module == "dpt":
        from segmentation_models_pytorch.decoders.dpt.decoder import DPTSegmentationHead

        return DPTSegmentationHead(width, num_classes, upsampling=1.0)
    from segmentation_models_pytorch.base import SegmentationHead

    return SegmentationHead(width, num_classes, kernel_size=table.kernel, upsampling=1)
