"""Batch norm over two processes against torch's plain one on the whole batch.

Two processes are started once; they go through every scenario in the same order and write down what they got.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from toy_task import ALONE

from transfer.assemble import build_run
from transfer.engine.distributed import World, world
from transfer.engine.sync_bn import SynchronizedBatchNorm, synchronize
from transfer.engine.train import Event, Step, train
from transfer.types import UserError

FORKING = pytest.mark.skipif(
    sys.platform != "linux", reason="starts its processes by fork, which spares them the imports"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer, and a batch for it that is shared out to the processes."""

    layer: Callable[[], _BatchNorm] = lambda: nn.BatchNorm2d(3)
    split: tuple[int, int] = (3, 5)
    extent: tuple[int, ...] = (4, 5)
    """Of the input, after batch and channels."""
    dtype: torch.dtype = torch.float64
    """Of the input; the layer has at least float32."""
    mean: float = 2.0
    steps: int = 1
    channels_last: bool = False
    input_gradient: bool = True


CASES = {
    "even": Case(split=(4, 4)),
    "uneven": Case(),
    "first without images": Case(split=(0, 8)),
    "second without images": Case(split=(8, 0)),
    "one image each": Case(split=(1, 1), extent=(1, 1)),
    "vectors": Case(layer=lambda: nn.BatchNorm1d(3), extent=()),
    "sequences": Case(layer=lambda: nn.BatchNorm1d(3), extent=(7,)),
    "volumes": Case(layer=lambda: nn.BatchNorm3d(3), extent=(2, 3, 4)),
    "not affine": Case(layer=lambda: nn.BatchNorm2d(3, affine=False)),
    "not tracked": Case(layer=lambda: nn.BatchNorm2d(3, track_running_stats=False)),
    "cumulative average": Case(layer=lambda: nn.BatchNorm2d(3, momentum=None), steps=3),
    "three steps": Case(layer=lambda: nn.BatchNorm2d(3, momentum=0.3, eps=0.1), steps=3),
    "fused": Case(layer=lambda: BatchNormAct2d(3, act_layer=nn.SiLU)),  # in place, as is timm's default
    "fused with drop": Case(layer=lambda: BatchNormAct2d(3, act_layer=nn.SiLU, inplace=False, drop_layer=nn.Tanh)),
    "fused without activation": Case(layer=lambda: BatchNormAct2d(3, apply_act=False)),
    "channels last": Case(channels_last=True),
    "behind what is frozen": Case(input_gradient=False),
    "float32": Case(dtype=torch.float32),
    "float32, mean 10000": Case(dtype=torch.float32, mean=1e4, extent=(16, 16)),
    "bfloat16": Case(dtype=torch.bfloat16),
    "float16": Case(dtype=torch.float16),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Relative to max(1, value); of the half precisions, the distance of neighbouring numbers at 1."""


def filled(layer: _BatchNorm) -> _BatchNorm:
    """With values of its own."""
    generator = torch.Generator().manual_seed(5)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        if tensor is not None:
            tensor.data.uniform_(0.5, 1.5, generator=generator)
    return layer


def batch(case: Case, step: int) -> tuple[Tensor, Tensor]:
    """Inputs, and the gradients of the outputs, of the whole batch."""
    generator = torch.Generator().manual_seed(step)
    shape = (sum(case.split), 3, *case.extent)
    # Channels of their own spread; the samples' means differ, so that each process' statistics are far from the whole.
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    values += torch.randn(shape[0], 3, *[1] * len(case.extent), generator=generator, dtype=torch.float64)
    values = (values * torch.tensor([0.5, 1.0, 2.0]).view(1, 3, *[1] * len(case.extent)) + case.mean).to(case.dtype)
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64).to(case.dtype)
    return values, gradient


def run_case(case: Case, layer: nn.Module, samples: slice, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """What a layer makes of its samples: the last step's output and gradient, and all that it has gathered."""
    for step in range(case.steps):
        values, gradient = (tensor[samples].to(dtype or case.dtype) for tensor in batch(case, step))
        if case.channels_last:
            values = values.contiguous(memory_format=torch.channels_last)
        values.requires_grad_(case.input_gradient)
        output = layer(values)
        output.backward(gradient)
    if case.channels_last:
        assert output.is_contiguous(memory_format=torch.channels_last)
    found = {"output": output.detach(), **{f"grad {name}": p.grad for name, p in layer.named_parameters()}}
    if case.input_gradient:
        found["grad input"] = values.grad
    return {**found, **layer.state_dict()}


def own_samples(case: Case, rank: int) -> slice:
    return slice(0, case.split[0]) if rank == 0 else slice(case.split[0], None)


def prepared(case: Case) -> _BatchNorm:
    return filled(case.layer().to(torch.float64 if case.dtype == torch.float64 else torch.float32))


class Net(nn.Module):
    """Every kind of layer that a conversion meets: fused, plain, frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            BatchNormAct2d(4, act_layer=nn.Tanh),
            nn.Conv2d(4, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 4, 1),
        )
        self.frozen = filled(nn.BatchNorm2d(4)).requires_grad_(False)
        self.neck = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)
        self.double().train()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.neck(self.frozen(self.body(images)).mean(dim=(2, 3)))))

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        self.frozen.eval()
        return self


def trajectory(net: nn.Module, own: World, split: tuple[int, int]) -> dict[str, Any]:
    """Three steps of SGD; the loss is the mean over all images, whoever has them."""
    network = net if own.size == 1 else DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-3)
    samples = slice(None) if own.size == 1 else slice(0, split[0]) if own.rank == 0 else slice(split[0], None)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(sum(split), 3, 8, 8, generator=generator, dtype=torch.float64)
        wanted = torch.randn(sum(split), 2, generator=generator, dtype=torch.float64)
        errors = (network(images[samples]) - wanted[samples]).square()
        (errors.sum() * own.size / wanted.numel()).backward()  # DDP divides by the number of processes
        optimizer.step()
        optimizer.zero_grad()
    return net.state_dict()


def detector(config: dict[str, Any], own: World) -> dict[str, Any]:
    """Three steps of the tiny detector by the engine's own loop."""
    run, _, _ = build_run(copy.deepcopy(config), own)
    losses: list[dict[str, float]] = []

    def hook(event: Event) -> None:
        if isinstance(event, Step):
            losses.append(event.losses)

    train(run, lambda model: [], [hook])
    kinds = {type(layer).__name__ for layer in run.task.model.modules() if isinstance(layer, _BatchNorm)}
    return {"losses": losses, "model": run.task.model.state_dict(), "kinds": sorted(kinds)}


def without_any_image() -> dict[str, Any]:
    layer = SynchronizedBatchNorm(prepared(CASES["uneven"]))
    before = copy.deepcopy(layer.state_dict())
    values = torch.zeros(0, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    output = layer(values)
    output.sum().backward()
    kept = all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    return {"kept": kept, "shape": list(output.shape), "grads": [values.grad, layer.weight.grad, layer.bias.grad]}


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except (UserError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def out_of_step(rank: int) -> str:
    """Each process has another of two layers in eval mode."""
    layers = synchronize(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)), World(rank, 2, torch.device("cpu")))
    layers[rank].eval()
    return error_of(lambda: layers(torch.rand(2, 3, 4, 4)))


def collectives(rank: int) -> dict[str, Any]:
    """How many there are in training; and in eval mode, which only process 0 runs."""
    calls: list[str] = []
    originals = {name: getattr(dist, name) for name in ("all_gather", "all_reduce")}

    def counting(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return originals[name](*arguments)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        layer = SynchronizedBatchNorm(nn.BatchNorm2d(3))
        layer(torch.rand(2, 3, 4, 4, requires_grad=True)).sum().backward()
        training = calls.copy()
        layer.eval()
        if rank == 0:
            layer(torch.rand(2, 3, 4, 4, requires_grad=True)).sum().backward()
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
    return {"training": training, "eval": calls[len(training) :]}


def _worker(rank: int, port: int, config: dict[str, Any], folder: Path) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    with world("cpu") as own:
        found: dict[str, Any] = {
            name: run_case(case, synchronize(prepared(case), own), own_samples(case, rank))
            for name, case in CASES.items()
        }
        found["trajectories"] = [trajectory(synchronize(Net(), own), own, split) for split in ((3, 5), (8, 0))]
        found["detector"] = detector(config, own)
        found["no image at all"] = without_any_image()
        found["collectives"] = collectives(rank)
        layer = SynchronizedBatchNorm(nn.BatchNorm1d(3))
        found["one value"] = error_of(lambda: layer(torch.rand(1 - rank, 3)))
        found["out of step"] = out_of_step(rank)
    torch.save(found, folder / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def detector_config(_loaded_tiny_config: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(_loaded_tiny_config)
    config["model"]["backbone"]["norm"] = "synchronized"
    config["loader"]["batch_size"] = 4
    config["training"].update(epochs=None, iterations=3, evaluate_every=0)
    return config


@pytest.fixture(scope="module")
def ranks(detector_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_worker, args=(rank, port, detector_config, folder), daemon=True) for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def assert_near(found: Tensor, wanted: Tensor, tolerance: float, name: str) -> None:
    assert found.isfinite().all(), name
    torch.testing.assert_close(
        found.double(), wanted.double(), rtol=tolerance, atol=tolerance, msg=lambda text: f"{name}: {text}"
    )


@FORKING
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_plain_batch_norm_on_the_whole_batch(name: str, ranks: list[dict[str, Any]]) -> None:
    case, (first, second) = CASES[name], (rank[name] for rank in ranks)
    # Below float64, the reference computes in float64 from the same rounded inputs.
    wanted = run_case(case, prepared(case).double(), slice(None), torch.float64)
    assert first.keys() == wanted.keys()
    tolerance = TOLERANCES[case.dtype]
    for key, value in wanted.items():
        if key in ("output", "grad input"):
            assert first[key].dtype == case.dtype
            assert_near(torch.cat([first[key], second[key]]), value, tolerance, key)
        elif key.startswith("grad"):
            scale = sum(case.split) * max(1, torch.Size(case.extent).numel())  # a sum over that many values
            precision = min(tolerance, 1e-5)  # of float32: what half precision inputs are computed in
            assert_near((first[key] + second[key]) / scale, value / scale, precision, key)
        else:
            assert torch.equal(first[key], second[key]), f"{key} differs between the processes"
            # A mean of 10000 has no more digits after the point than float32 gives it.
            assert_near(first[key] / max(1, case.mean), value / max(1, case.mean), min(tolerance, 1e-5), key)


@FORKING
@pytest.mark.parametrize("which", [0, 1])
def test_three_steps_of_a_network_equal_one_process(which: int, ranks: list[dict[str, Any]]) -> None:
    split = ((3, 5), (8, 0))[which]
    wanted, start = trajectory(Net(), ALONE, split), Net().state_dict()
    first, second = (rank["trajectories"][which] for rank in ranks)
    assert list(first) == list(wanted)
    for name, value in wanted.items():
        assert torch.equal(first[name], second[name]), name
        assert_near(first[name], value, 1e-12, name)
        assert torch.equal(value, start[name]) == name.startswith("frozen."), f"{name}: the comparison says something"


@FORKING
def test_a_detector_trains_as_in_one_process(detector_config: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    wanted = detector(detector_config, ALONE)
    first, second = (rank["detector"] for rank in ranks)
    assert wanted["kinds"] == ["BatchNorm2d"]
    assert first["kinds"] == second["kinds"] == ["SynchronizedBatchNorm"]
    assert len(wanted["losses"]) == 3
    for one, two, single in zip(first["losses"], second["losses"], wanted["losses"]):
        assert {name: (one[name] + two[name]) / 2 for name in single} == pytest.approx(single, abs=1e-4)
    for name, value in wanted["model"].items():
        assert_near(first["model"][name], value, 1e-3, name)


@FORKING
def test_a_batch_that_is_empty_everywhere_leaves_no_trace(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        found = rank["no image at all"]
        assert found["kept"]
        assert found["shape"] == [0, 3, 4, 5]
        assert [tensor.tolist() for tensor in found["grads"]] == [[], [0.0] * 3, [0.0] * 3]


@FORKING
def test_one_collective_a_pass_and_none_in_eval_mode(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:  # process 0 ran its eval mode alone: it would have waited otherwise
        assert rank["collectives"] == {"training": ["all_gather", "all_reduce"], "eval": []}


@FORKING
def test_mistakes_are_found_on_both_processes(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["one value"].startswith("UserError: a batch norm of 3 channels has one value a channel")
        assert rank["out of step"].startswith("AssertionError: processes are in different batch norms (numbers [1, 0])")


def test_gradients_with_another_process_in_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against finite differences; the other process holds five values a channel, and no loss."""
    means, squares = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([3.0, 1.0, 7.0])

    def gather(parts: list[Tensor], own: Tensor) -> None:
        parts[0].copy_(own)
        parts[1].copy_(torch.cat([own[:1], torch.tensor([5.0]), means, squares]))

    for name, stand_in in {
        "is_initialized": lambda: True,
        "get_world_size": lambda: 2,
        "all_gather": gather,
        "all_reduce": lambda own: None,
    }.items():
        monkeypatch.setattr(dist, name, stand_in)
    layer = SynchronizedBatchNorm(prepared(CASES["uneven"]))
    values = batch(CASES["uneven"], 0)[0][:2].requires_grad_()
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in (layer.weight, layer.bias))

    def call(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (values,))

    assert torch.autograd.gradcheck(call, (values, weight, bias))


def test_alone_it_is_plain_batch_norm() -> None:
    """Without a process group: a checkpoint's model that was not unwrapped, for one."""
    plain = filled(BatchNormAct2d(3, act_layer=nn.SiLU))
    layer = synchronize(copy.deepcopy(plain), World(0, 2, torch.device("cpu")))
    values = torch.randn(4, 3, 2, 2)
    for mode in (True, False):
        torch.testing.assert_close(layer.train(mode)(values), plain.train(mode)(values), rtol=0, atol=0)
    for name, value in plain.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value)
    with pytest.raises(ValueError, match="got 1 dimensions"):
        layer(torch.zeros(3))
