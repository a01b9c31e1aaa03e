"""The backbones by the names that papers call them.

Source: He et al. 2018, *Bag of Tricks for Image Classification with CNNs*, arXiv 1812.01187, section 4 (the forms B, C
and D of ResNet); the networks themselves come from timm. Forms of "resnet50", and of 18, 26, 34, 101 and 152 alike:

- `resnet50`: the original of He et al. 2015: a bottleneck that halves the map does so in its first 1x1 convolution.
  Basic blocks (18, 34) have no 1x1 convolution, so `resnet18` and `resnet18b` are one network;
- `resnet50b`: the stride is in the 3x3 convolution. This is what timm and torchvision call "resnet50";
- `resnet50c`: B with three 3x3 convolutions of 32, 32 and 64 channels in place of the stem's 7x7;
- `resnet50d`: C with average pooling before the 1x1 convolution of a shortcut that halves the map.

timm has no original form: the strides are swapped after building. Where a stage is dilated instead (output stride 16 or
8), the first 3x3 convolution of that stage is dilated like the others, because in the original form it runs after the
stride that was taken out; timm dilates it one step less, which is right for B. Parameters are those of B throughout, so
B's weights would load into the original form in silence and be wrong: published weights are refused for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from backbones.contract import BackboneError
from backbones.timm_backbone import TimmBackbone
from backbones.weights import check_form

_DEEP_STEM = {"stem_type": "deep", "stem_width": 32}

NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet18", {}),
    "resnet18b": ("resnet18", {}),
    "resnet18c": ("resnet18", _DEEP_STEM),
    "resnet18d": ("resnet18d", {}),
    "resnet26": ("resnet26", {}),
    "resnet26b": ("resnet26", {}),
    "resnet26c": ("resnet26", _DEEP_STEM),
    "resnet26d": ("resnet26d", {}),
    "resnet34": ("resnet34", {}),
    "resnet34b": ("resnet34", {}),
    "resnet34c": ("resnet34", _DEEP_STEM),
    "resnet34d": ("resnet34d", {}),
    "resnet50": ("resnet50", {}),
    "resnet50b": ("resnet50", {}),
    "resnet50c": ("resnet50c", {}),
    "resnet50d": ("resnet50d", {}),
    "resnet101": ("resnet101", {}),
    "resnet101b": ("resnet101", {}),
    "resnet101c": ("resnet101c", {}),
    "resnet101d": ("resnet101d", {}),
    "resnet152": ("resnet152", {}),
    "resnet152b": ("resnet152", {}),
    "resnet152c": ("resnet152c", {}),
    "resnet152d": ("resnet152d", {}),
    "vgg19": ("vgg19", {}),
    "inception_v3": ("inception_v3", {}),
    "mobilenet": ("mobilenetv1_100", {}),
    "darknet53": ("darknet53", {}),
    "densenet": ("densenet121", {}),
    "densenet121": ("densenet121", {}),
}
"""Name in the papers -> (timm's name, options that timm's name does not imply)."""

STRIDE_FIRST = frozenset({"resnet26", "resnet50", "resnet101", "resnet152"})
"""Built as B, then given the stride in the first 1x1 convolution."""

_RESIDUAL = ("resnet", "darknet")
"""How the names of networks with residual blocks begin."""


class NamedBackbone(TimmBackbone):
    """A backbone by its name in the papers.

    Args:
        name: a key of `NAMES`, such as "resnet50" (the original form), "resnet50d" or "darknet53".
        weights: as for `TimmBackbone`; published weights ("timm", "torchvision") only where they are of this form.
        output_stride: as for `TimmBackbone`; what the network cannot be dilated to is refused.
        out_strides: as for `TimmBackbone`.
        frozen_stages: as for `TimmBackbone`.
        norm: as for `TimmBackbone`.
        zero_gamma: whether the last batch norm of each residual block starts with weights of zero instead of one, so
            that the block starts as the identity (section 3.1); the papers' baseline does not. Weights replace it.

    Raises:
        BackboneError: unknown name; zero_gamma of a network without residual blocks; published weights of another form;
            whatever `TimmBackbone` refuses.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        output_stride: int = 32,
        out_strides: Sequence[int] | None = None,
        frozen_stages: int = 0,
        norm: str = "batch",
        zero_gamma: bool = False,
    ) -> None:
        _check(name, weights, zero_gamma)
        timm_name, options = NAMES[name]
        if name.startswith(_RESIDUAL):
            # timm's own default is True. What it zeroes is what backbones.residual_gamma does: a test compares them.
            options = {**options, "zero_init_last": zero_gamma}
        super().__init__(
            timm_name,
            weights=weights,
            output_stride=output_stride,
            out_strides=out_strides,
            frozen_stages=frozen_stages,
            norm=norm,
            model_options=options,
        )
        self.name = name
        if name in STRIDE_FIRST:
            put_stride_first(self.body)  # no parameter changes, so weights may be in place already
        self.form = form_of(name)
        check_form(self.load_report, self.form, name)

    def _settle_form(self) -> None:
        """Left to the constructor, which knows the name."""


def form_of(name: str) -> str:
    """The form of a network by its name in the papers: it is not to be seen in its parameters."""
    return "stride-first" if name in STRIDE_FIRST else "published"


def put_stride_first(body: nn.Module) -> None:
    """Turn the bottlenecks of a timm ResNet from form B into the original one, in place."""
    from timm.models.resnet import Bottleneck

    for block in body.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
            block.conv2.dilation = block.conv2.padding = (block.dilation, block.dilation)


def _check(name: str, weights: str | Path | None, zero_gamma: bool) -> None:
    """Raise one error that names everything these names add to what `TimmBackbone` checks."""
    if name not in NAMES:
        nearest = difflib.get_close_matches(str(name).lower(), NAMES, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"known are {', '.join(NAMES)}"
        raise BackboneError(f"name={name!r} is none of the papers' names; {hint} (timm's names: TimmBackbone)")
    problems = []
    if zero_gamma and not name.startswith(_RESIDUAL):
        problems.append(f"zero_gamma=True: {name} has no residual blocks: leave it out")
    problems += published_form(name, weights)
    if problems:
        raise BackboneError("; ".join(problems))


def published_form(name: str, weights: str | Path | None) -> list[str]:
    """What is wrong with published weights for one of `NAMES`: nothing, or that they are of another form."""
    timm_name, options = NAMES[name]
    published = isinstance(weights, str) and weights.partition(":")[0] in ("timm", "torchvision")
    if not published or not (name in STRIDE_FIRST or options):
        return []
    form = "stride in the 3x3 convolution" if name in STRIDE_FIRST else "7x7 stem"
    return [
        f"weights={weights!r}: the {timm_name} that is published has its {form} (form B), which is not {name}: use "
        f"name={timm_name + 'b'!r}, or give weights='path/to/file' of this form, or None for random values"
    ]
