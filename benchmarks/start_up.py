#!/usr/bin/env python
"""From the command to the first training step, on the embedded sample.

    OMP_NUM_THREADS=1 python benchmarks/start_up.py

Each recipe runs as a user runs it (tools/train_det.py CONFIG and so on), in a process of its own, with the sample in
its cache, and is stopped after its first step. CPU time of that process, one thread, split into three: importing
modules (all that Python's import statement does, wherever it stands, told apart by a clock around it); the rest, until
the first batch is in hand and its forward pass begins; the first step itself, which is the network's. The target is
for the second part, with and without the preflight, which is on by default: it looks at the data and takes a copy of
the model through a few steps, so most of its cost is the network's, too.
"""

from __future__ import annotations

import importlib
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = 5.0
"""Seconds of CPU time from imports to the first forward pass."""
TASKS = {
    "train_det": "sample_yolov3_lite0.py",
    "train_seg": "sample_fcn_lite0.py",
    "train_cls": "sample_cls_lite0.py",
}
CHILD = "--stop-at-first-step"


class ImportClock:
    """Adds up the CPU time of the outermost imports."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        machinery: Any = importlib._bootstrap  # what the import statement calls
        self._find: Callable[..., Any] = machinery._find_and_load
        machinery._find_and_load = self

    def __call__(self, *arguments: Any) -> Any:
        self._depth += 1
        started = time.process_time()
        try:
            return self._find(*arguments)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.process_time() - started


def stopped_run(tool: str, arguments: list[str]) -> None:
    """Run a tool in this process until its first step, print the seconds as JSON, and leave."""
    clock = ImportClock()
    from transfer import training
    from transfer.engine.train import Ending, Run
    from transfer.preflight.preflight import preflight

    taken = {"preflight": 0.0}

    def timed_preflight(*given: Any) -> Any:
        started, imported = time.process_time(), clock.seconds
        try:
            return preflight(*given)
        finally:
            taken["preflight"] = time.process_time() - started - (clock.seconds - imported)

    def train(run: Run, evaluate: Any, hooks: Any) -> Ending:
        begin = [0.0]
        batches = run.batches

        def first(iteration: int) -> Any:
            for batch in batches(iteration):
                begin[0] = time.process_time()
                imports = clock.seconds
                yield batch
                step = time.process_time() - begin[0] - (clock.seconds - imports)
                taken.update(imports=clock.seconds, start=begin[0] - imports, step=step)
                print(json.dumps(taken), flush=True)
                sys.exit(0)

        run.batches = first
        return real(run, evaluate, hooks)

    real, training.train, training.preflight = training.train, train, timed_preflight  # type: ignore[assignment]
    sys.argv = [tool, *arguments]
    runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="__main__")


def seconds_of(tool: str, *, preflight: bool) -> dict[str, float]:
    """CPU seconds of one start: "imports", "start" (of which "preflight") and "step"."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, CHILD, tool, str(ROOT / "configs" / TASKS[tool]), "--work-dir", folder]
        command += ["--device", "cpu", "--cfg-options", "loader.workers=0", f"training.preflight={preflight}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def result(*, quick: bool) -> Any:
    """Every tool with and without its preflight."""
    from comparison import Result, Row, versions_of

    from transfer.data.sample import make_sample, sample_folder

    make_sample(sample_folder())
    rows = []
    for tool, config in TASKS.items():
        for preflight in (True, False):
            rounds = [seconds_of(tool, preflight=preflight) for _ in range(1 if quick else 3)]
            median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
            starts = [each["start"] for each in rounds]
            of_it = f", {median['preflight']:.1f} s of it the preflight" if preflight else ""
            rows.append(
                Row(
                    key=f"start_up_{tool}{'' if preflight else '_without_preflight'}",
                    what=f"tools/{tool}.py configs/{config}{'' if preflight else ' without preflight'}: "
                    "after imports, to the first forward pass",
                    ours=f"{median['start']:.1f} s{of_it}",
                    beside=f"aimed at: {TARGET:g} s",
                    ratio=median["start"] / TARGET,
                    spread=(min(starts) / TARGET, max(starts) / TARGET),
                    target=1.0,
                    wanted="at most",
                    note=f"besides: imports {median['imports']:.1f} s, the first step {median['step']:.1f} s",
                )
            )
    return Result(rows, versions_of("torch", "torchvision", "timm", "mmengine-lite", "mmengine"))


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        stopped_run(sys.argv[2], sys.argv[3:])
        return
    from comparison import benchmark_parser, report

    options = benchmark_parser(__doc__).parse_args()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
