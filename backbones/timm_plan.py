"""What a timm model will be, found out on the meta device before it is built.

Source: timm (Wightman, github.com/huggingface/pytorch-image-models), its `features_only` form.

What timm leaves open and this file settles:

- channels and strides are measured, because timm's table errs for unpadded networks, and so is whether a model that
  takes `output_stride` keeps to it;
- `features_only` renames the keys of Darknet, VGG, DenseNet and others: every key is mapped back to its name in the
  full model, so that weights of the full model load into the feature network;
- transformers that insist on one image size are asked for their dynamic form;
- which parameters a level depends on is read from the autograd graph, so freezing works for every family alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from backbones.contract import BackboneError, as_list, measure

OUTPUT_STRIDES = (32, 16, 8)


@dataclass(frozen=True)
class TimmPlan:
    """What is known of a timm model before it is built."""

    options: dict[str, Any]
    """Passed to timm, with what makes it take any image size."""
    channels: tuple[int, ...]
    """Of every level of timm's."""
    strides: tuple[int, ...]
    levels: tuple[int, ...]
    """timm's own number of each level."""
    before: tuple[frozenset[str], ...]
    """For each level, the parameters its map depends on."""
    full_names: dict[str, str]
    """Key of the feature network -> key of the full model."""
    full_shapes: dict[str, torch.Size]
    """State of the full model, in its order."""
    config: dict[str, Any]
    """timm's record of the pretraining."""

    def create(self, name: str, selected: Sequence[int]) -> nn.Module:
        """Build the feature network for real, without the stages behind the last level where timm can drop them.

        Args:
            name: timm's name of the model.
            selected: positions of the levels that will be used.
        """
        import timm

        deepest = max(selected)
        options = dict(self.options)
        if deepest < len(self.levels) - 1:
            options["out_indices"] = self.levels[: deepest + 1]
        return timm.create_model(name, features_only=True, **options)


RESERVED_OPTIONS = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "out_indices",
    "output_stride",
}
"""Arguments of timm.create_model that are this project's to give: some of them read files or fetch."""


def plan_model(name: str, model_options: Mapping[str, Any], output_stride: int) -> TimmPlan:
    """Measure a timm model on the meta device.

    Args:
        name: timm's name of the model; must exist.
        model_options: passed to timm.
        output_stride: 32, 16 or 8.

    Raises:
        BackboneError: the model cannot give feature maps, does not take the options, or cannot be dilated so far.
    """
    reserved = sorted(RESERVED_OPTIONS & set(model_options))
    if reserved:
        raise BackboneError(
            f"model_options={reserved}: weights come from weights=..., levels from out_strides and output_stride"
        )
    return _plan(name, json.dumps(dict(model_options), sort_keys=True), output_stride)


@lru_cache(maxsize=64)  # a test or a ranking builds the same model many times
def _plan(name: str, options_json: str, output_stride: int) -> TimmPlan:
    """`plan_model` with arguments that can be hashed."""
    import timm

    options = json.loads(options_json)
    strided = options if output_stride == 32 else {**options, "output_stride": output_stride}
    with built_on_meta():
        try:
            strided, features = _features_only(name, strided)
        except Exception as error:
            raise BackboneError(_diagnose(name, options, output_stride, error)) from error
        whole = {key: value for key, value in strided.items() if key != "output_stride"}  # not all full models take it
        full_shapes = {key: value.shape for key, value in timm.create_model(name, **whole).state_dict().items()}
    try:
        channels, strides = measure(ChannelsFirst(features))
    except BackboneError as error:
        raise BackboneError(f"{name}: {error}") from error
    if output_stride < 32 and strides[-1] > output_stride:
        raise BackboneError(_diagnose(name, options, output_stride, f"its last map has stride {strides[-1]}"))
    config: Any = features.pretrained_cfg
    return TimmPlan(
        options=strided,
        channels=channels,
        strides=strides,
        levels=tuple(getattr(features.feature_info, "out_indices", range(len(strides)))),
        before=_parameters_before(features),
        full_names=_map_to_full(name, features, full_shapes),
        full_shapes=full_shapes,
        config=dict(config),
    )


class ChannelsFirst(nn.Module):
    """A timm feature network whose maps come as [B, C, H, W], whatever it computes in.

    Args:
        features: made by timm with `features_only`.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.body = features

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps of normalised images [B, 3, H, W]."""
        return channels_first(self.body, as_list(self.body(images)))


def channels_first(features: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """The maps of a timm feature network as [B, C, H, W]: Swin and its like give [B, H, W, C]."""
    if not is_channels_last(features):
        return maps
    # Contiguous, because the convolutions of a head would copy it anyway.
    return [level.permute(0, 3, 1, 2).contiguous() for level in maps]


def is_channels_last(features: nn.Module) -> bool:
    """Whether a timm feature network gives maps [B, H, W, C]."""
    return str(getattr(features, "output_fmt", "")).endswith("NHWC")


def _features_only(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], nn.Module]:
    """Build the feature network, in a form that takes any image size; returns the options that did it."""
    import timm

    config = timm.get_pretrained_cfg(name)
    candidates = [options]
    if config is not None and config.fixed_input_size:
        # Plain transformers call it one way, windowed ones the other; those that know neither raise TypeError.
        candidates = [{"dynamic_img_size": True, **options}, {"strict_img_size": False, **options}, options]

    def first_that_builds(candidates: list[dict[str, Any]]) -> tuple[dict[str, Any], nn.Module]:
        try:
            return candidates[0], timm.create_model(name, features_only=True, **candidates[0])
        except TypeError:
            if len(candidates) == 1:
                raise
        return first_that_builds(candidates[1:])

    return first_that_builds(candidates)


def _diagnose(name: str, options: Mapping[str, Any], output_stride: int, error: Exception | str) -> str:
    """Find out, by trying, which argument kept a model from being built, and say it."""

    def works(arguments: dict[str, Any]) -> bool:
        try:
            _, features = _features_only(name, arguments)
            stride = arguments.get("output_stride")
            return stride is None or measure(ChannelsFirst(features))[1][-1] <= stride
        except Exception:
            return False

    reason = str(error).strip() or "timm refuses"
    with built_on_meta():
        if not works({}):
            return (
                f"{name} cannot give feature maps ({reason}); timm's convolutional families (ResNet, RegNet, "
                "EfficientNet, MobileNet, DenseNet, VGG, Darknet, ConvNeXt), ViT and Swin can"
            )
        if not works(dict(options)):
            return f"model_options={dict(options)}: {name} does not take them ({reason})"
        possible = [stride for stride in OUTPUT_STRIDES[1:] if works({**options, "output_stride": stride})]
    listed = ", ".join(str(stride) for stride in (32, *possible))
    return f"output_stride={output_stride}: {name} cannot be dilated to it ({reason}); it can do {listed}"


def _parameters_before(features: nn.Module) -> tuple[frozenset[str], ...]:
    """For each level, the names of the parameters its map depends on, from the autograd graph of a meta pass."""
    names = {id(parameter): name for name, parameter in features.named_parameters()}
    with torch.enable_grad():
        maps = as_list(features.eval()(torch.empty(1, 3, 224, 224, device="meta")))
    return tuple(frozenset(names[found] for found in _leaves(level.grad_fn) if found in names) for level in maps)


def _leaves(root: Any) -> Iterator[int]:
    """Identities of the leaf tensors of an autograd graph."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # where the graph ends: the node that adds to a parameter's gradient
            yield id(node.variable)
        pending += [following for following, _ in node.next_functions]


def _map_to_full(name: str, features: nn.Module, full_shapes: Mapping[str, torch.Size]) -> dict[str, str]:
    """For each key of the feature network, the key of the full model.

    timm's wrappers put a prefix in front (`body.`, `model.`) or turn a dot into an underscore (`stages_0`, `stages.0`).
    """
    flat = {key.replace(".", "_"): key for key in full_shapes}
    names = {}
    for key, value in features.state_dict().items():
        bare = key.removeprefix("body.").removeprefix("model.")
        full = key if key in full_shapes else flat.get(bare.replace(".", "_"))
        if full is None or full_shapes[full] != value.shape:
            raise BackboneError(
                f"{name}: timm's feature network has a key {key!r} that its full model lacks, so weights cannot be "
                "told to fit it: use another model"
            )
        names[key] = full
    return names


@contextmanager
def built_on_meta() -> Iterator[None]:
    """Build without memory or time, and without drawing from the caller's random stream."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield
