"""The papers' names: each builds the network that the paper of that name describes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from backbones.contract import BackboneError
from backbones.named import NAMES, STRIDE_FIRST, NamedBackbone
from backbones.timm_backbone import TimmBackbone

INPUT_PIXELS = {"inception_v3": 299, "darknet53": 256}
"""Other than 224."""

VGG_CLASSIFIER = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000


@lru_cache
def on_meta(name: str) -> NamedBackbone:
    """A backbone without values: shapes and operations are all that matters."""
    with torch.device("meta"):
        return NamedBackbone(name).eval()


@lru_cache
def multiply_adds(name: str) -> float:
    """Of the full classifier for one image, in units of 1e9."""
    backbone = on_meta(name)
    pixels = INPUT_PIXELS.get(name, 224)
    with FlopCounterMode(display=False) as counter:
        backbone(torch.empty(1, 3, pixels, pixels, device="meta"))
    return (counter.get_total_flops() / 2 + classifier_parameters(name)) / 1e9  # about one multiply-add a weight


def classifier_parameters(name: str) -> int:
    return VGG_CLASSIFIER if name == "vgg19" else (on_meta(name).channels[-1] + 1) * 1000


def stage(name: str, number: int) -> Any:
    return on_meta(name).body.get_submodule(f"layer{number}")


def skip_initialization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave convolutions unset, where a test does not read them: random values are most of the time of building."""
    for slow in ("kaiming_uniform_", "kaiming_normal_"):
        monkeypatch.setattr(nn.init, slow, lambda tensor, *_, **__: tensor)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [child for child in module.modules() if isinstance(child, nn.Conv2d)]


# Parameters as published with the weights (timm's and torchvision's tables; of C, which has D's, timm's).
@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    [
        ("resnet18", 11_689_512, (64, 128, 256, 512)),
        ("resnet50", 25_557_032, (256, 512, 1024, 2048)),
        ("resnet50b", 25_557_032, (256, 512, 1024, 2048)),
        ("resnet50c", 25_576_264, (256, 512, 1024, 2048)),
        ("resnet50d", 25_576_264, (256, 512, 1024, 2048)),
        ("vgg19", 143_667_240, (256, 512, 512, 512)),
        ("inception_v3", 23_834_568, (192, 288, 768, 2048)),
        ("mobilenet", 4_231_976, (128, 256, 512, 1024)),
        ("darknet53", 41_609_928, (128, 256, 512, 1024)),
        ("densenet121", 7_978_856, (256, 512, 1024, 1024)),
    ],
)
def test_parameters_and_levels_are_the_published_ones(name: str, parameters: int, channels: tuple[int, ...]) -> None:
    described = on_meta(name).describe()
    assert described["name"] == name
    assert described["parameters"] + classifier_parameters(name) == parameters
    assert described["channels"] == list(channels)
    assert described["strides"] == [4, 8, 16, 32]


# G multiply-adds; papers print one digit and cut or round it, hence the tolerance.
@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        ("resnet50", 3.8, 0.1),  # these four: Bag of Tricks, table 5
        ("resnet50b", 4.1, 0.1),
        ("resnet50c", 4.3, 0.1),
        ("resnet50d", 4.3, 0.1),
        ("resnet18", 1.8, 0.1),  # He et al. 2015, table 1
        ("mobilenet", 0.569, 0.001),  # MobileNets, table 4
        ("darknet53", 18.7 / 2, 0.1),  # YOLOv3, table 2, in operations
    ],
)
def test_multiply_adds_are_the_published_ones(name: str, published: float, tolerance: float) -> None:
    assert multiply_adds(name) == pytest.approx(published, abs=tolerance)


def test_original_and_b_differ_by_their_first_convolutions_alone() -> None:
    # In B, the first 1x1 of each halving block runs on all cells; in the original, on a quarter of them.
    extra = 0
    for cells, inputs, outputs in ((56, 256, 128), (28, 512, 256), (14, 1024, 512)):
        extra += (cells**2 - (cells // 2) ** 2) * inputs * outputs
    assert multiply_adds("resnet50b") - multiply_adds("resnet50") == pytest.approx(extra / 1e9, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "strides"),
    [("resnet50", [(2, 2), (1, 1)]), ("resnet50b", [(1, 1), (2, 2)]), ("resnet50d", [(1, 1), (2, 2)])],
)
def test_where_a_bottleneck_halves_the_map(name: str, strides: list[tuple[int, int]]) -> None:
    for number in (2, 3, 4):
        first, *others = stage(name, number).children()
        assert [first.conv1.kernel_size, first.conv2.kernel_size] == [(1, 1), (3, 3)]
        assert [first.conv1.stride, first.conv2.stride] == strides
        assert {layer.stride for block in others for layer in convolutions(block)} == {(1, 1)}


def test_basic_blocks_have_no_original_form_of_their_own() -> None:
    assert NAMES["resnet18"] == NAMES["resnet18b"]
    assert NAMES["resnet34"] == NAMES["resnet34b"]
    assert [layer.stride for layer in convolutions(stage("resnet18", 2)[0])] == [(2, 2), (1, 1), (2, 2)]


@pytest.mark.parametrize("name", ["resnet18c", "resnet18d", "resnet50c", "resnet50d"])
def test_stem_of_c_and_d(name: str) -> None:
    stem = convolutions(on_meta(name).body.get_submodule("conv1"))
    assert [(layer.in_channels, layer.out_channels) for layer in stem] == [(3, 32), (32, 32), (32, 64)]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in stem] == [(3, 2), (3, 1), (3, 1)]


@pytest.mark.parametrize("depth", [18, 50])
def test_only_d_averages_before_the_convolution_of_a_shortcut(depth: int) -> None:
    for form in ("", "b", "c", "d"):
        shortcut = stage(f"resnet{depth}{form}", 3)[0].downsample
        pools = [layer for layer in shortcut if isinstance(layer, nn.AvgPool2d)]
        assert [(pool.kernel_size, pool.stride) for pool in pools] == ([(2, 2)] if form == "d" else [])
        assert convolutions(shortcut)[0].stride == ((1, 1) if form == "d" else (2, 2))


def test_every_depth_has_the_forms_of_its_name() -> None:
    import timm

    @lru_cache
    def of_timm(timm_name: str, options: tuple) -> tuple[int, str, int]:
        with torch.device("meta"):
            model = timm.create_model(timm_name, **dict(options))
        stem = len(convolutions(model.conv1))
        shortcuts = [key for key, _ in model.named_modules() if key.endswith("downsample")]
        # Shortcuts do not count, and a deep stem counts as one; the classifier counts.
        depth = len(convolutions(model)) - len(shortcuts) - stem + 2
        averaged = isinstance(model.layer2[0].downsample[0], nn.AvgPool2d)
        form = {(1, False): "b", (3, False): "c", (3, True): "d"}[stem, averaged]
        return depth, form, sum(parameter.numel() for parameter in model.parameters())

    # Parameters of B as published; the deep stem of C and D has 19,232 more.
    published = {18: 11_689_512, 26: 15_995_176, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
    for depth, parameters in published.items():
        for suffix, form, extra in (("", "b", 0), ("b", "b", 0), ("c", "c", 19_232), ("d", "d", 19_232)):
            timm_name, options = NAMES[f"resnet{depth}{suffix}"]
            assert of_timm(timm_name, tuple(options.items())) == (depth, form, parameters + extra)
    # The depths that He et al. 2015, table 1, build of bottlenecks, and timm's 26.
    assert sorted(STRIDE_FIRST) == ["resnet101", "resnet152", "resnet26", "resnet50"]


def test_original_form_dilated_is_its_strided_form_between_the_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A trous: with the same weights, every fourth cell at output stride 8 is a cell at 32. Also that a file loads.
    torch.manual_seed(0)
    strided = NamedBackbone("resnet50").eval()
    torch.save(strided.body.state_dict(), tmp_path / "original.pt")
    skip_initialization(monkeypatch)
    dilated = NamedBackbone("resnet50", weights=tmp_path / "original.pt", output_stride=8, out_strides=[8]).eval()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        coarse, fine = strided(images)[-1], dilated(images)[-1]
    assert fine.shape[2:] == (8, 12)
    assert coarse.std() > 0
    torch.testing.assert_close(fine[..., ::4, ::4], coarse, rtol=1e-3, atol=1e-4 * float(coarse.abs().max()))


@pytest.mark.parametrize(("name", "residual_blocks"), [("resnet18d", 8), ("darknet53", 1 + 2 + 8 + 8 + 4)])
def test_zero_gamma_zeroes_one_norm_a_residual_block(
    monkeypatch: pytest.MonkeyPatch, name: str, residual_blocks: int
) -> None:
    skip_initialization(monkeypatch)
    for zero_gamma, expected in ((False, 0), (True, residual_blocks)):
        backbone = NamedBackbone(name, zero_gamma=zero_gamma)
        gammas = [layer.weight for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
        zero = [bool((gamma == 0).all()) for gamma in gammas]
        assert sum(zero) == expected
        assert all((gamma == 1).all() for gamma, is_zero in zip(gammas, zero, strict=True) if not is_zero)


def test_zero_gamma_starts_a_block_as_the_identity() -> None:
    block = NamedBackbone("resnet18", zero_gamma=True).body.get_submodule("layer1.1").eval()
    features = torch.rand(1, 64, 5, 7)
    assert torch.equal(block(features.clone()), features)


def test_group_norm_has_16_channels_a_group() -> None:
    with torch.device("meta"):
        backbone = NamedBackbone("resnet50", norm="group")
    groups = [layer for layer in backbone.modules() if isinstance(layer, nn.GroupNorm)]
    assert len(groups) == 53  # one a convolution: stem, 16 blocks of three, 4 shortcuts
    assert {layer.num_channels // layer.num_groups for layer in groups} == {16}
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())


def test_split_for_c4_keeps_name_and_form() -> None:
    body, tail = on_meta("resnet50").split(16)
    assert (body.name, body.strides, tail.stride) == ("resnet50", (16,), 2)
    assert convolutions(tail)[0].stride == (2, 2)


def test_name_is_resolved_from_a_checkpoint_without_trust() -> None:
    from transfer.build import TRUSTED_MODULES, resolve

    assert resolve("backbones.named.NamedBackbone", trusted=TRUSTED_MODULES) is NamedBackbone


def test_densenet_is_densenet121() -> None:
    assert NAMES["densenet"] == NAMES["densenet121"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50dd", {}, "resnet50dd.*did you mean 'resnet50d'"),
        ("ResNet50", {}, "did you mean 'resnet50'"),
        ("vgg19", {"output_stride": 8}, "output_stride=8: vgg19 cannot be dilated to it.*it can do 32"),
        ("vgg19", {"zero_gamma": True}, "zero_gamma=True: vgg19 has no residual blocks"),
        ("resnet50", {"weights": "timm"}, "weights='timm'.*form B.*name='resnet50b'"),
        ("resnet101", {"weights": "torchvision:IMAGENET1K_V1"}, "form B.*name='resnet101b'"),
        ("resnet34c", {"weights": "timm:a1_in1k"}, "7x7 stem.*name='resnet34b'"),
    ],
)
def test_mistakes_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        NamedBackbone(name, **options)


@pytest.mark.parametrize("build", [TimmBackbone, lambda name, weights: NamedBackbone("resnet26b", weights=weights)])
def test_weights_of_the_original_form_are_refused_by_form_b_and_the_reverse(build: Any, tmp_path: Path) -> None:
    original, path = NamedBackbone("resnet26"), tmp_path / "original.pth"
    torch.save({"model": original.state_dict(), "backbone": original.describe()}, path)
    with pytest.raises(BackboneError, match="'stride-first' of resnet26"):
        build("resnet26", weights=path)
    assert NamedBackbone("resnet26", weights=path).form == "stride-first"
    form_b, other = NamedBackbone("resnet26b"), tmp_path / "b.pth"
    torch.save({"model": form_b.state_dict(), "backbone": form_b.describe()}, other)
    with pytest.raises(BackboneError, match="'published' of resnet26b"):
        NamedBackbone("resnet26", weights=other)
    assert build("resnet26", weights=other).form == "published"
    told_nothing = tmp_path / "plain.pth"
    torch.save(form_b.state_dict(), told_nothing)  # taken as it is
    assert NamedBackbone("resnet26", weights=told_nothing).form == "stride-first"
