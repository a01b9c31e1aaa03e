"""A ranking that trains nothing, as a program: toy_ranking.py WORK_DIR KILLS. Imports no torch until it is run.

Its driver is started, killed KILLS times at random moments, and then left to end. Prints how far it came at each kill.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

BEST_LR = {"a": 3.0, "b": 1.0, "grown": 1.0}
QUALITY = {"a": 0.50, "b": 0.40, "grown": 0.30}


def run(config: dict[str, Any], *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """A run of `toy_runner` whose figure hangs on backbone, lr and seed."""
    import toy_runner

    backbone, lr, seed = config["model"]["backbone"], config["optimizer"]["lr"], config["training"]["seed"]
    figure = QUALITY[backbone] - 0.05 * abs(math.log(lr / BEST_LR[backbone])) + 0.01 * seed
    steps = round(config["training"]["epochs"])
    return toy_runner.run(
        {"steps": steps, "seconds": 0.02, "figure": figure},
        name=name,
        work_dir=work_dir,
        device=device,
        resume=resume,
    )


def beside(config: dict[str, Any], *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """Forecast, cost and pictures in one."""
    folder = work_dir / name / f"{len(list((work_dir / name).glob('[0-9]*'))) + 1:03d}"
    folder.mkdir(parents=True)
    (folder / "0.jpg").write_text(name)
    (folder / "0-truth.jpg").write_text("truth")
    cost = {
        "parameters": 10,
        "training_images_per_second": 2.0,
        "inference_images_per_second": 4.0,
        "peak_memory_mb": 5.0,
        "device": "cpu",
    }
    pictures = [{"image_id": "7", "truth": "0-truth.jpg", "drawn": "0.jpg"}]
    result = {"scores": {"LogME": 0.5}, "cost": cost, "peak": "as told", "pictures": pictures}
    (folder / "results.part").write_text(json.dumps(result))
    os.replace(folder / "results.part", folder / "results.json")
    return True


def toy_config(backbone: str) -> dict[str, Any]:
    """The config of a pair."""
    return {
        "task": "detection",
        "model": {"backbone": backbone},
        "data": {"train": {"type": "x"}, "val": None, "test": {"type": "y"}},
        "optimizer": {"lr": 1.0},
        "training": {"epochs": 4, "seed": 0, "evaluate_every": 1},
    }


def toy_driver(work_dir: Path, **changes: Any) -> Any:
    """A driver of three backbones, one of them grown, on two tasks."""
    from transfer.ranking.driver import Driver, SideRunners
    from transfer.ranking.grid import Grid
    from transfer.ranking.plan import BackbonePlan, Growth, RankingPlan, TaskPlan

    growth = toy_config("grown")
    plan = RankingPlan(
        "toy",
        (TaskPlan("one", "one.py"), TaskPlan("two", "two.py")),
        (BackbonePlan("a"), BackbonePlan("b"), BackbonePlan("grown", arm="grown", grow=Growth("grow.py"))),
        **{"seeds": 2, **changes},
    )
    configs = {(b.name, t.name): toy_config(b.name) for b in plan.backbones for t in plan.tasks}
    for (_, task), config in configs.items():
        config["data"]["train"]["type"] = task  # or the searches of both tasks would be one
    grid = Grid(plan, configs, {"grown": growth}, runner="toy_ranking.run")
    return Driver(grid, work_dir, SideRunners("toy_ranking.beside", "toy_ranking.beside", "toy_ranking.beside"))


def maker(experiment: Any, jobs: int | None) -> bool:
    """As `transfer.ranking_run.command.on_this_machine`, but what it imports ahead takes no seconds."""
    from transfer.experiments.ledger import Ledger
    from transfer.experiments.pool import Pool, PoolSettings

    ledger = Ledger(experiment.ledger_path)
    keys = ledger.enter(experiment.name, [(arm, run) for (arm, _), run in experiment.runs.items()])
    settings = PoolSettings(root=experiment.work_dir / "runs", jobs=jobs or 2, attempts=30, preload=["toy_runner"])
    return Pool(ledger, settings).run(keys)


def _drive(work_dir: Path) -> None:
    os.setsid()
    sys.exit(0 if toy_driver(work_dir).make(maker) else 130)


def _done(work_dir: Path) -> int:
    return len(list((work_dir / "runs").glob("*/[0-9]*/results.json")))


def main(work_dir: Path, kills: int) -> int:
    import transfer.ranking.driver  # noqa: F401  brings torch, once for all starts

    draw = random.Random(0)
    context = multiprocessing.get_context("fork")
    for _ in range(kills):
        process = context.Process(target=_drive, args=(work_dir,))
        process.start()
        before, end = _done(work_dir), time.monotonic() + 60
        while _done(work_dir) < before + draw.randint(1, 3) and process.is_alive() and time.monotonic() < end:
            time.sleep(draw.uniform(0.0, 0.15))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        print("killed at", _done(work_dir), flush=True)
    process = context.Process(target=_drive, args=(work_dir,))
    process.start()
    process.join()
    return process.exitcode or 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
