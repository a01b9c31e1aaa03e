#!/usr/bin/env python
"""Training steps of this project's Faster R-CNN beside torchvision's: images a second and peak memory.

OMP_NUM_THREADS=1 python benchmarks/frcnn_speed_vs_torchvision.py

Both are ResNet-50 with FPN, 12 classes, batch norm frozen, stem and first stage without gradient, 2000 proposals, 512
regions an image, on the same synthetic images of 320x416 with six boxes each. Backbone and pyramid begin with the same
random values, so that what reaches proposals and NMS is alike. Here the training loop itself runs on
configs/voc_frcnn_fpn_r50d.py; torchvision's step is that of its reference script: the model's own losses, backward and
torch.optim.SGD. Its images are handed over as floats in 0..1, as its own loaders make them; the resizing to equal size
that its model contains is part of it.

Time: process time on one thread, in turn. Memory: of a fresh process each, over three steps. Of torch's allocator, as
the profiler saw it from before the model was built, less the model's own tensors: activations, gradients, momentum. (A
profile of one step alone does not see the gradients of the step before, which torchvision's script keeps until the next
backward pass, and the loop here does not.) And of the operating system: the most that was resident less what was when
all was built (from /proc; left out where a system has none).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comparison import Result, Row, benchmark_parser, one_thread, ratio_of, report, table_of, versions_of
from step_overhead import CONFIGS, SameBatch, trained
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from transfer.assemble import build_run
from transfer.build import load_config
from transfer.engine.distributed import World
from transfer.engine.train import Run
from transfer.types import Batch, Target

HEIGHT, WIDTH, BOXES = 320, 416, 6
CLASSES = 12
"""Of the embedded sample, from which the model here takes their number."""
STEPS_FOR_MEMORY = 3
ACCOUNTS = ("resident", "allocated")
"""Of memory: the operating system's, and that of torch's allocator."""
STATUS = Path("/proc/self/status")
_SAMPLE = "{'type': 'transfer.data.sample_dataset.SampleDetection', 'split': '%s'}"
CHANGES = (
    "model.backbone.name=resnet50",
    "model.backbone.weights=None",
    f"data.train={_SAMPLE % 'trainval'}",
    f"data.test={_SAMPLE % 'test'}",
    "loader.workers=0",
    "loader.aspect_grouping=False",
    "schedule={'type': 'transfer.optim.schedules.Constant'}",
    "optimizer.lr=1e-9",  # random weights under frozen norm would run away
)


def synthetic_batch(images: int) -> Batch:
    """Noise, with boxes of 32 to 160 pixels."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    for index in range(images):
        sides = torch.rand(BOXES, 2, generator=generator) * 128 + 32
        corners = torch.rand(BOXES, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
        targets.append(
            Target(
                boxes=torch.cat([corners, corners + sides], dim=1),
                labels=torch.randint(CLASSES, (BOXES,), generator=generator),
                difficult=torch.zeros(BOXES, dtype=torch.bool),
                weights=torch.ones(BOXES),
                size=(HEIGHT, WIDTH),
                index=index,
                image_id=index,
                path=f"{index}.png",
                original_size=(HEIGHT, WIDTH),
                scale=(1.0, 1.0),
                seed=index,
            )
        )
    pixels = torch.randint(256, (images, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    return Batch(pixels, targets)


def our_run(images: int) -> Run:
    """This project's run; its batches are the caller's to give."""
    node = load_config(CONFIGS / "voc_frcnn_fpn_r50d.py", (*CHANGES, f"loader.batch_size={images}"))
    return build_run(node, World(0, 1, torch.device("cpu")))[0]


def their_step(batch: Batch, ours: nn.Module | None = None) -> tuple[Callable[[], None], nn.Module]:
    """torchvision's training step on the batch, and its model, which has this project's values where given."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    if ours is not None:
        model: Any = ours  # a FasterRCNN of transfer.heads
        backbone.body.load_state_dict(model.backbone.body.state_dict(), strict=False)  # theirs counts no batches
        backbone.fpn.load_state_dict(model.neck.pyramid.state_dict())
    detector = FasterRCNN(backbone, CLASSES + 1, min_size=min(HEIGHT, WIDTH), max_size=max(HEIGHT, WIDTH)).train()
    trained_parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained_parameters, lr=1e-9, momentum=0.9, weight_decay=5e-4, nesterov=True)
    images: list[Tensor] = list(batch.images.float() / 255)
    truth = [{"boxes": target.boxes, "labels": target.labels + 1} for target in batch.targets]

    def step() -> None:
        loss = torch.stack(list(detector(images, truth).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, detector


def resident_megabytes(field: str) -> float:
    """VmRSS, what this process holds, or VmHWM, the most it has held (ru_maxrss counts its parent's, too), or NaN."""
    if not STATUS.is_file():
        return math.nan
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024e-6


def allocated_megabytes(profile: torch.profiler.profile, model: nn.Module) -> float:
    """The most that torch's allocator held during a profile of all there was, less the model's own tensors."""
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(f"{folder}/trace.json").read_text())["traceEvents"]
    most = max(event["args"]["Total Allocated"] for event in events if event.get("name") == "[memory]")
    own = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return (most - sum(own.values())) / 1e6


def memory_of(who: str, account: str, images: int) -> float:
    """Peak of this process, which must be fresh, over training steps, beyond the model; NaN without /proc."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401  # or its import would count as training

    one_thread()
    batch = synthetic_batch(images)
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    if account == "allocated":
        profile.start()  # it counts what is taken from here on, and the release of that alone
    if who == "ours":
        run = our_run(images)
        run.batches = SameBatch(run, batch, lambda: None, STEPS_FOR_MEMORY)
        model, steps = run.task.model, partial(trained, run)
    else:
        step, model = their_step(batch)
        steps = partial(_repeat, step)
    built = resident_megabytes("VmRSS")
    steps()
    if account == "resident":
        return resident_megabytes("VmHWM") - built
    profile.stop()
    return allocated_megabytes(profile, model)


def _repeat(step: Callable[[], None]) -> None:
    for _ in range(STEPS_FOR_MEMORY):
        step()


def memory_in_fresh_process(who: str, images: int) -> dict[str, float]:
    """All accounts, each by a process of its own, whose stderr is seen where it failed (torch's profiler chatters)."""
    return {
        account: _of_child("--memory-of", who, "--account", account, "--images", str(images)) for account in ACCOUNTS
    }


def _of_child(*arguments: str) -> Any:
    command = [sys.executable, __file__, *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        print(process.stderr, end="", file=sys.stderr, flush=True)
    process.check_returncode()
    return json.loads(process.stdout.splitlines()[-1])


def memory_rows(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> list[Row]:
    """A row for each account of memory that this system keeps.

    Args:
        pairs: of each round, `memory_of` this project and torchvision.
    """
    rows = []
    for kind, what in (
        ("resident", "its peak memory, resident beyond the built model: all that the step needs"),
        ("allocated", "its peak memory, of torch's allocator: activations, gradients, momentum"),
    ):
        ours, theirs = [mine[kind] for mine, _ in pairs], [their[kind] for _, their in pairs]
        if any(map(math.isnan, ours + theirs)):
            print(f"no {STATUS} on this system: the row of {kind} memory is left out", flush=True)
            continue
        ratio, spread = ratio_of(ours, theirs)
        rows.append(
            Row(
                key="Faster R-CNN beside torchvision",
                what=what,
                ours=f"{statistics.median(ours):.0f} MB",
                beside=f"torchvision {statistics.median(theirs):.0f} MB",
                ratio=ratio,
                spread=spread,
                target=0.95,
                wanted="at most",
                note="fresh process each",
            )
        )
    return rows


def result(*, quick: bool) -> Result:
    """Speed and memory."""
    one_thread()
    images, turns, warm_up = (1, 2, 1) if quick else (2, 5, 1)
    batch, run = synthetic_batch(images), our_run(images)
    run.batches = same = SameBatch(run, batch, their_step(batch, run.task.model)[0], warm_up + turns)
    trained(run)
    ours, theirs = same.times["step"][warm_up:], same.times["beside"][warm_up:]
    ratio, spread = ratio_of(theirs, ours)
    rows = [
        Row(
            key="Faster R-CNN beside torchvision",
            what=f"training step of Faster R-CNN, ResNet-50-FPN, {images} images of {HEIGHT}x{WIDTH}, images a second",
            ours=f"{images / statistics.median(ours):.3f} images/s",
            beside=f"torchvision {images / statistics.median(theirs):.3f} images/s",
            ratio=ratio,
            spread=spread,
            target=1.1,
        )
    ]
    print(table_of(rows), flush=True)  # seen, should a process below fail
    del run, same
    pairs = [
        (memory_in_fresh_process("ours", images), memory_in_fresh_process("torchvision", images))
        for _ in range(1 if quick else 2)
    ]
    return Result(rows + memory_rows(pairs), versions_of("torch", "torchvision", "timm"))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--memory-of", choices=("ours", "torchvision"), help=argparse.SUPPRESS)
    parser.add_argument("--account", choices=ACCOUNTS, default=ACCOUNTS[0], help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory_of(options.memory_of, options.account, options.images)))
    else:
        report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
