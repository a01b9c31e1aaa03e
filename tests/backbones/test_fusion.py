"""Folding batch norms: the same numbers from fewer layers, and nothing folded that is no pair."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from backbones.contract import Backbone, BackboneError
from backbones.fusion import foldable_norms, fuse_conv_bn
from backbones.timm_backbone import TimmBackbone


def _lively(module: nn.Module) -> Any:
    """Norms with statistics and values of their own."""
    generator = torch.Generator().manual_seed(5)

    def between(low: float, high: float, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    for layer in module.modules():
        if isinstance(layer, (_BatchNorm, FrozenBatchNorm2d)):
            for name, low, high in (("weight", 0.5, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.2, 0.2)):
                values = getattr(layer, name).data
                values.copy_(between(low, high, values))
            layer.running_var.copy_(between(0.5, 2.0, layer.running_var))  # type: ignore[operator, union-attr, arg-type]
    return module


def _images(side: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(side))


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def _close(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


# ---- networks ----


@pytest.mark.parametrize(
    ("name", "norms", "left"),
    [
        ("resnet18d", 22, 0),
        ("mobilenetv3_small_050", 34, 0),
        ("efficientnet_lite0", 49, 0),
        ("darknet17", 17 - 1, 0),  # norms with the activation in them
        ("test_resnet", 15, 0),  # basic blocks and bottlenecks
        ("densenet121", 121, 62),  # a norm stands before its convolution, but for the stem's and each layer's second
        ("convnext_atto", 0, 0),
    ],
)
def test_fused_network_gives_the_same_without_its_norms(name: str, norms: int, left: int) -> None:
    torch.manual_seed(0)
    network = _lively(timm.create_model(name, num_classes=0)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = fuse_conv_bn(network, size=(64, 64))
    assert (len(_norms(network)), len(_norms(fused))) == (norms, left)
    assert network.training
    assert not fused.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        _close(fused(_images()), network.eval()(_images()))


def test_backbones_keep_what_they_are(caplog: pytest.LogCaptureFixture) -> None:
    backbone = _lively(TimmBackbone("resnet10t", norm="frozen", frozen_stages=2))
    with caplog.at_level(logging.INFO):
        fused = fuse_conv_bn(backbone, size=(64, 64))
    assert isinstance(fused, Backbone)
    assert fused.describe()["strides"] == [4, 8, 16, 32]
    assert f"{len(_norms(backbone))} batch norms folded into convolutions: body.conv1.1, " in caplog.text
    pixels = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, expected in zip(fused(pixels), backbone.eval()(pixels), strict=True):
            _close(found, expected)
    assert not _norms(fused)
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_yolov3_is_fused_with_its_neck() -> None:
    from transfer.heads.yolov3 import yolov3

    torch.manual_seed(0)
    model = _lively(yolov3(TimmBackbone("test_resnet"), num_classes=3, width=0.25)).eval()
    fused: Any = fuse_conv_bn(model, size=(64, 64))
    assert _norms(model.neck)
    assert not _norms(fused)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _close(fused(images, [(64, 96)]).raw, model(images, [(64, 96)]).raw)


def test_a_detector_that_selects_regions_is_fused_and_its_group_norm_left() -> None:
    from transfer.heads.faster_rcnn import faster_rcnn_fpn

    torch.manual_seed(0)
    backbone = _lively(TimmBackbone("test_resnet"))
    model: Any = faster_rcnn_fpn(backbone, num_classes=3, width=32, head_width=64, fpn_norm="group").eval()
    fused: Any = fuse_conv_bn(model, size=(64, 96))
    assert (len(_norms(model)), len(_norms(fused))) == (15, 0)
    groups = [sum(isinstance(layer, nn.GroupNorm) for layer in network.modules()) for network in (model, fused)]
    assert groups[0] == groups[1] > 0
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = [network.neck(network.backbone(images)) for network in (model, fused)]
    for expected, found in zip(*maps, strict=True):
        _close(found, expected)


def test_what_rounding_alone_turns_around_is_no_mistake() -> None:
    # sin(10,000 x) makes much of the last digit, as a ranking of nearly equal scores does
    network = _lively(Pair(lambda conv, norm, images: torch.sin(1e4 * norm(conv(images))))).eval()
    fused: Any = fuse_conv_bn(network, size=(32, 32))
    assert isinstance(fused.norm, nn.Identity)
    with torch.no_grad():
        assert not torch.allclose(fused(_images()), network(_images()), rtol=0, atol=1e-5)
        _close(fused.norm(fused.conv(_images())), network.norm(network.conv(_images())))


# ---- pairs, and what is none ----


class Pair(nn.Module):
    """A convolution and a norm, joined by `forward` in the way that the test is about."""

    def __init__(self, forward: Any, norm: nn.Module | None = None, conv: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 4, 3, padding=1)
        self.norm = norm or nn.BatchNorm2d(4)
        self.joined = forward

    def forward(self, images: Tensor) -> Any:
        return self.joined(self.conv, self.norm, images)


def _one_after_the_other(conv: nn.Module, norm: nn.Module, images: Tensor) -> Tensor:
    return norm(conv(images))


def test_folded_weights_by_hand() -> None:
    network: Any = Pair(_one_after_the_other, nn.BatchNorm2d(1, eps=0.0), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        network.conv.weight.copy_(torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1))
        network.conv.bias.fill_(5.0)
        network.norm.running_mean.fill_(1.0)
        network.norm.running_var.fill_(4.0)
        network.norm.weight.fill_(3.0)
        network.norm.bias.fill_(-2.0)
    fused: Any = fuse_conv_bn(network, size=(8, 8))
    assert fused.conv.weight.flatten().tolist() == [1.5, 3.0, 6.0]  # times 3 / sqrt(4)
    assert fused.conv.bias.tolist() == [(5.0 - 1.0) * 1.5 - 2.0]
    assert isinstance(fused.norm, nn.Identity)


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
        (nn.Conv2d(3, 6, 3, groups=3, stride=2, dilation=2), nn.BatchNorm2d(6)),
        (nn.ConvTranspose2d(3, 4, 2, stride=2), nn.BatchNorm2d(4)),
        (nn.Conv2d(3, 4, 1), FrozenBatchNorm2d(4)),
        (nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4)),
        (nn.Conv2d(3, 4, 1), timm.layers.BatchNormAct2d(4, act_layer=nn.LeakyReLU)),
    ],
)
def test_every_kind_of_pair(conv: nn.Module, norm: nn.Module) -> None:
    network = _lively(Pair(_one_after_the_other, norm, conv)).eval()
    fused: Any = fuse_conv_bn(network, size=(16, 16))
    assert not hasattr(fused.norm, "running_mean")
    with torch.no_grad():
        _close(fused(_images(16)), network(_images(16)))


@pytest.mark.parametrize(
    "joined",
    [
        lambda conv, norm, images: norm(conv(images)) + conv(images),  # the convolution runs a second time
        lambda conv, norm, images: (lambda x: norm(x) + x)(conv(images)),  # its output is read a second time
        lambda conv, norm, images: (lambda x: [x, norm(x)])(conv(images)),  # or given out
        lambda conv, norm, images: (lambda x: norm(x) + x.mean(dim=(2, 3), keepdim=True))(conv(images)),
        lambda conv, norm, images: norm(torch.relu(conv(images))),
        lambda conv, norm, images: norm(F.relu_(conv(images))),  # in the same memory
        lambda conv, norm, images: norm(torch.cat([conv(images[:1]), conv(images[:1])])),
        lambda conv, norm, images: conv(norm(images.repeat(1, 2, 1, 1)[:, :4])[:, :3]),
    ],
)
def test_what_is_no_pair_is_left_alone(joined: Any) -> None:
    network = _lively(Pair(joined)).eval()
    assert foldable_norms(network, size=(8, 8)) == {}
    fused: Any = fuse_conv_bn(network, size=(8, 8))
    assert isinstance(fused.norm, nn.BatchNorm2d)


def test_layers_used_for_several_maps_are_folded_once() -> None:
    def over_levels(conv: nn.Module, norm: nn.Module, images: Tensor) -> list[Tensor]:
        return [norm(conv(level)) for level in (images, F.avg_pool2d(images, 2))]

    network = _lively(Pair(over_levels)).eval()
    assert foldable_norms(network, size=(8, 8)) == {"conv": "norm"}
    fused = fuse_conv_bn(network, size=(8, 8))
    with torch.no_grad():
        for found, expected in zip(fused(_images(16)), network(_images(16)), strict=True):
            _close(found, expected)


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (timm.layers.StdConv2d(3, 4, 3), nn.BatchNorm2d(4)),  # standardises its weights in each pass
        (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        (nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)),
    ],
)
def test_kinds_that_cannot_be_folded(conv: nn.Module, norm: nn.Module) -> None:
    assert foldable_norms(_lively(Pair(_one_after_the_other, norm, conv)), size=(16, 16)) == {}


def test_precision_and_random_stream_are_the_caller_s() -> None:
    network = _lively(Pair(_one_after_the_other))
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    for dtype in (torch.float64, torch.bfloat16):
        fused: Any = fuse_conv_bn(copy.deepcopy(network).to(dtype), size=(8, 8))
        assert fused.conv.weight.dtype == dtype
    assert torch.equal(torch.rand(1), expected)


# ---- mistakes ----


class Restless(nn.Module):
    """Gives another result each time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.conv(images) * self.passes


class TwoInputs(nn.Module):
    """Takes another input than images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, images: Tensor, weight: Tensor) -> Tensor:
        return self.body(images) * weight


def test_a_changed_result_is_an_error() -> None:
    with pytest.raises(BackboneError, match=r"Restless.*changes what it gives.*another result each time"):
        fuse_conv_bn(Restless(), size=(8, 8))


def test_models_that_need_more_than_images_say_how() -> None:
    with pytest.raises(BackboneError, match=r"TwoInputs.forward needs images, weight: give run=\.\.\."):
        fuse_conv_bn(TwoInputs())

    def run(model: nn.Module) -> Any:
        return model(torch.ones(1, 3, 4, 4), torch.ones(1))

    assert not _norms(fuse_conv_bn(TwoInputs(), run=run))


def test_a_size_that_the_model_refuses_is_named() -> None:
    with pytest.raises(BackboneError, match=r"VisionTransformer fails.*give size=\(height, width\)"):
        fuse_conv_bn(timm.create_model("vit_tiny_patch16_224", depth=1), size=(64, 64))
    with pytest.raises(BackboneError, match="ReLU has no parameters"):
        fuse_conv_bn(nn.ReLU())
