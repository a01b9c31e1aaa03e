"""What the benchmarks share: things timed in turn, ratios with their spread, rows of one table.

A machine's speed changes while one measures, by its other load and by its temperature. So what is compared runs in
turn, round after round, in CPU time of this process (of one thread: `one_thread`), and the ratio is taken within each
round before the median is. Where processes or threads work together wall time counts: `clock=time.perf_counter`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

Times = dict[str, list[float]]
"""Name -> seconds, one a round."""


@dataclass(frozen=True)
class Row:
    """One claim of docs/performance.md.

    Args:
        what: what was done, with sizes.
        ours: the figure of this project with its unit.
        beside: what it is compared with, and that one's figure with its unit.
        ratio: how many times; which way round is said by `wanted`.
        spread: the quartiles of the ratio over rounds.
        target: the ratio that was aimed at; None: none was set.
        wanted: whether a ratio "at most" or "at least" the target is wanted.
        note: what a reader must know to read the figure rightly.
        key: of the issue's row; rows of one key stand together.
    """

    key: str
    what: str
    ours: str
    beside: str
    ratio: float
    spread: tuple[float, float]
    target: float | None = None
    wanted: Literal["at most", "at least"] = "at least"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without a target."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.wanted == "at least" else self.ratio <= self.target


@dataclass(frozen=True)
class Result:
    """The rows of one benchmark and what they ran with."""

    rows: list[Row]
    versions: dict[str, str] = field(default_factory=dict)


def one_thread() -> None:
    """Let torch and OpenCV use one thread in this process; numpy's BLAS is told by OMP_NUM_THREADS before the start."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def in_turn(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Seconds of each run in each round; the order turns about from round to round.

    Args:
        runs: name -> what is timed.
        rounds: how often each.
        warm_up: rounds before, not counted.
        clock: seconds.
    """
    times: Times = {name: [] for name in runs}
    for position in range(-warm_up, rounds):
        names = list(runs)[:: 1 if position % 2 == 0 else -1]
        for name in names:
            started = clock()
            runs[name]()
            if position >= 0:
                times[name].append(clock() - started)
    return times


def ratio_of(numerator: Sequence[float], denominator: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median over rounds of the ratio within a round, and its quartiles.

    Args:
        numerator, denominator: [rounds] seconds or any other figures of the same rounds.
    """
    ratios = sorted(above / below for above, below in zip(numerator, denominator, strict=True))
    if len(ratios) < 2:
        return ratios[0], (ratios[0], ratios[0])
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, (low, high)


def versions_of(*packages: str) -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {"Python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """The processor's name and how many cores this machine has."""
    import os

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def table_of(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | here | beside | ratio (quartiles) | target |", "|---|---|---|---|---|"]
    for row in rows:
        ratio = f"{row.ratio:.2f} ({row.spread[0]:.2f} to {row.spread[1]:.2f})"
        target = "" if row.target is None else f"{row.wanted} {row.target:g}: {'met' if row.met else '**missed**'}"
        what = row.what + (f"; {row.note}" if row.note else "")
        lines.append(f"| {what} | {row.ours} | {row.beside} | {ratio} | {target} |")
    return "\n".join(lines)


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark of `make bench` has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs; the figures are rough")
    parser.add_argument("--json", type=Path, help="write the rows there, too; read by benchmarks/bench.py")
    return parser


def report(result: Result, options: argparse.Namespace) -> None:
    """Print the table and write the file that `--json` names."""
    print(f"{hardware()}; " + ", ".join(f"{name} {version}" for name, version in result.versions.items()))
    print(table_of(result.rows), flush=True)
    if options.json:
        options.json.write_text(json.dumps(dataclasses.asdict(result), indent=1))


def read_result(path: Path) -> Result:
    """What `report` wrote."""
    content = json.loads(path.read_text())
    rows = [Row(**{**row, "spread": tuple(row["spread"])}) for row in content["rows"]]
    return Result(rows, content["versions"])
