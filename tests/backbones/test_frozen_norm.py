"""Batch norm at rest, against torch's own in eval mode."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from backbones.frozen_norm import FrozenBatchNorm2d, FrozenBatchNormAct2d, rest_batch_norms
from backbones.timm_backbone import TimmBackbone


def layer_of(kind: type[nn.BatchNorm2d], channels: int = 5) -> nn.BatchNorm2d:
    """A norm with values of its own, at rest as `backbones.norms` leaves it."""
    layer, generator = kind(channels), torch.Generator().manual_seed(0)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        assert tensor is not None
        tensor.data = torch.rand(channels, generator=generator) + 0.5
    return layer.eval().requires_grad_(False)


def maps_of(channels: int = 5) -> Tensor:
    return torch.randn(2, channels, 6, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_values_are_torchs_bit_for_bit_and_gradients_to_rounding(
    kind: type[nn.BatchNorm2d], layout: torch.memory_format
) -> None:
    plain, resting = layer_of(kind), nn.Sequential(layer_of(kind))
    rest_batch_norms(resting)
    slopes = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(2))
    results = []
    for network in (plain, resting):
        maps = maps_of()
        output = network(maps.to(memory_format=layout) * 1)
        assert output.is_contiguous(memory_format=layout)
        results.append((output, *torch.autograd.grad(output, maps, slopes)))
    (wanted, right), (got, slope) = results
    assert torch.equal(got, wanted)
    assert wanted.min() < 0 or kind is BatchNormAct2d  # there the activation takes part
    torch.testing.assert_close(slope, right)


def kept_bytes(network: nn.Module) -> int:
    """What the forward pass keeps for the backward pass beside parameters and input."""
    own = {tensor.data_ptr() for tensor in network.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(maps_of())
    return sum(kept.values())


def test_of_convolution_norm_and_activation_only_one_map_is_kept() -> None:
    plain = nn.Sequential(nn.Conv2d(5, 8, 1, bias=False), layer_of(nn.BatchNorm2d, 8), nn.ReLU(inplace=True))
    resting = copy.deepcopy(plain)
    rest_batch_norms(resting)
    assert isinstance(resting[1], FrozenBatchNorm2d)
    one_map, factor, image = 2 * 8 * 6 * 7 * 4, 8 * 4, 2 * 5 * 6 * 7 * 4
    assert kept_bytes(resting) == image + one_map + factor
    assert kept_bytes(plain) >= image + 2 * one_map


def test_a_layer_that_is_not_at_rest_is_plain_batch_norm() -> None:
    layer = layer_of(nn.BatchNorm2d)
    rest_batch_norms(layer)
    before = layer.running_mean.clone()  # type: ignore[union-attr]
    layer.requires_grad_(True)
    layer(maps_of()).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.running_mean, before)  # type: ignore[arg-type]
    layer.train()(maps_of())
    assert not torch.equal(layer.running_mean, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_one_affine_value_that_is_trained_has_its_gradient(trained: str) -> None:
    layers = [layer_of(nn.BatchNorm2d), nn.Sequential(layer_of(nn.BatchNorm2d))]
    rest_batch_norms(layers[1])
    slopes = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(2))
    gradients = []
    for layer in (layers[0], layers[1][0]):  # type: ignore[index]
        getattr(layer, trained).requires_grad_(True)
        layer(maps_of()).backward(slopes)
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for right, got in zip(*gradients, strict=True):
        assert (right is None) == (got is None)
        if right is not None:
            torch.testing.assert_close(got, right)
    assert any(each is not None for each in gradients[0])


def test_a_gradient_of_the_gradient_is_refused() -> None:
    layer = layer_of(nn.BatchNorm2d)
    rest_batch_norms(nn.Sequential(layer))
    maps = maps_of()
    (slope,) = torch.autograd.grad(layer(maps).square().sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_a_backbone_of_frozen_norm_trains_as_with_plain_batch_norm() -> None:
    torch.manual_seed(0)
    resting = TimmBackbone("efficientnet_lite0", norm="frozen", frozen_stages=1).train()
    kinds = {type(layer) for layer in resting.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert kinds == {FrozenBatchNormAct2d}
    plain = copy.deepcopy(resting)
    for layer in plain.modules():
        if isinstance(layer, FrozenBatchNormAct2d):
            layer.__class__ = BatchNormAct2d
    assert list(plain.state_dict()) == list(resting.state_dict())
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    for network in (plain, resting):
        torch.stack([x.square().mean() for x in network(image)]).sum().backward()
    for (name, wanted), got in zip(plain.named_parameters(), resting.parameters(), strict=True):
        assert (got.grad is None) == (wanted.grad is None), name
        if got.grad is not None:
            torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_nothing_is_kept_of_frozen_stages() -> None:
    """All four levels frozen but the last: no graph of what lies below."""
    backbone = TimmBackbone("resnet10t", norm="frozen", frozen_stages=4).train()
    maps = backbone(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    assert [x.requires_grad for x in maps] == [False, False, False, True]
