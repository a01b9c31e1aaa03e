"""What a backbone is: images in, feature maps out, fine to coarse, with everything a head must know about them.

Source: the project's own design. A head reads `channels` and `strides`; both are measured by running the network and
not believed, because tables err (timm says strides 8, 16, 32 of an Inception-V3 whose maps are 4, 8, 18 px apart).

An own network joins in one of two ways: `wrap(module, mean=..., std=...)` for a module that maps normalised images to
its feature maps, or a subclass of `Backbone` that implements `features`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import BackboneError as BackboneError
from backbones.measuring import Size as Size
from backbones.measuring import as_list as as_list
from backbones.measuring import check_levels
from backbones.measuring import map_shapes as map_shapes
from backbones.measuring import measure as measure

Triple = tuple[float, float, float]
"""One number for each of R, G, B."""

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)

NORM_POLICIES = ("batch", "frozen", "synchronized", "group")


class Backbone(nn.Module):
    """A network that turns images into feature maps and knows its channels, strides and input statistics.

    A subclass implements `features`, which sees normalised images; `forward` normalises.

    Args:
        channels: channels of each feature map, fine to coarse.
        strides: pixels of the image per cell of each feature map, fine to coarse, as measured.
        name: what the backbone is called in reports.
        mean: per-channel mean the weights were trained with, RGB in [0, 1].
        std: per-channel standard deviation the weights were trained with, RGB in [0, 1].
        interpolation: how images were resized in pretraining.
        input_size: (height, width) of pretraining, pixels.
        norm: "batch", "frozen", "synchronized" or "group"; see `backbones.norms`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        name: str = "backbone",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: str = "bilinear",
        input_size: Size = (224, 224),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        check_levels(channels, strides)
        if norm not in NORM_POLICIES:
            raise BackboneError(f"norm={norm!r} is none of {', '.join(NORM_POLICIES)}: choose one of them")
        self.name = name
        self.channels: tuple[int, ...] = tuple(channels)
        self.strides: tuple[int, ...] = tuple(strides)
        self.input_size: Size = input_size
        self.norm = norm
        self.weights_source = "random"
        self.has_map = True
        """False of networks on tokens, which give `pooled` alone."""
        self.form: str | None = None
        """Set where networks of one name and the same shapes differ: weights of another form are refused."""
        self.output_stride: int = max(self.strides)
        self.frozen_stages = 0
        self.frozen_modules: tuple[str, ...] = ()
        """Names of submodules that stay in eval mode whatever `train` says."""
        self.set_statistics(mean, std, interpolation)

    def set_statistics(self, mean: Sequence[float], std: Sequence[float], interpolation: str | None = None) -> None:
        """Declare what images the weights expect.

        Args:
            mean: RGB in [0, 1].
            std: RGB in (0, 1].
            interpolation: name of the resize filter; None keeps the present one.

        Raises:
            BackboneError: not three numbers, or outside those ranges (values in 0..255 are a common slip).
        """
        self.mean = _as_triple("mean", mean, 0.0)
        self.std = _as_triple("std", std, 1e-6)
        if interpolation is not None:
            self.interpolation = interpolation
        present = self._buffers.get("pixel_mean")
        device, dtype = (None, torch.float32) if present is None else (present.device, present.dtype)
        # The product is taken in float64 and rounded once; not persistent: a checkpoint carries the plain numbers.
        for buffer, values in (("pixel_mean", self.mean), ("pixel_std", self.std)):
            scaled = torch.tensor([255.0 * value for value in values], dtype=dtype, device=device)
            self.register_buffer(buffer, scaled.view(3, 1, 1), persistent=False)

    @property
    def pad_value(self) -> tuple[int, int, int]:
        """The mean as a uint8 pixel, RGB: what padding holds so that it is about zero after normalisation."""
        red, green, blue = (int(255.0 * value + 0.5) for value in self.mean)
        return red, green, blue

    def normalize(self, images: Tensor) -> Tensor:
        """(images - 255 * mean) / (255 * std), in float32 also under autocast.

        Args:
            images: [B, 3, H, W] uint8, or floating in 0..255; RGB.

        Returns:
            [B, 3, H, W], float32 (the module's own dtype where that was changed).

        Raises:
            BackboneError: another shape or an integer type other than uint8.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise BackboneError(f"images have shape {list(images.shape)}: give a batch of RGB images [B, 3, H, W]")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise BackboneError(f"images are {images.dtype}: give uint8, or floating point in 0..255")
        own_dtype = self.pixel_mean.dtype
        dtype = torch.promote_types(own_dtype, torch.float32)
        normalized = (images.to(dtype) - self.pixel_mean.to(dtype)) / self.pixel_std.to(dtype)
        return normalized.to(own_dtype)

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalised images; a subclass implements this.

        Args:
            images: [B, 3, H, W] floating, normalised.

        Returns:
            One [B, channels[i], H / strides[i], W / strides[i]] a level, fine to coarse, raw (no neck).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement features(images)")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of raw images.

        Args:
            images: [B, 3, H, W] uint8, or floating in 0..255; RGB.

        Returns:
            One [B, channels[i], H / strides[i], W / strides[i]] a level, fine to coarse.
        """
        return self.features(self.normalize(images))

    @property
    def pooled_channels(self) -> int:
        """Numbers that `pooled` gives for an image."""
        return self.channels[-1]

    def pooled(self, images: Tensor) -> Tensor:
        """One vector an image, for a classifier: the mean over all cells of the last map.

        Args:
            images: [B, 3, H, W] uint8, or floating in 0..255; RGB.

        Returns:
            [B, pooled_channels].
        """
        return self(images)[-1].mean(dim=(2, 3))  # by a call, so that hooks (DropBlock) take part

    def split(self, stride: int) -> tuple[Backbone, Tail]:
        """Cut the network in two for a C4 head: (body, tail), sharing this backbone's layers.

        Args:
            stride: where to cut; the body's only feature map has this stride.

        Returns:
            The body, a backbone of one level, and the tail, which maps that level to the last one.

        Raises:
            BackboneError: the network cannot be cut, or has no level of that stride.
        """
        raise BackboneError(
            f"split(stride={stride}): {self.name} cannot be cut into body and tail; networks that run layer by layer "
            "can (ResNet and its relatives, RegNet, DenseNet, VGG, Darknet). Use a head with an FPN instead."
        )

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; frozen stages, and all batch norm under norm="frozen", stay in eval mode."""
        super().train(mode)
        keep_frozen_in_eval(self, self.frozen_modules, self.norm)
        return self

    def describe(self) -> dict[str, Any]:
        """What this backbone is, in plain types: goes into reports and checkpoints."""
        return {
            "name": self.name,
            "weights": self.weights_source,
            "form": self.form,
            "channels": list(self.channels),
            "strides": list(self.strides),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "input_size": list(self.input_size),
            "output_stride": self.output_stride,
            "frozen_stages": self.frozen_stages,
            "norm": self.norm,
            "parameters": sum(parameter.numel() for parameter in self.parameters()),
        }


class Tail(nn.Module):
    """The stages after the cut of `Backbone.split`, run in order on a feature map (or on regions of one).

    Args:
        layers: the stages by name, in the order they run.
        channels: channels of the last stage's map.
        stride: cells of the input map per cell of the output map.
        frozen_modules: names of submodules that stay in eval mode.
        norm: the backbone's norm policy.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        channels: int,
        stride: int,
        frozen_modules: Sequence[str] = (),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        for layer_name, layer in layers.items():
            self.add_module(layer_name, layer)
        self.channels = channels
        self.stride = stride
        self.norm = norm
        self.frozen_modules = tuple(frozen_modules)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, H, W] -> [B, channels, H / stride, W / stride]."""
        for layer in self.children():
            features = layer(features)
        return features

    def train(self, mode: bool = True) -> Tail:
        """Set the mode; what is frozen stays in eval mode."""
        super().train(mode)
        keep_frozen_in_eval(self, self.frozen_modules, self.norm)
        return self


class WrappedBackbone(Backbone):
    """An own module as a backbone; made by `wrap`.

    Args:
        module: maps normalised images [B, 3, H, W] to a map, a list of maps or a dict of maps, fine to coarse.
        channels: of each map.
        strides: of each map.
        name: what it is called in reports.
        mean: RGB in [0, 1].
        std: RGB in [0, 1].
        interpolation: how images were resized in pretraining.
        input_size: (height, width) of pretraining, pixels.
        norm: the norm policy that `module` already has.
    """

    def __init__(
        self,
        module: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        name: str = "backbone",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: str = "bilinear",
        input_size: Size = (224, 224),
        norm: str = "batch",
    ) -> None:
        super().__init__(
            channels,
            strides,
            name=name,
            mean=mean,
            std=std,
            interpolation=interpolation,
            input_size=input_size,
            norm=norm,
        )
        self.body = module

    def features(self, images: Tensor) -> list[Tensor]:
        """The module's maps as a list."""
        return as_list(self.body(images))


def wrap(
    module: nn.Module,
    channels: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    name: str | None = None,
    interpolation: str = "bilinear",
    input_size: Size = (224, 224),
) -> WrappedBackbone:
    """Make a backbone of an own module.

    Args:
        module: maps normalised images [B, 3, H, W] to a map, a list of maps or a dict of maps, fine to coarse.
        channels: of each map; None measures them by running the module.
        strides: of each map; None measures them.
        mean: RGB in [0, 1].
        std: RGB in [0, 1].
        name: what it is called in reports; None takes the class's name.
        interpolation: how images were resized in pretraining.
        input_size: (height, width) of pretraining, pixels.

    Raises:
        BackboneError: the module does not behave as a backbone must, or channels and strides differ from what it gives.
    """
    if channels is None or strides is None:
        measured_channels, measured_strides = measure(module)
        for argument, given, measured in (
            ("channels", channels, measured_channels),
            ("strides", strides, measured_strides),
        ):
            if given is not None and tuple(given) != measured:
                raise BackboneError(f"{argument}={tuple(given)}, but the module gives {measured}: leave it out")
        channels, strides = measured_channels, measured_strides
    return WrappedBackbone(
        module,
        channels,
        strides,
        name=name or type(module).__name__,
        mean=mean,
        std=std,
        interpolation=interpolation,
        input_size=input_size,
    )


def keep_frozen_in_eval(module: nn.Module, frozen_modules: Sequence[str], norm: str) -> None:
    """Put the named submodules, and under norm="frozen" every batch norm, back into eval mode."""
    # By name: the engine may have replaced a layer by its synchronized form since.
    for frozen in frozen_modules:
        module.get_submodule(frozen).eval()
    if norm == "frozen":
        for child in module.modules():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                child.eval()


def _as_triple(argument: str, values: Sequence[float], low: float) -> Triple:
    """Three floats in [low, 1], or an error that names the argument."""
    triple = tuple(float(value) for value in values)
    if len(triple) != 3 or not all(low <= value <= 1.0 for value in triple):
        hint = "; these look like 0..255: divide by 255" if triple and max(triple) > 1.0 else ""
        raise BackboneError(f"{argument}={triple}: give three numbers (R, G, B) in [0, 1]{hint}")
    return triple[0], triple[1], triple[2]
