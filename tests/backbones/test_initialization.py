"""Starts: the papers' formulas, on every kind of layer, drawn from torch's generator alone."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones.errors import BackboneError
from backbones.initialization import initialize


class Layers(nn.Module):
    """One of each kind; large enough for their spread to be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 64, 3)
        self.depthwise = nn.Conv2d(1024, 1024, 3, groups=1024)
        self.grouped = nn.Conv2d(64, 128, 3, groups=4, bias=False)
        self.linear = nn.Linear(300, 100)
        self.batch_norm = nn.BatchNorm2d(8)
        self.group_norm = nn.GroupNorm(2, 8)
        self.layer_norm = nn.LayerNorm(8)
        self.without = nn.BatchNorm2d(8, affine=False)
        self.scale = nn.Parameter(torch.full((8,), 0.25))
        for parameter in self.parameters():
            if parameter is not self.scale:
                nn.init.constant_(parameter, 7.0)
        self.batch_norm.running_mean.fill_(7.0)  # type: ignore[union-attr]


def _values(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight").detach()


# By hand: a = sqrt(6 / (d_in + d_out)), d = channels x cells of the kernel as the shape of the weight has them.
@pytest.mark.parametrize(
    ("name", "d_in", "d_out"),
    [
        ("conv", 32 * 9, 64 * 9),
        ("linear", 300, 100),
        ("grouped", 16 * 9, 128 * 9),
        ("depthwise", 1 * 9, 1024 * 9),
    ],
)
def test_xavier_is_uniform_up_to_the_paper_s_bound(name: str, d_in: int, d_out: int) -> None:
    torch.manual_seed(0)
    layers = Layers()
    initialize(layers, "xavier")
    values, bound = _values(layers.get_submodule(name)), math.sqrt(6 / (d_in + d_out))
    assert 0.995 * bound < float(values.max()) <= bound
    assert -bound <= float(values.min()) < -0.995 * bound
    assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)


# He's standard deviation by hand: sqrt(2 / d_out), d_out the outputs that one input reaches.
@pytest.mark.parametrize(
    ("name", "d_out"),
    [("conv", 64 * 9), ("linear", 100), ("grouped", 128 // 4 * 9), ("depthwise", 9)],
)
def test_kaiming_is_normal_with_the_paper_s_deviation(name: str, d_out: int) -> None:
    torch.manual_seed(0)
    layers = Layers()
    initialize(layers, "kaiming")
    values, deviation = _values(layers.get_submodule(name)), math.sqrt(2 / d_out)
    assert float(values.std()) == pytest.approx(deviation, rel=0.03)
    assert float((values.abs() < deviation).float().mean()) == pytest.approx(0.6827, abs=0.02)


def test_without_groups_they_are_torch_s_own() -> None:
    for kind, reference in (
        ("xavier", nn.init.xavier_uniform_),
        ("kaiming", lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")),
    ):
        layer = nn.Conv2d(5, 7, 3)
        torch.manual_seed(11)
        initialize(layer, kind)
        torch.manual_seed(11)
        torch.testing.assert_close(layer.weight, reference(torch.empty(7, 5, 3, 3)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["xavier", "kaiming"])
def test_biases_and_norms_start_neutral_and_the_rest_stays(kind: str) -> None:
    layers = Layers()
    initialize(layers, kind)
    for name, value in layers.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            assert not value.any(), name
        elif "norm.weight" in name or name.endswith("running_var"):
            assert (value == 1).all(), name
    assert (layers.scale == 0.25).all()
    assert not any((_values(layers.get_submodule(name)) == 7).any() for name in ("conv", "depthwise", "linear"))


def test_kaiming_of_a_mobile_network_has_timm_s_spread() -> None:
    def depthwise_spread(body: nn.Module) -> Tensor:
        wide = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 100]
        return torch.stack([_values(layer).std() for layer in wide])

    torch.manual_seed(0)
    body = timm.create_model("mobilenetv3_small_100", num_classes=0)
    published = depthwise_spread(body)
    assert len(published) > 3
    initialize(body, "kaiming")
    torch.testing.assert_close(depthwise_spread(body), published, rtol=0.1, atol=0)


def test_the_seed_alone_decides() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        layers = Layers()
        torch.manual_seed(seed)
        initialize(layers, "kaiming")
        drawn.append(layers.state_dict())
    assert all(torch.equal(value, drawn[1][key]) for key, value in drawn[0].items())
    assert not torch.equal(drawn[0]["conv.weight"], drawn[2]["conv.weight"])


@pytest.mark.parametrize(
    ("kind", "words"), [("xavir", "init='xavir' .*did you mean 'xavier'"), ("zeros", "none of xavier, kaiming")]
)
def test_mistakes_are_named(kind: str, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        initialize(nn.Conv2d(1, 1, 1), kind)
