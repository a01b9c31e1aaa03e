"""The contract: exact normalisation, and channels and strides that are measured."""

from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones.contract import Backbone, BackboneError, Tail, map_shapes, measure, wrap


class Pyramid(nn.Module):
    """Two maps of 6 and 10 channels at strides 4 and 8; batch norm shows whether measuring leaves traces."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6))
        self.coarse = nn.Conv2d(6, 10, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(images)
        return {"fine": fine, "coarse": self.coarse(fine)}


class Function(nn.Module):
    """A module around a plain function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor):
        return self.function(images * self.scale)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_is_the_formula(dtype: torch.dtype) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 9), dtype=np.uint8)
    backbone = wrap(Pyramid(), mean=mean, std=std)
    expected = (pixels / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = backbone.normalize(torch.from_numpy(pixels).to(dtype))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def test_normalisation_follows_a_change_of_precision() -> None:
    backbone = wrap(Pyramid()).double()
    assert [level.dtype for level in backbone(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))] == [torch.float64] * 2
    backbone.set_statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert backbone.pixel_mean.dtype == torch.float64


def test_padding_is_the_mean() -> None:
    backbone = wrap(Pyramid())
    assert backbone.pad_value == (124, 116, 104)  # ImageNet's mean pixel, rounded
    padding = torch.tensor(backbone.pad_value).view(1, 3, 1, 1).float()
    assert backbone.normalize(padding).abs().max() < 0.5 / 255 / 0.224


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 8, 8), r"\[3, 8, 8\]"),
        (torch.zeros(1, 4, 8, 8), r"\[1, 4, 8, 8\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
    ],
)
def test_wrong_images_are_named(images: Tensor, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        wrap(Pyramid())(images)


def test_statistics_in_0_to_255_are_refused() -> None:
    with pytest.raises(BackboneError, match="divide by 255"):
        wrap(Pyramid(), mean=(123.68, 116.78, 103.94))


def test_wrap_measures_without_leaving_traces() -> None:
    module = Pyramid().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    backbone = wrap(module)
    assert (backbone.channels, backbone.strides, backbone.name) == ((6, 10), (4, 8), "Pyramid")
    assert module.training
    assert module.fine.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    maps = backbone(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    assert [tuple(level.shape) for level in maps] == [(2, 6, 16, 24), (2, 10, 8, 12)]


def test_strides_of_unpadded_convolutions_come_from_growth() -> None:
    # Three unpadded 3x3 convolutions of stride 2: 224 -> 111 -> 55 -> 27, and 224 / 27 = 8.3 is not the stride.
    module = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=2) for _ in range(3)))
    assert map_shapes(module, (224, 224)) == [(1, 3, 27, 27)]
    assert measure(module) == ((3,), (8,))


def test_modules_the_meta_device_cannot_run_are_run_for_real() -> None:
    kept = torch.ones(1)  # a plain tensor: no parameter, no buffer
    assert measure(Function(lambda images: images[:, :, ::16, ::16] * kept.numpy().item() + kept)) == ((3,), (16,))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda images: images[:, :, ::4, ::4].permute(0, 2, 3, 1), "channels come last"),
        (lambda images: images.flatten(2), r"give maps of shape \[B, C, H, W\]"),
        (lambda images: nn.functional.adaptive_avg_pool2d(images, 7), "7x7 to 7x7"),
        (lambda images: [images[:, :, ::8, ::8], images[:, :, ::4, ::4]], "fine to coarse"),
        (lambda images: images[:, :, ::4, ::8], "both axes"),
        (lambda images: images.view(1, 3, 224, 224), "any size"),
    ],
)
def test_what_is_no_backbone_is_refused(function, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        measure(Function(function))


def test_channels_given_wrong_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"channels=\(6, 12\).*\(6, 10\)"):
        wrap(Pyramid(), channels=(6, 12))


def test_a_subclass_needs_features_only() -> None:
    class Own(Backbone):
        def __init__(self) -> None:
            super().__init__((3,), (2,), name="own", mean=(0, 0, 0), std=(1, 1, 1))

        def features(self, images: Tensor) -> list[Tensor]:
            return [images[:, :, ::2, ::2]]

    backbone = Own()
    assert backbone(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))[0].tolist() == torch.ones(1, 3, 2, 2).tolist()
    assert json.loads(json.dumps(backbone.describe()))["strides"] == [2]
    with pytest.raises(BackboneError, match="own cannot be cut"):
        backbone.split(2)


def test_statistics_are_no_part_of_the_state() -> None:
    assert set(wrap(Pyramid()).state_dict()) == {f"body.{key}" for key in Pyramid().state_dict()}


def test_tail_runs_its_layers_in_order() -> None:
    tail = Tail(OrderedDict(first=nn.Conv2d(2, 4, 1), second=nn.AvgPool2d(2)), channels=4, stride=2)
    features = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(tail(features), tail.second(tail.first(features)))
