#!/usr/bin/env python
"""Training speed of this project's YOLOv3 beside the public trainer pytorchyolo (PyTorch-YOLOv3).

    PYTHONPATH=PEER python benchmarks/yolov3_vs_pytorchyolo.py --data FOLDER --threads 1

FOLDER is in VOC's layout. PEER is a folder that holds the peer; without it, the message says how to fill one.

Cases: `darknet53_320` and `darknet17_416` are one network on both sides, layer by layer: the peer reads a configuration
written from this project's model and gets its weights; its raw output is compared with ours before anything is timed.
`light_416` is what each side offers for a CPU: EfficientNet-Lite0 with a neck of a quarter of the width (three levels)
and yolov3-tiny (two levels), so parameters and multiply-adds stand beside the figures. All parameters are trained.

Measured in rounds that take the two sides in turn, in one process: `step`, the training step alone (forward, loss,
backward, optimizer) on batches in memory, the same images and boxes for both; `loader`, the step with each side's own
loading and augmentation in one worker process; `loading`, that alone, in the main process. Optimizer and images a batch
are the same. What is not: the loss (ours compares every slot with every box, to ignore some; the peer's does not, but
gives a box to up to nine slots), and the images: ours come as uint8 and are normalised within the step, the peer's
loader has scaled them to floats before. Neither side logs, measures or saves anything.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorchyolo_peer as peer
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backbones.named import NamedBackbone
from transfer.assemble import build_run, set_data_root
from transfer.build import load_config
from transfer.cli import run
from transfer.convert.convert import convert
from transfer.engine.distributed import World
from transfer.engine.task import DetectionTask
from transfer.engine.workers import batches_of
from transfer.heads.yolov3 import YOLOv3, yolov3
from transfer.types import Batch

CONFIG = "configs/voc_folder_yolov3_lite0.py"
PUBLISHED_PARAMETERS = 61_949_149
"""Of YOLOv3 with Darknet-53 and 80 classes."""
IN_MEMORY = 4
"""Batches that the timed steps take in turn."""
WHAT = ("step", "loader", "loading")


@dataclass(frozen=True)
class Case:
    """Two networks to be compared."""

    backbone: str
    width: float
    size: int
    batch: int
    tiny: bool = False
    """Whether the peer's network is yolov3-tiny; otherwise it is the same as ours."""


CASES = {
    "darknet53_320": Case("darknet53", 1.0, 320, 4),
    "darknet17_416": Case("darknet17", 0.25, 416, 8),
    "light_416": Case("tf_efficientnet_lite0", 0.25, 416, 8, tiny=True),
}


@dataclass
class Side:
    """One trainer, ready to be timed; a batch has the form that it wants."""

    name: str
    network: str
    model: nn.Module
    loss: Callable[[Any], Tensor]
    in_memory: Sequence[Any]
    loading: Callable[[int, int], AbstractContextManager[Iterator[Any]]]
    """(worker processes, number of the first batch) -> batches."""
    optimizer: torch.optim.Optimizer
    multiply_adds: int
    """Of one image, forward."""
    losses: list[float] = field(default_factory=list)

    def step(self, batch: Any) -> None:
        """A training step; the loss goes to the host, as in both trainers."""
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(float(loss.detach()))


class Bare(nn.Module):
    """Our network from normalised images to raw numbers, as the peer's is."""

    def __init__(self, model: YOLOv3) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] float -> [B, N, 5 + K]."""
        features = self.model.backbone.features(images)
        return self.model.head(self.model.neck([features[level] for level in self.model.levels]))


def multiply_adds(model: nn.Module, size: int) -> int:
    """Of the convolutions, for one image forward; the model is left in training mode."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, 3, size, size))
    model.train()
    return counter.get_total_flops() // 2


def optimizer_of(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """The same for both; lrs so small that random weights do not end in infinity, however many steps are taken."""
    if name == "adam":
        return torch.optim.Adam(model.parameters(), lr=1e-5)
    return torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.9)


def our_side(case: Case, options: argparse.Namespace) -> Side:
    """This project's trainer, from one of its configs."""
    backbone = {"type": "backbones.timm_backbone.TimmBackbone", "name": case.backbone, "weights": None, "norm": "batch"}
    changes = [f"model.backbone={backbone!r}", f"model.width={case.width}", f"loader.batch_size={case.batch}"]
    changes += [f"augment.train.size={case.size}", "data.val=None", "training.epochs=10000"]
    changes += [f"data.{part}.splits={options.split!r}" for part in ("train", "test")]
    makers = []
    for workers in (0, 1):
        config = load_config(CONFIG, [*changes, f"loader.workers={workers}"])
        set_data_root(config, options.data)
        made, _, _ = build_run(config, World(0, 1, torch.device("cpu")))
        makers.append(made.batches)
    task = made.task
    for module in task.model.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1  # Darknet's; timm's darknets have torch's 0.01
    with batches_of(makers[0](0)) as batches:
        in_memory = [next(batches) for _ in range(IN_MEMORY)]
    assert isinstance(task.model, YOLOv3)
    return Side(
        name="trickstack",
        network=f"YOLOv3 on {case.backbone}, neck width {case.width:g}",
        model=task.model,
        loss=partial(_our_loss, task),
        in_memory=in_memory,
        loading=lambda workers, first: batches_of(makers[workers](first)),
        optimizer=optimizer_of(task.model, options.optimizer),
        multiply_adds=multiply_adds(Bare(task.model), case.size),
    )


def _our_loss(task: DetectionTask, batch: Batch) -> Tensor:
    return torch.stack(list(task.losses(task.model, batch).values())).sum()


def peer_side(case: Case, ours: Side, options: argparse.Namespace, folder: Path, list_file: Path) -> Side:
    """The peer's trainer on the images that ours has in memory."""
    assert isinstance(ours.model, YOLOv3)
    num_classes = ours.model.head.outputs[0].out_channels // 3 - 5  # type: ignore[index, union-attr]
    sections = peer.yolov3_tiny(num_classes) if case.tiny else peer.sections_of(ours.model)
    model = peer.network(sections, folder, size=case.size, batch=case.batch, optimizer=options.optimizer)
    compute_loss = peer.load("utils.loss").compute_loss
    in_memory = [(batch.images.float() / 255, peer.truth_of(batch.targets)) for batch in ours.in_memory]
    if not case.tiny:
        _check_same_output(ours.model, model, ours.in_memory[0])
    return Side(
        name=f"pytorchyolo {peer.VERSION}",
        network="yolov3-tiny" if case.tiny else "the same",
        model=model,
        loss=lambda batch: compute_loss(model(batch[0]), batch[1], model)[0],
        in_memory=in_memory,
        loading=lambda workers, first: closing(
            peer.batches(list_file, batch=case.batch, size=case.size, workers=workers)
        ),
        optimizer=optimizer_of(model, options.optimizer),
        multiply_adds=multiply_adds(model, case.size),
    )


@torch.no_grad()
def _check_same_output(ours: YOLOv3, theirs: nn.Module, batch: Batch) -> None:
    """Both networks on one batch, in training mode, with the same weights."""
    images = ours.backbone.normalize(batch.images[:2])
    expected, found = Bare(ours.train())(images), peer.raw_like_ours(theirs.train()(images))
    largest = float((found - expected).abs().max())
    scale = float(expected.abs().max())
    print(f"raw outputs on the same weights and images: largest difference {largest:.1e} of {scale:.1f}", flush=True)
    assert largest < 1e-3 * scale, "the peer's network is not ours"


def check_parameters(folder: Path) -> None:
    """The configuration that is written of Darknet-53 with 80 classes has the published number of parameters."""
    with torch.device("meta"):
        model = yolov3(NamedBackbone("darknet53", weights=None), 80)
        theirs = peer.network(peer.sections_of(model), folder, size=416, batch=1, optimizer="adam", copy=False)
    found = parameters_of(theirs)
    assert found == PUBLISHED_PARAMETERS, f"{found} parameters, published are {PUBLISHED_PARAMETERS}"
    print(f"the configuration written of Darknet-53 with 80 classes: {found:,} parameters, as published")


def parameters_of(model: nn.Module) -> int:
    """All that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@dataclass
class Times:
    """What was taken of some batches."""

    images: int = 0
    wall: float = 0.0
    process: float = 0.0
    waiting: float = 0.0


def timed_steps(side: Side, what: str, steps: int, first: int) -> Times:
    """One untimed batch, then `steps` timed ones. Args: first: number of the first batch, of those of a loader."""
    times = Times()
    if what == "step":
        made: AbstractContextManager[Iterator[Any]] = closing(
            side.in_memory[step % len(side.in_memory)] for step in range(first, first + steps + 1)
        )
    else:
        made = side.loading(1 if what == "loader" else 0, first)
    with made as batches:
        for step in range(steps + 1):
            wall, process = time.perf_counter(), time.process_time()
            batch = next(batches)
            waited = time.perf_counter() - wall
            if what != "loading":
                side.step(batch)
            if step:
                times.images += len(batch.images if isinstance(batch, Batch) else batch[0])
                times.wall += time.perf_counter() - wall
                times.process += time.process_time() - process
                times.waiting += waited
    return times


def measure(sides: Sequence[Side], options: argparse.Namespace) -> dict[str, dict[str, list[Times]]]:
    """What -> side -> its times, one a round; the sides in turn."""
    found: dict[str, dict[str, list[Times]]] = {}
    for what in options.what:
        found[what] = {side.name: [] for side in sides}
        for number in range(options.rounds):
            for side in sides:
                taken = timed_steps(side, what, options.steps, number * (options.steps + 1))
                found[what][side.name].append(taken)
    for side in sides:
        assert all(math.isfinite(loss) for loss in side.losses), f"{side.name}: a loss is not a number"
    return found


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (least to greatest)."""
    low, middle, high = (f"{x:.{digits}f}" for x in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def table(sides: Sequence[Side], found: dict[str, dict[str, list[Times]]]) -> str:
    """Markdown: a column for each side, and ours by the peer's, round by round."""
    ours, theirs = sides
    lines = [f"| | {ours.name} | {theirs.name} | first by second |", "|---|---|---|---|"]

    def facts(label: str, value: Callable[[Side], str]) -> None:
        lines.append(f"| {label} | {value(ours)} | {value(theirs)} | |")

    def row(label: str, value: Callable[[Times], float], what: str, digits: int) -> None:
        values = [[value(taken) for taken in found[what][side.name]] for side in sides]
        ratios = [a / b if b else math.nan for a, b in zip(*values)]
        lines.append(f"| {label} | {' | '.join(spread(v, digits) for v in values)} | {spread(ratios)} |")

    facts("network", lambda side: side.network)
    facts("parameters", lambda side: f"{parameters_of(side.model):,}")
    facts("multiply-adds an image, forward", lambda side: f"{side.multiply_adds / 1e9:.2f} G")
    titles = {"step": "training step", "loader": "step with one loading process", "loading": "loading alone"}
    for what in found:
        row(f"{titles[what]}: images/s", lambda t: t.images / t.wall, what, 2)
        row(f"{titles[what]}: process s an image", lambda t: t.process / t.images, what, 4)
        if what == "loader":
            row("of that, share of waiting for data", lambda t: t.waiting / t.wall, what, 3)
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """What the figures were taken with."""
    import timm
    import torchvision

    own = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {**own, "timm": timm.__version__, "numpy": np.__version__, **peer.versions()}


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder in VOC's layout")
    parser.add_argument("--split", default="train", help="whose images are taken")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--threads", type=int, default=1, help="of the training process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a side in a round, after an untimed one")
    parser.add_argument("--batch", type=int, help="images of a batch, instead of the case's own number")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/yolov3_vs_pytorchyolo.json"))
    return parser.parse_args()


def main(options: argparse.Namespace) -> int:
    """Measure, print and write the figures."""
    torch.set_num_threads(options.threads)
    peer.load("models")  # says at once where it is missing
    used = versions()
    conditions = f"{platform.machine()}, {options.threads} threads, {options.optimizer}, {options.rounds} rounds of "
    print(f"{conditions}{options.steps} steps\n{', '.join(f'{name} {value}' for name, value in used.items())}")
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_parameters(folder)
        convert(Path(options.data), folder / "data", to="yolo", source_format="voc", only=[options.split])
        images = sorted((folder / "data" / "images").rglob("*.*"))
        list_file = folder / "images.txt"
        list_file.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
        for case_name in options.cases:
            case = CASES[case_name]
            case = case if options.batch is None else Case(**{**vars(case), "batch": options.batch})
            print(f"\n{case_name}: {case.size} px, {case.batch} images a batch", flush=True)
            ours = our_side(case, options)
            sides = [ours, peer_side(case, ours, options, folder, list_file)]
            found = measure(sides, options)
            load = os.getloadavg()[0]
            print(f"\n{table(sides, found)}\n\nload of the machine at the end: {load:.1f}", flush=True)
            facts = {side.name: {"parameters": parameters_of(side.model), "multiply_adds": side.multiply_adds,
                                 "losses": side.losses} for side in sides}  # fmt: skip
            times = {w: {s: [vars(t) for t in taken] for s, taken in by.items()} for w, by in found.items()}
            cases[case_name] = {"case": vars(case), "sides": facts, "times": times, "load": load}
            options.json.parent.mkdir(parents=True, exist_ok=True)
            written = {"versions": used, "options": {k: str(v) for k, v in vars(options).items()}, "cases": cases}
            options.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {options.json}")
    return 0


if __name__ == "__main__":
    arguments = options_of_command_line()
    run(lambda: main(arguments))
