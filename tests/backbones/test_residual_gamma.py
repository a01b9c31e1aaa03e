"""Zero gamma: each residual block starts as its shortcut, and only the norm at the end of its branch is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones.contract import wrap
from backbones.errors import BackboneError
from backbones.named import NamedBackbone
from backbones.residual_gamma import zero_residual_gammas


def _on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0)


# ---- which norms ----


@pytest.mark.parametrize(
    ("name", "blocks", "last"),
    [
        ("resnet18", 8, "bn2"),
        ("resnet50", 16, "bn3"),
        ("resnet50d", 16, "bn3"),  # pooling and a projection in the shortcut
        ("resnext50_32x4d", 16, "bn3"),
        ("wide_resnet50_2", 16, "bn3"),
        ("seresnet50", 16, "bn3"),  # squeeze and excitation between norm and addition
        ("res2net50_26w_4s", 16, "bn3"),  # additions within the branch
        ("regnetx_002", 13, "conv3.bn"),
        ("regnety_002", 13, "conv3.bn"),
        ("mobilenetv2_050", 10, "bn3"),  # of 17 blocks, the ten that keep the map's shape
        ("mobilenetv3_small_050", 7, "bn3"),
        ("efficientnet_lite0", 9, "bn3"),
        ("darknet53", 1 + 2 + 8 + 8 + 4, "conv2.bn"),  # a leaky ReLU behind the norm
        ("cspdarknet53", 1 + 2 + 8 + 8 + 4, "conv2.bn"),
        ("resnet50_gn", 16, "bn3"),  # group norm
        ("hrnet_w18_small", 4 + 4 + 7 + 8, ""),  # not where its resolutions are added up
    ],
)
def test_one_norm_of_each_residual_block(name: str, blocks: int, last: str) -> None:
    names = zero_residual_gammas(_on_meta(name))
    assert len(names) == len(set(names)) == blocks
    assert all(key.endswith(f"{last}.weight") and "downsample" not in key for key in names)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vgg11_bn", "vgg11_bn has no residual blocks"),
        ("densenet121", "densenet121 has no residual blocks"),
        ("inception_v3", "inception_v3 has no residual blocks"),
        ("mobilenetv1_100", "mobilenetv1_100 has no residual blocks"),
        ("legacy_seresnet18", "legacy_seresnet18 ends in a norm .* but in a ReLU"),
        ("resnetv2_50", "resnetv2_50 ends in a norm .* but in a convolution"),
        ("convnext_atto", "convnext_atto ends in a norm .* but in a convolution"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224 ends in a norm .* but in a linear layer"),
        ("repvgg_a0", "repvgg_a0 ends in a norm .* but in a sum of several branches"),
    ],
)
def test_networks_without_such_norms_are_named(name: str, words: str) -> None:
    with pytest.raises(BackboneError, match=f"zero_gamma=True: .*{words}.*leave it out"):
        zero_residual_gammas(_on_meta(name))


# ---- the block is its shortcut ----


def _projected(block: Any, x: Tensor) -> Tensor:
    return torch.relu(x if block.downsample is None else block.downsample(x))


def _kept(block: Any, x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(
    ("name", "kinds", "shortcut"),
    [
        ("resnet10t", ("BasicBlock",), _projected),
        ("test_resnet", ("BasicBlock", "Bottleneck"), _projected),
        ("resnet26d", ("Bottleneck",), _projected),
        ("seresnet18", ("BasicBlock",), _projected),
        ("regnety_002", ("Bottleneck",), _projected),
        ("mobilenetv2_050", ("InvertedResidual", "DepthwiseSeparableConv"), _kept),
        ("mobilenetv3_small_050", ("InvertedResidual", "DepthwiseSeparableConv"), _kept),
        ("efficientnet_lite0", ("InvertedResidual", "DepthwiseSeparableConv"), _kept),
        ("darknet17", ("DarkBlock",), _kept),
    ],
)
def test_every_block_starts_as_its_shortcut(
    name: str, kinds: tuple[str, ...], shortcut: Callable[[Any, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    body = timm.create_model(name, num_classes=0).eval()
    for layer in body.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)  # timm starts some families at zero already
    blocks = [block for block in body.modules() if type(block).__name__ in kinds and getattr(block, "has_skip", True)]
    assert blocks
    seen = []
    handles = [
        block.register_forward_hook(lambda block, inputs, output: seen.append((block, inputs[0].clone(), output)))
        for block in blocks
    ]
    before = {key: value.clone() for key, value in body.state_dict().items()}
    names = zero_residual_gammas(body)
    changed = {key for key, value in body.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == set(names)
    assert len(names) == len(blocks)
    seen.clear()
    with torch.no_grad():
        body(torch.rand(2, 3, 64, 64))
        for handle in handles:
            handle.remove()
        assert len(seen) == len(blocks)
        for block, inputs, output in seen:
            expected = shortcut(block, inputs)
            assert expected.any()
            torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "darknet17", "regnety_002"])
def test_every_gamma_that_starts_at_zero_can_leave_it(name: str) -> None:
    torch.manual_seed(0)
    body = timm.create_model(name, num_classes=0).train()
    names = zero_residual_gammas(body)
    body(torch.rand(2, 3, 64, 64)).square().sum().backward()
    for key in names:
        gradient = body.get_parameter(key).grad
        assert gradient is not None, key
        assert gradient.any(), key


@pytest.mark.parametrize("name", ["resnet18d", "test_resnet", "darknet17", "regnetx_002"])
def test_it_is_timm_s_option_where_there_is_one(name: str) -> None:
    states = []
    for zero_init_last in (True, False):
        torch.manual_seed(2)
        states.append(timm.create_model(name, num_classes=0, zero_init_last=zero_init_last))
    zero_residual_gammas(states[1])
    expected, found = (body.state_dict() for body in states)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_it_is_what_the_papers_names_do() -> None:
    torch.manual_seed(4)
    by_name = NamedBackbone("resnet18", zero_gamma=True).body.state_dict()
    torch.manual_seed(4)
    other = NamedBackbone("resnet18")
    assert len(zero_residual_gammas(other.body)) == 8
    assert all(torch.equal(value, by_name[key]) for key, value in other.body.state_dict().items())


# ---- blocks made by hand ----


class Block(nn.Module):
    """A branch of `layers` and a shortcut, then an activation."""

    def __init__(self, layers: list[nn.Module], shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.Sequential(*layers)
        self.shortcut = shortcut or nn.Identity()
        self.plain = torch.zeros(1)  # no buffer: this network cannot run without values

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images) + self.plain
        return torch.relu(self.layers(x) + self.shortcut(x))


def _conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1)


def test_where_both_end_in_a_norm_the_longer_one_is_the_branch() -> None:
    short = nn.Sequential(_conv(), nn.BatchNorm2d(4))
    long: list[nn.Module] = [_conv(), nn.BatchNorm2d(4), nn.ReLU(), _conv(), nn.BatchNorm2d(4)]
    network = wrap(Block(long, short), channels=[4], strides=[1]).train()
    network.body.requires_grad_(False)  # frozen layers have a branch, too
    assert zero_residual_gammas(network) == ["body.layers.4.weight"]
    assert network.body.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert (short[1].weight == 1).all()


@pytest.mark.parametrize(
    ("layers", "shortcut", "words"),
    [
        ([_conv(), nn.BatchNorm2d(4), nn.ReLU()], None, "a ReLU, which would keep gamma at zero for good"),
        ([_conv(), nn.BatchNorm2d(4), nn.ReLU6()], None, "a ReLU6, which would keep gamma at zero for good"),
        ([_conv(), nn.BatchNorm2d(4, affine=False)], None, "ends in a norm with weights"),
        ([nn.BatchNorm2d(4), nn.ReLU(), _conv()], None, "a convolution"),
        ([_conv(), nn.BatchNorm2d(4)], nn.Sequential(_conv(), nn.BatchNorm2d(4)), "own net has no residual blocks"),
    ],
)
def test_what_could_not_be_the_identity_is_refused(layers: list, shortcut: nn.Module | None, words: str) -> None:
    network = Block(layers, shortcut)
    with pytest.raises(BackboneError, match=words):
        zero_residual_gammas(network, name="own net")
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]
    assert all((layer.weight == 1).all() for layer in norms)
