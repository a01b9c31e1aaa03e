#!/usr/bin/env python
"""Where the time goes, and how this project stands beside its peers: `make bench`.

    python benchmarks/bench.py [--quick] [--only NAME ...] [--write docs/performance.md]

Runs the benchmarks of speed one after another, each in a process of its own with one thread, and prints their tables:
ratios taken in one run, so that they hold on any machine, with the quartiles over rounds. A peer that is not installed
is left out and said. Half an hour on 2 cores, `--quick` five minutes with rough figures. The rows are kept as JSON in
the output folder. `--write` puts the tables into a document, between its two markers, each below a heading of its own
and with what it was made with. What was not run, or not to its end, keeps what the document holds. Ctrl-C ends the
benchmark at hand; the tables of those before it are printed and written all the same.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
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
        try:
            parts_of(options.write)
        except ValueError as error:
            parser.error(str(error))
    return options


def run(name: str, output: Path, quick: bool) -> Result | None:
    """One benchmark in its own process; None where it failed, which is said."""
    file = output / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file), *(["--quick"] if quick else [])]
    started = time.monotonic()
    print(f"\n{BENCHMARKS[name]} ({' '.join(command[1:])})", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # its temporary files, should it be ended
        # OMP_NUM_THREADS is read when numpy's and torch's libraries are loaded. A session of its own: Ctrl-C is for
        # this process alone, which then ends the benchmark with all that it has started.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            code = process.wait()
        except BaseException:
            end(process)
            raise
    print(f"took {time.monotonic() - started:.0f} s" + (f", failed with exit code {code}" if code else ""), flush=True)
    return read_result(file) if code == 0 and file.is_file() else None


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a session's first process and the others; a training loop takes SIGTERM for a wish to save and stop."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:  # Windows
        process.kill()
    process.wait()


def section(name: str, result: Result, quick: bool) -> str:
    """What stands below a benchmark's heading, as Markdown: what it was made with, its command, its table."""
    versions = ", ".join(f"{package} {version}" for package, version in result.versions.items())
    rough = "; `--quick`: rough" if quick else ""
    made_with = f"{hardware()}; {versions}; {date.today().isoformat()}; one thread unless a row says otherwise{rough}."
    return f"{made_with}\n\n    python benchmarks/{name}.py\n\n{table_of(result.rows)}"


def document(made: dict[str, str], held: dict[str, str]) -> str:
    """All sections in the order of the benchmarks, those of other headings behind them.

    Args:
        made: heading -> what stands below it from now on.
        held: the same of the document; it stays where it was not made anew, unless all benchmarks were.
    """
    order = {heading: place for place, heading in enumerate(BENCHMARKS.values())}
    sections = made if made.keys() == order.keys() else held | made
    headings = sorted(sections, key=lambda heading: order.get(heading, len(order)))
    return "\n\n".join(f"### {heading}\n\n{sections[heading]}" for heading in headings)


def sections_of(tables: str) -> dict[str, str]:
    """What `document` gave, by heading; what stands before the first heading holds for all, so each gets it."""
    common, *sections = re.split(r"^### ", tables, flags=re.MULTILINE)
    parts = (section.partition("\n") for section in sections)
    bodies = {heading.strip(): body.strip("\n") for heading, _, body in parts}  # an indented line may be the first
    return {heading: f"{common.strip()}\n\n{body}".strip("\n") for heading, body in bodies.items()}


def parts_of(path: Path) -> tuple[str, str, str]:
    """A document up to its tables, the tables, and what follows them.

    Raises:
        ValueError: there is no place for tables.
    """
    before, _, rest = (path.read_text() if path.is_file() else "").partition(BEGIN)
    tables, end_marker, after = rest.partition(END)
    if not end_marker:
        raise ValueError(f"--write {path}: needs the lines {BEGIN!r} and {END!r}; the tables go between them")
    return before, tables, after


def write(path: Path, made: dict[str, str]) -> None:
    """Put sections into a document, whole or not at all.

    Raises:
        ValueError: there is no place for them.
    """
    path = path.resolve()  # a link stays one
    before, tables, after = parts_of(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(f"{before}{BEGIN}\n\n{document(made, sections_of(tables))}\n\n{END}{after}")
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it has started, too
    options = parse_arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    names = [name for name in BENCHMARKS if name in options.only]
    results: dict[str, Result | None] = {}
    interrupted = False
    try:
        for name in names:
            results[name] = run(name, options.output, options.quick)
    except KeyboardInterrupt:
        interrupted = True
    made = {BENCHMARKS[name]: section(name, result, options.quick) for name, result in results.items() if result}
    print("\n" + document(made, {}) + "\n")
    rows = [row for result in results.values() if result for row in result.rows]
    missed = [row.what for row in rows if row.met is False]
    print(f"{len(rows)} rows, {sum(row.met is True for row in rows)} targets met, {len(missed)} missed", flush=True)
    failed = [name for name, result in results.items() if result is None]
    if failed:
        print(f"did not run to their end: {', '.join(failed)}", file=sys.stderr)
    if options.write is not None and made:
        try:
            write(options.write, made)
        except ValueError as error:  # the document was changed meanwhile
            print(error, file=sys.stderr)
            failed.append("--write")
    if interrupted:
        left = ", ".join(name for name in names if name not in results)
        print(f"interrupted: not run, or not to their end: {left}", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
