"""Norm policies: what changes, what stays, and that fused activations survive."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional

from backbones.contract import BackboneError, wrap
from backbones.norms import (
    GroupNormAct2d,
    apply_norm_policy,
    batch_norms,
    channels_per_group,
    to_group_norm,
)
from backbones.timm_backbone import TimmBackbone


def _filled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A batch norm with values of its own."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 1.5, generator=generator)
    return norm


def test_channels_per_group() -> None:
    # The largest divisor that is at most 16.
    assert [channels_per_group(count) for count in (64, 32, 24, 40, 72, 8, 17, 1)] == [16, 16, 12, 10, 12, 8, 1, 1]


def test_group_norm_keeps_affine_values_and_the_fused_activation() -> None:
    fused = _filled(BatchNormAct2d(32, eps=1e-3, act_layer=nn.ReLU))
    features = torch.randn(2, 32, 5, 5)
    expected = functional.group_norm(features, 2, fused.weight, fused.bias, 1e-3).relu()
    torch.testing.assert_close(to_group_norm(fused)(features.clone()), expected)
    assert expected.min() == 0  # the activation acts on this input


def test_group_policy_leaves_no_batch_norm() -> None:
    for name in ("resnet10t", "mobilenetv3_small_050"):
        backbone = TimmBackbone(name, norm="group")
        assert not list(batch_norms(backbone))
        assert any(isinstance(layer, GroupNormAct2d) for layer in backbone.modules())
        image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
        alone, together = backbone(image), backbone(torch.cat([image, 255 - image]))
        torch.testing.assert_close(alone[-1], together[-1][:1], rtol=1e-4, atol=1e-4)  # no image sees another


def test_frozen_policy_keeps_statistics_and_affine_values() -> None:
    # zero_init_last would keep the gradient from the convolution before it.
    backbone = TimmBackbone("resnet10t", norm="frozen", model_options={"zero_init_last": False}).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in backbone.parameters() if p.requires_grad), lr=0.1)
    backbone(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))[-1].square().mean().backward()
    optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    norms = {name for name, layer in backbone.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    assert not {key for key in changed if key.rpartition(".")[0] in norms}
    assert {"body.conv1.0.weight", "body.layer4.0.conv2.weight"} <= changed


def test_batch_policy_moves_statistics() -> None:
    backbone = TimmBackbone("resnet10t", norm="batch").train()
    before = backbone.body.layer4[0].bn1.running_mean.clone()
    backbone(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert not torch.equal(backbone.body.layer4[0].bn1.running_mean, before)


def test_synchronized_is_plain_batch_norm_until_the_engine_replaces_it() -> None:
    # The engine's part: tests/engine/test_sync_bn.py.
    plain, synchronized = (TimmBackbone("test_resnet", norm=norm) for norm in ("batch", "synchronized"))
    assert [type(layer) for layer in plain.modules()][1:] == [type(layer) for layer in synchronized.modules()][1:]
    assert all(layer.training and layer.weight.requires_grad for layer in batch_norms(synchronized))
    assert len(list(batch_norms(synchronized))) > 5


def test_unknown_policy_is_named() -> None:
    with pytest.raises(BackboneError, match=r"norm='freeze'.*frozen"):
        apply_norm_policy(nn.BatchNorm2d(2), "freeze")
    with pytest.raises(BackboneError, match="norm='sync'"):
        TimmBackbone("resnet10t", norm="sync")


def test_a_lone_batch_norm_is_replaced() -> None:
    assert isinstance(apply_norm_policy(nn.BatchNorm2d(4), "group"), nn.GroupNorm)


def test_policy_applies_to_a_wrapped_module() -> None:
    module = apply_norm_policy(nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.BatchNorm2d(4)), "frozen")
    backbone = wrap(module)
    backbone.norm = "frozen"
    backbone.train()
    assert module[0].training
    assert not module[1].training
