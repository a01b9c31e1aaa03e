"""timm models as backbones: what they claim is what they give."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from backbones import timm_plan
from backbones.contract import BackboneError
from backbones.timm_backbone import TimmBackbone

SMALL_VGG = {"mlp_ratio": 0.01}
"""VGG's two wide layers belong to its classifier; narrow, they build fast."""


def _images(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("name", "strides", "options"),
    [
        ("resnet10t", (4, 8, 16, 32), {}),
        ("resnet18", (4, 8, 16, 32), {"stem_type": "deep", "stem_width": 32, "avg_down": True}),
        ("mobilenetv3_small_050", (4, 8, 16, 32), {}),
        ("tf_efficientnet_lite0", (4, 8, 16, 32), {}),
        ("convnext_atto", (4, 8, 16, 32), {}),
        ("darknet17", (4, 8, 16, 32), {}),
        ("vgg11", (4, 8, 16, 32), SMALL_VGG),
        ("densenet121", (4, 8, 16, 32), {}),
        ("vit_tiny_patch16_224", (16, 16, 16), {}),
        ("swin_tiny_patch4_window7_224", (4, 8, 16, 32), {}),
    ],
)
def test_channels_and_strides_are_those_of_the_maps(name: str, strides: tuple[int, ...], options: dict) -> None:
    backbone = TimmBackbone(name, model_options=options).eval()
    assert backbone.strides == strides
    with torch.no_grad():
        maps = backbone(_images(64, 96))
    expected = [(1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert [tuple(level.shape) for level in maps] == expected


def test_strides_of_inception_are_measured() -> None:
    with torch.device("meta"):  # shapes are all that matters
        backbone = TimmBackbone("inception_v3").eval()
        small, large = backbone(torch.empty(1, 3, 96, 96)), backbone(torch.empty(1, 3, 160, 128))
    assert backbone.strides == (4, 8, 16, 32)
    for before, after, stride in zip(small, large, backbone.strides, strict=True):
        assert ((after.shape[2] - before.shape[2]) * stride, (after.shape[3] - before.shape[3]) * stride) == (64, 32)


def test_full_size_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("resnet50d", frozen_stages=1)
    assert backbone.channels == (256, 512, 1024, 2048)
    # ResNet-50-D has 25,576,264 parameters, 2,049,000 of them in its classifier.
    assert backbone.describe()["parameters"] == 25_576_264 - 2_049_000
    assert [tuple(level.shape[1:]) for level in backbone(torch.empty(1, 3, 600, 800, device="meta"))][-1] == (
        2048,
        19,
        25,
    )


def test_planning_draws_nothing_from_the_random_stream() -> None:
    timm_plan._plan.cache_clear()
    weights = []
    for build in (TimmBackbone, TimmBackbone, lambda name: timm.create_model(name, features_only=True)):
        torch.manual_seed(5)
        parameters = build("resnet10t").named_parameters()
        weights.append(next(value for key, value in parameters if key.endswith("layer4.0.conv1.weight")))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_output_stride_8_keeps_the_maps_large() -> None:
    backbone = TimmBackbone("resnet10t", output_stride=8).eval()
    assert (backbone.strides, backbone.channels) == ((4, 8, 8, 8), (64, 128, 256, 512))
    with torch.no_grad():
        maps = backbone(_images(64, 96))
        chosen = TimmBackbone("resnet10t", output_stride=8, out_strides=(8, 8)).eval()
        chosen.load_state_dict(backbone.state_dict())
        deepest = chosen(_images(64, 96))
    assert maps[-1].shape[2:] == (8, 12)
    assert chosen.channels == (256, 512)
    assert all(torch.equal(a, b) for a, b in zip(maps[-2:], deepest, strict=True))


def test_a_model_that_is_dilated_only_as_a_feature_network() -> None:
    """MobileNetV3's full model takes no output_stride, its feature network does."""
    backbone = TimmBackbone("mobilenetv3_small_050", output_stride=16).eval()
    assert backbone.strides[-1] == 16
    assert backbone(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))[-1].shape[-2:] == (4, 6)


def test_levels_behind_the_last_one_asked_for_are_not_built() -> None:
    backbone = TimmBackbone("resnet10t", out_strides=(8, 16))
    assert (backbone.strides, backbone.channels) == ((8, 16), (128, 256))
    assert not any("layer4" in name for name, _ in backbone.named_parameters())
    # Where timm keeps them, they must not wait for a gradient.
    kept = TimmBackbone("mobilenetv3_small_050", out_strides=(4, 8)).train()
    sum(level.sum() for level in kept(_images(64, 64, 2))).backward()
    assert all(parameter.grad is not None for parameter in kept.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet5O"}, "did you mean .*'resnet50'"),
        ({"name": "resnet18.a1_in1k"}, "name='resnet18', and the tag as weights='timm:a1_in1k'"),
        ({"name": "resnet1O", "output_stride": 4, "norm": "none"}, "(?s)name=.*output_stride=4.*norm='none'"),
        ({"name": "densenet121", "output_stride": 8}, "densenet121 cannot be dilated.*it can do 32$"),
        ({"name": "vgg11", "output_stride": 16, "model_options": SMALL_VGG}, "it can do 32$"),
        ({"name": "resnet10t", "out_strides": (8, 64)}, r"out_strides=\(8, 64\).*2, 4, 8, 16, 32"),
        ({"name": "resnet10t", "out_strides": (8, 8)}, r"out_strides=\(8, 8\)"),
        ({"name": "resnet10t", "frozen_stages": 6}, "frozen_stages=6.*0 to 5"),
        ({"name": "resnet10t", "model_options": {"stem_typ": "deep"}}, "model_options=.*'stem_typ'"),
        ({"name": "mixer_s32_224"}, "mixer_s32_224.*any size"),
        ({"name": "resnet10t", "classifier_layers": True}, "classifier_layers=True: only VGG.*resnet10t has none"),
    ],
)
def test_mistakes_are_named_with_their_remedy(arguments: dict, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        TimmBackbone(**arguments)


@pytest.mark.parametrize(
    ("name", "frozen_stages", "frozen", "trained"),
    [
        ("resnet10t", 1, ("conv1", "bn1"), ("layer1", "layer4")),
        ("resnet10t", 2, ("conv1", "bn1", "layer1"), ("layer2", "layer4")),
        ("convnext_atto", 1, ("stem_0", "stem_1", "stages_0"), ("stages_1", "stages_3")),
        ("resnet10t", 5, ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), ()),
    ],
)
def test_frozen_stages_do_not_move(name: str, frozen_stages: int, frozen: tuple, trained: tuple) -> None:
    backbone = TimmBackbone(name, frozen_stages=frozen_stages).train()
    assert backbone.frozen_modules == tuple(f"body.{part}" for part in frozen)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    maps = backbone(_images(64, 64, 2))
    if not trained:
        assert not any(level.requires_grad for level in maps)  # no graph is kept
        return
    optimizer = torch.optim.SGD((p for p in backbone.parameters() if p.requires_grad), lr=0.1)
    sum(level.square().mean() for level in maps).backward()
    optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert not {key for key in changed if key.startswith(tuple(f"body.{part}." for part in frozen))}
    for part in trained:
        assert any(key.startswith(f"body.{part}.") for key in changed)


@pytest.mark.parametrize(("name", "stride"), [("resnet10t", 16), ("darknet17", 8)])
def test_body_then_tail_equals_the_whole(name: str, stride: int) -> None:
    backbone = TimmBackbone(name, frozen_stages=1).eval()
    body, tail = backbone.split(stride)
    with torch.no_grad():
        whole = backbone(_images(64, 96))
        (features,) = body(_images(64, 96))
        last = tail(features)
    position = backbone.strides.index(stride)
    assert (body.strides, body.channels) == ((stride,), (backbone.channels[position],))
    assert (tail.stride, tail.channels) == (32 // stride, backbone.channels[-1])
    assert torch.equal(features, whole[position])
    assert torch.equal(last, whole[-1])
    shared = {id(p) for part in (body, tail) for p in part.parameters()}
    assert shared == {id(p) for p in backbone.parameters()}


def test_split_keeps_what_is_frozen() -> None:
    body, tail = TimmBackbone("resnet10t", norm="frozen", frozen_stages=2).split(16)
    body.train()
    tail.train()
    assert not body.body.layer1.training
    assert body.body.layer2.training
    norms = [layer for part in (body, tail) for layer in part.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(layer.training for layer in norms)


def test_split_of_a_dilated_network_leaves_a_tail() -> None:
    backbone = TimmBackbone("resnet10t", output_stride=16).eval()
    body, tail = backbone.split(16)
    assert (body.channels, tail.channels, tail.stride) == ((256,), 512, 1)


def test_networks_that_cannot_be_split_say_which_can() -> None:
    with pytest.raises(BackboneError, match="ResNet"):
        TimmBackbone("mobilenetv3_small_050").split(16)
    with pytest.raises(BackboneError, match="can be cut at 4, 8, 16"):
        TimmBackbone("resnet10t").split(32)


# ---- fc6 and fc7 of VGG ----


def test_vgg19_with_its_classifier_layers_has_all_parameters_but_the_last_layer_s() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("vgg19", classifier_layers=True)
        body, tail = backbone.split(16)
        assert tail(torch.empty(5, 512, 7, 7, device="meta")).shape == (5, 4096, 1, 1)
    assert (body.strides, body.channels, tail.channels) == ((16,), (512,), 4096)
    # VGG-19 has 143,667,240 parameters, 4,097,000 of them in its last layer.
    assert sum(p.numel() for part in (body, tail) for p in part.parameters()) == 143_667_240 - 4_097_000
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in body.modules()) == 16
    assert (
        sum(isinstance(layer, torch.nn.MaxPool2d) for layer in body.modules()) == 4
    )  # the fifth is the head's RoIAlign


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """Weights of a whole classifier in timm's names, as a file and as they are."""
    torch.manual_seed(3)
    state = timm.create_model("vgg11", **SMALL_VGG).state_dict()
    path = tmp_path_factory.mktemp("vgg") / "vgg11.pth"
    torch.save(state, path)
    return path, state


def test_weights_reach_fc6_and_fc7(vgg_file: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = vgg_file
    backbone = TimmBackbone("vgg11", weights=path, model_options=SMALL_VGG, classifier_layers=True)
    loaded = backbone.state_dict()
    for ours, theirs in (
        ("classifier_layers.fc1.weight", "pre_logits.fc1.weight"),
        ("classifier_layers.fc2.bias", "pre_logits.fc2.bias"),
        ("classifier_layers.fc2.weight", "pre_logits.fc2.weight"),
        ("body.features_18.weight", "features.18.weight"),
    ):
        assert torch.equal(loaded[ours], state[theirs])
    report = backbone.load_report
    assert report is not None
    assert set(report.matched) == set(loaded)
    assert report.dropped_head == ("head.fc.weight", "head.fc.bias")
    assert not report.unused
    assert not report.missing


def test_fc6_and_fc7_load_from_torchvision_s_layout(vgg_file: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    # there they are linear layers, classifier.0 and .3, on the map flattened channel by channel
    state = vgg_file[1]
    flat = {key: value for key, value in state.items() if key.startswith("features.")}
    for theirs, ours in ((0, "pre_logits.fc1"), (3, "pre_logits.fc2")):
        flat[f"classifier.{theirs}.weight"] = state[f"{ours}.weight"].flatten(1)
        flat[f"classifier.{theirs}.bias"] = state[f"{ours}.bias"]
    flat |= {"classifier.6.weight": state["head.fc.weight"], "classifier.6.bias": state["head.fc.bias"]}
    torch.save(flat, tmp_path / "torchvision.pth")
    backbone = TimmBackbone(
        "vgg11", weights=tmp_path / "torchvision.pth", model_options=SMALL_VGG, classifier_layers=True
    )
    report = backbone.load_report
    assert report is not None
    assert not report.missing
    assert set(report.dropped_head) == {"classifier.6.weight", "classifier.6.bias"}
    linear = torch.nn.functional.linear
    maps = torch.rand(2, *state["pre_logits.fc1.weight"].shape[1:])
    layers = backbone.classifier_layers
    assert layers is not None
    expected = linear(maps.flatten(1), flat["classifier.0.weight"], flat["classifier.0.bias"]).relu()
    expected = linear(expected, flat["classifier.3.weight"], flat["classifier.3.bias"]).relu()
    torch.testing.assert_close(layers.eval()(maps).flatten(1), expected, rtol=1e-5, atol=1e-6)


def test_a_trained_detector_s_fc6_and_fc7_load_from_beside_its_body(
    vgg_file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    source = TimmBackbone("vgg11", weights=vgg_file[0], model_options=SMALL_VGG, classifier_layers=True)
    body, tail = source.split(16)
    detector = torch.nn.ModuleDict({"backbone": body, "box_head": torch.nn.ModuleDict({"tail": tail})})
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    torch.manual_seed(4)
    again = TimmBackbone("vgg11", weights=tmp_path / "detector.pth", model_options=SMALL_VGG, classifier_layers=True)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in again.state_dict().items())
    assert again.load_report is not None
    assert not again.load_report.unused


def test_a_file_without_fc6_and_fc7_says_so(
    vgg_file: tuple[Path, dict[str, Tensor]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, state = vgg_file
    torch.save({key: value for key, value in state.items() if not key.startswith("pre_logits")}, tmp_path / "cut.pth")
    with caplog.at_level(logging.WARNING):
        backbone = TimmBackbone("vgg11", weights=tmp_path / "cut.pth", model_options=SMALL_VGG, classifier_layers=True)
    assert backbone.load_report is not None
    assert set(backbone.load_report.missing) == {
        f"classifier_layers.fc{n}.{x}" for n in (1, 2) for x in ("weight", "bias")
    }
    assert "left random: classifier_layers.fc1.weight" in caplog.text


def test_classifier_layers_learn_only_behind_a_split_and_only_at_stride_16() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("vgg11", model_options=SMALL_VGG, classifier_layers=True)
        assert not any(p.requires_grad for p in backbone.classifier_layers.parameters())
        plain = TimmBackbone("vgg11", model_options=SMALL_VGG)
        with pytest.raises(BackboneError, match=r"split\(stride=8\).*cut at 16"):
            backbone.split(8)
        _, tail = backbone.split(16)
        assert all(p.requires_grad for p in tail.parameters())
        with pytest.raises(BackboneError, match="14x14 cells; fc6 of VGG reads 7x7"):
            tail(torch.empty(1, 512, 14, 14, device="meta"))
        assert not list(plain.split(16)[1].parameters())  # the last pooling alone


def test_autocast_keeps_float32_at_the_input() -> None:
    backbone = TimmBackbone("resnet10t").eval()
    with torch.no_grad():
        exact = backbone(_images(32, 32))[-1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = backbone(_images(32, 32))[-1]
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()
