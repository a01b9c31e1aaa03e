"""Which batch norms are replaced, by which form, and what a replacement keeps."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d, SplitBatchNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from toy_task import ALONE

from backbones.timm_backbone import TimmBackbone
from transfer.assemble import build_run
from transfer.engine.distributed import World
from transfer.engine.sync_bn import SynchronizedBatchNorm, lone_statistics, synchronize
from transfer.optim.ema import EMA
from transfer.types import UserError

ON_CPU, ON_CUDA = World(0, 2, torch.device("cpu")), World(0, 2, torch.device("cuda", 0))


def small_net() -> nn.Sequential:
    """Two batch norms that learn, the first fused with its activation, and a frozen one."""
    torch.manual_seed(0)
    return nn.Sequential(BatchNormAct2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4).requires_grad_(False))


@pytest.mark.parametrize("here", [ON_CPU, ON_CUDA])
def test_which_form_is_chosen(here: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    backbone = TimmBackbone("mobilenetv3_small_050", norm="synchronized", frozen_stages=1)
    before = dict(backbone.named_modules())
    wanted = torch.nn.SyncBatchNorm if here.device.type == "cuda" else SynchronizedBatchNorm
    assert synchronize(backbone, here) is backbone
    chosen = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, wanted)}
    frozen = [name for name, layer in backbone.named_modules() if type(layer) is nn.BatchNorm2d]  # the stem's
    assert frozen
    assert {type(before[name]) for name in chosen} == {BatchNormAct2d}
    assert all(name.startswith(backbone.frozen_modules) for name in frozen)
    assert len(chosen) + len(frozen) == sum(isinstance(layer, _BatchNorm) for layer in before.values())
    for name, layer in chosen.items():
        assert (layer.act, layer.drop) == (before[name].act, before[name].drop)
        assert [id(p) for p in layer.parameters()] == [id(p) for p in before[name].parameters()]
        assert [id(b) for b in layer.buffers()] == [id(b) for b in before[name].buffers()]
    form = "torch's SyncBatchNorm on CUDA" if here is ON_CUDA else "this project's form for CPU processes"
    assert f"{len(chosen)} layers synchronized over 2 processes ({form}), {len(frozen)} frozen" in caplog.text
    after = dict(backbone.named_modules())
    synchronize(backbone, here)
    assert dict(backbone.named_modules()) == after  # nothing is left to do


def test_one_process_keeps_plain_batch_norm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    net = small_net()
    before = dict(net.named_modules())
    assert synchronize(net, ALONE) is net
    assert dict(net.named_modules()) == before
    assert "one process" in caplog.text


def test_checkpoints_load_into_either_form() -> None:
    plain, synchronized = small_net(), synchronize(small_net(), ON_CPU)
    for parameter in plain.parameters():
        parameter.data += 1
    assert list(synchronized.state_dict()) == list(plain.state_dict())
    synchronized.load_state_dict(plain.state_dict())
    again = small_net()
    again.load_state_dict(synchronized.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_its_moving_average_has_tensors_of_its_own() -> None:
    net = synchronize(small_net(), ON_CPU)
    average = EMA(net, decay=0.5, warm_up=0)
    net[1].running_mean += 1
    average.update(net)
    assert average.module[1].running_mean.tolist() == [0.5] * 4
    assert net[1].running_mean.tolist() == [1.0] * 4


@pytest.mark.parametrize("here", [ON_CPU, ON_CUDA])
def test_a_split_backbone_shares_its_replacements(here: World) -> None:
    backbone = TimmBackbone("resnet10t", norm="synchronized", frozen_stages=2)
    body, tail = backbone.split(16)
    model = nn.ModuleDict({"backbone": backbone, "body": body, "tail": tail})
    synchronize(model, here).train()
    whole = [layer for layer in backbone.modules() if isinstance(layer, _BatchNorm)]
    parts = [layer for part in (body, tail) for layer in part.modules() if isinstance(layer, _BatchNorm)]
    assert [id(layer) for layer in whole] == [id(layer) for layer in parts]
    frozen = [layer for layer in whole if not layer.weight.requires_grad]
    assert frozen
    assert all(type(layer) is nn.BatchNorm2d and not layer.training for layer in frozen)
    assert all(type(layer) is not nn.BatchNorm2d and layer.training for layer in whole if layer not in frozen)


def test_a_norm_with_a_forward_of_its_own_is_refused_by_name() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), SplitBatchNorm2d(3), SplitBatchNorm2d(3).requires_grad_(False))
    net[2].aux_bn.requires_grad_(False)
    with pytest.raises(UserError, match=r"1 \(SplitBatchNorm2d\).*'frozen' or 'batch'"):
        synchronize(net, ON_CPU)
    assert type(net[0]) is nn.BatchNorm2d  # nothing was changed


def test_lone_statistics_are_counted() -> None:
    net = small_net()
    assert lone_statistics(net) == 2  # the third is frozen
    assert lone_statistics(synchronize(net, ON_CPU)) == 0


@pytest.mark.parametrize(("norm", "kind"), [("synchronized", SynchronizedBatchNorm), ("batch", nn.BatchNorm2d)])
def test_a_run_follows_its_backbone(
    norm: str, kind: type, tiny_config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    tiny_config["model"]["backbone"]["norm"] = norm
    run, _, _ = build_run(tiny_config, ON_CPU)
    assert {type(layer) for layer in run.task.model.modules() if isinstance(layer, _BatchNorm)} == {kind}
    assert ("train on the images of their own process only" in caplog.text) == (norm == "batch")
    assert ("layers synchronized over 2 processes" in caplog.text) == (norm == "synchronized")
    optimized = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    assert {id(p) for p in run.task.model.parameters() if p.requires_grad} == optimized
