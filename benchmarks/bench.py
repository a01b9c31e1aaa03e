#!/usr/bin/env python
"""Where the time goes, and how this project stands beside its peers: `make bench`.

    python benchmarks/bench.py [--quick] [--only NAME ...] [--write docs/performance.md]

Runs the benchmarks of speed one after another, each in a process of its own with one thread, and prints their tables:
ratios taken in one run, so that they hold on any machine, with the quartiles over rounds. A peer that is not installed
is left out and said. Half an hour on 2 cores, `--quick` five minutes with rough figures. The rows are kept as JSON in
the output folder. `--write` puts the tables into a document, between its two markers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from comparison import Result, hardware, read_result, table_of

HERE = Path(__file__).parent
BENCHMARKS = {
    "step_overhead": "The training step over bare forward and backward",
    "channels_last": "Maps stored pixel by pixel",
    "frcnn_speed_vs_torchvision": "Faster R-CNN beside torchvision's",
    "input_pipelines": "Input pipelines",
    "voc_map_speed": "VOC mAP",
    "mean_iou_speed": "Mean IoU",
    "index_cache": "The index of a large VOC devkit",
    "start_up": "From the command to the first step",
    "inference_speed": "Inference",
}
"""Script -> heading, in the order of the tables."""
BEGIN, END = "<!-- tables: benchmarks/bench.py --write -->", "<!-- end of tables -->"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that all of it runs")
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHMARKS), default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), help="for the rows (default: runs/bench)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this document")
    options = parser.parse_args()
    if options.write is not None:
        text = options.write.read_text() if options.write.is_file() else ""
        if BEGIN not in text or END not in text:
            parser.error(f"--write {options.write}: needs the lines {BEGIN!r} and {END!r}; the tables go between them")
    return options


def run(name: str, output: Path, quick: bool) -> Result | None:
    """One benchmark in its own process; None where it failed, which is said."""
    file = output / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file), *(["--quick"] if quick else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # read when numpy's and torch's libraries are loaded
    started = time.monotonic()
    print(f"\n{BENCHMARKS[name]} ({' '.join(command[1:])})", flush=True)
    code = subprocess.run(command, env=environment).returncode
    print(f"took {time.monotonic() - started:.0f} s" + (f", failed with exit code {code}" if code else ""), flush=True)
    return read_result(file) if code == 0 and file.is_file() else None


def document(results: dict[str, Result | None], quick: bool) -> str:
    """All tables with what they were made with, as Markdown."""
    versions: dict[str, str] = {}
    for result in results.values():
        versions |= result.versions if result else {}
    rough = "; `--quick`: rough" if quick else ""
    lines = [f"{hardware()}; " + ", ".join(f"{name} {version}" for name, version in versions.items())]
    lines += [f"{date.today().isoformat()}; one thread unless a row says otherwise{rough}.", ""]
    for name, result in results.items():
        lines += [f"### {BENCHMARKS[name]}", "", f"    python benchmarks/{name}.py", ""]
        lines += [table_of(result.rows) if result else "It did not run to its end here.", ""]
    return "\n".join(lines)


def main() -> int:
    options = parse_arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    results = {name: run(name, options.output, options.quick) for name in BENCHMARKS if name in options.only}
    text = document(results, options.quick)
    print("\n" + text)
    if options.write is not None:
        before, _, rest = options.write.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        options.write.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    rows = [row for result in results.values() if result for row in result.rows]
    missed = [row.what for row in rows if row.met is False]
    print(f"{len(rows)} rows, {sum(row.met is True for row in rows)} targets met, {len(missed)} missed", flush=True)
    failed = [name for name, result in results.items() if result is None]
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
