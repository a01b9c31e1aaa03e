#!/usr/bin/env python
"""Runs killed at random instants and resumed, compared bit for bit with runs that nobody disturbed.

OMP_NUM_THREADS=1 python benchmarks/killed_runs.py --kills 10

A detector, a segmenter and a classifier on the embedded sample, each small, with its mixing of images, random shapes,
accumulation, warm-up, moving average, validation data and a checkpoint at every second step; with 0, 1 and 4 worker
processes in turn. A killed run goes on by the same call (`resume="auto"`). What is compared at the end: last.pth and
best.pth (weights, optimizer, average, schedule, figures), every row of metrics.jsonl but its times, results.json.

The runs are forked from one process that has imported everything, so a start costs no imports. A kill is SIGKILL to the
main process, every second time to its workers, too.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transfer import loading, training
from transfer.build import load_config
from transfer.cli import configure_logging
from transfer.engine.checkpoint import load_checkpoint

LONGEST = 1800
"""Seconds after which a run counts as one that does not end."""
TIMES = ("seconds", "loader_seconds")
SMALL = (
    "model.backbone={'type': '%s', 'name': 'resnet26d', 'weights': None, 'norm': 'batch', "
    "'model_options': {'layers': [1, 1, 1, 1], 'channels': [8, 16, 32, 64]}%s}"
)
COMMON = (
    "data.val=0.2",
    "training.epochs=3",
    "training.accumulate=2",
    "training.evaluate_every=1",
    "training.checkpoint_every=0.25",
    "training.preflight=False",
    "training.ema={'decay': 0.9}",
    "loader.batch_size=8",
    "loader.test_batch_size=8",
)
BODY = "backbones.timm_backbone.TimmBackbone"
SHAPES = "loader.shapes={'type': 'transfer.batch.shapes.RandomShapes', 'low': 64, 'high': 128, 'every': 2}"
TASKS = {
    "detection": (
        "configs/sample_yolov3_lite0.py",
        "SubsetDataset",
        (
            SMALL % (BODY, ""),
            SHAPES,
            "loader.mixup={'type': 'transfer.augment.box_mixup.BoxMixup'}",
            "augment.train.size=128",
            "augment.test.size=128",
            "schedule.iterations=6",
        ),
    ),
    "segmentation": (
        "configs/sample_fcn_lite0.py",
        "SegmentationSubset",
        (
            SMALL % (BODY, ", 'output_stride': 16"),
            SHAPES,
            "loader.mixup={'type': 'transfer.augment.mask_mixing.MaskCutMix'}",
            "augment.train.base=128",
            "augment.train.crop=96",
            "schedule.iterations=6",
        ),
    ),
    "classification": (
        "configs/sample_cls_lite0.py",
        "ClassificationSubset",
        (
            SMALL % ("backbones.classifier_backbone.ClassifierBackbone", ""),
            SHAPES,
            "loader.blend={'type': 'transfer.augment.image_mixing.ImageMixup', 'alpha': 0.2}",
            "augment.train.size=96",
            "augment.test.size=96",
        ),
    ),
}


@dataclass
class Killed:
    """What became of a run that was killed again and again."""

    kills: int
    """Kills that found the run alive."""
    resumed: int
    """Starts that went on from a checkpoint."""
    half_written: int
    """Kills while a file was being written: they left a `.part` behind."""
    differences: list[str]
    """From the undisturbed run; empty where all is equal."""


def task_config(task: str, images: int, workers: int) -> dict[str, Any]:
    """A config on some images of the embedded sample."""
    file, subset, overrides = TASKS[task]
    config = load_config(file)
    for part in ("train", "test"):
        every = 5 if task == "classification" else None  # the crops come class by class
        node = {"type": f"transfer.data.subset.{subset}", "dataset": config["data"][part], "every": every}
        config["data"][part] = {**node, "limit": images}
    return load_config_again(config, [*overrides, *COMMON, f"loader.workers={workers}"])


def load_config_again(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The config with overrides applied; keys that the recipe leaves at their defaults may be given, too."""
    from transfer.build import apply_override

    config["loader"] = {"shapes": None, "mixup": None, "blend": None, **config["loader"]}
    config["training"] = {"accumulate": 1, "checkpoint_every": 1, "preflight": True, **config["training"]}
    if config.get("task", "detection") != "classification":
        config["loader"].pop("blend")
    for override in overrides:
        apply_override(config, override)
    return config


def killed_run(config: dict[str, Any], work_dir: Path, *, kills: int, draw: random.Random) -> Killed:
    """Run a config undisturbed, then again with kills at random instants, and compare.

    Args:
        config: of a run.
        work_dir: gets two folders, `whole` and `killed`.
        kills: how many are to hit.
        draw: decides on the instants.
    """
    started = time.monotonic()
    _await(_start(config, work_dir / "whole"))
    usual = time.monotonic() - started
    hit = half_written = resumed = 0
    while True:
        resumed += _can_go_on(work_dir / "killed" / "run")
        child = _start(config, work_dir / "killed")
        if hit == kills:
            _await(child)
            break
        child.join(draw.uniform(0.25, 0.95) * usual)
        if child.exitcode is not None:  # came to its end before it was hit: once more, from the beginning
            _await(child)
            continue
        (os.killpg if hit % 2 else os.kill)(child.pid or 0, signal.SIGKILL)  # with its workers, or without them
        child.join()
        hit += 1
        half_written += any((work_dir / "killed").rglob(".*.part"))
    runs = sorted((work_dir / "killed" / "run").iterdir())
    finished = [run for run in runs if (run / "results.json").is_file()]
    differences = [text for run in finished for text in compared(work_dir / "whole" / "run" / "001", run)]
    return Killed(hit, resumed, half_written, differences if finished else ["no run came to its end"])


def _can_go_on(runs: Path) -> bool:
    """Whether the newest run has saved something and is not at its end."""
    newest = max(runs.glob("[0-9]*"), default=runs)
    return (newest / "last.pth").is_file() and not (newest / "results.json").is_file()


def _start(config: dict[str, Any], work_dir: Path) -> Any:
    child = multiprocessing.get_context("fork").Process(target=_run, args=(copy.deepcopy(config), work_dir))
    child.start()
    return child


def _run(config: dict[str, Any], work_dir: Path) -> None:
    """In a process group of its own: with resume="auto", a run that is at its end is begun anew."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    newest = sorted((work_dir / "run").glob("*/results.json"))
    with _as_many_workers_as_asked():
        training.run(config, name="run", work_dir=work_dir, device="cpu", resume=None if newest else training.AUTO)


@contextmanager
def _as_many_workers_as_asked() -> Iterator[None]:
    """However few cores there are."""
    loading.number_of_workers, before = (lambda asked: asked), loading.number_of_workers
    yield
    loading.number_of_workers = before


def _await(child: Any) -> None:
    child.join(LONGEST)
    assert child.exitcode == 0, f"a run that nobody killed ended with {child.exitcode}"


def compared(whole: Path, other: Path) -> list[str]:
    """Where two run directories differ: checkpoints bit for bit, rows and results but for times."""
    differences = []
    for name in ("last.pth", "best.pth"):
        ours, theirs = load_checkpoint(other / name), load_checkpoint(whole / name)
        differences += [f"{name}: {where}" for where in unequal(ours, theirs)]
    if _rows(whole) != _rows(other):
        differences.append("metrics.jsonl")
    if (whole / "results.json").read_text() != (other / "results.json").read_text():
        differences.append("results.json")
    return differences


def _rows(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def unequal(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Paths at which two nested states differ, tensors by their bits."""
    if type(ours) is not type(theirs):
        return [where]
    if isinstance(ours, torch.Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        return [] if same and ours.numpy().tobytes() == theirs.numpy().tobytes() else [where]
    if isinstance(ours, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [w for k in keys for w in unequal(ours.get(k), theirs.get(k), f"{where}.{k}")]
    if isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return [where]
        return [w for n, pair in enumerate(zip(ours, theirs)) for w in unequal(*pair, f"{where}[{n}]")]
    return [] if ours == theirs or (ours != ours and theirs != theirs) else [where]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each task")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--images", type=int, default=40, help="of the training and of the test set")
    parser.add_argument("--seed", type=int, default=0, help="decides on the instants")
    options = parser.parse_args()
    configure_logging(is_main=False)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # 4 workers on fewer cores
    draw = random.Random(options.seed)
    print("| task | workers | kills | resumed from a checkpoint | hit a file half written | differs from whole run |")
    print("|---|---|---|---|---|---|", flush=True)
    for task in options.tasks:
        for number, workers in enumerate((0, 1, 4)):
            kills = options.kills // 3 + (number < options.kills % 3)
            with tempfile.TemporaryDirectory() as folder:
                config = task_config(task, options.images, workers)
                found = killed_run(config, Path(folder), kills=kills, draw=draw)
            verdict = ", ".join(found.differences) or "in nothing"
            print(
                f"| {task} | {workers} | {found.kills} | {found.resumed} | {found.half_written} | {verdict} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
