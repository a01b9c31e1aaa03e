"""`make bench`: whose tables a document shows, what an interruption leaves, and which time is whose."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

BEGIN, END = "<!-- tables: benchmarks/bench.py --write -->", "<!-- end of tables -->"
RUNS = """
import sys
from comparison import Result, Row, benchmark_parser, report
options = benchmark_parser("").parse_args()
report(Result([Row("key", "measured anew", "1 s", "2 s", 2.0, (1.5, 2.5))], {"package": "1.2"}), options)
"""
FAILS = "raise SystemExit(3)"
HANGS = """
import subprocess, sys, tempfile, time
print(tempfile.mkdtemp(), flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])  # it keeps the terminal as long as it lives
print("hangs", flush=True)
time.sleep(100)
"""


@pytest.fixture(scope="module")
def benchmarks(repository: Path) -> Iterator[Path]:
    """The folder, whose scripts import each other by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(repository / "benchmarks")
        yield repository / "benchmarks"


@pytest.fixture
def bench(benchmarks: Path) -> Any:
    """benchmarks/bench.py as a module."""
    return importlib.import_module("bench")


@pytest.fixture
def folder(benchmarks: Path, tmp_path: Path) -> Path:
    """A folder with bench.py and benchmarks that only say that they ran."""
    for name in ("bench.py", "comparison.py"):
        shutil.copy(benchmarks / name, tmp_path)
    for name in importlib.import_module("bench").BENCHMARKS:
        (tmp_path / f"{name}.py").write_text(RUNS)
    return tmp_path


def bench_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run bench.py there, on the document of `held`."""
    command = [sys.executable, "bench.py", "--write", "document.md", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def held(folder: Path, tables: str) -> Path:
    """A document with these tables."""
    path = folder / "document.md"
    path.write_text(f"# Title\n\n{BEGIN}\n\n{tables}\n\n{END}\n\n### Heading\n\nThe rest.\n")
    return path


def tables_in(path: Path) -> str:
    """What stands between the markers; all else must be as `held` wrote it."""
    before, _, rest = path.read_text().partition(f"{BEGIN}\n\n")
    tables, _, after = rest.partition(f"\n\n{END}")
    assert (before, after) == ("# Title\n\n", "\n\n### Heading\n\nThe rest.\n")
    return tables


def test_one_benchmark_leaves_the_other_tables_alone(folder: Path) -> None:
    path = held(folder, "### Another's\n\n| kept |\n\n### Inference\n\n    line\n\n| kept |\n\n### VOC mAP\n\n| old |")
    run = bench_in(folder, "--only", "voc_map_speed", "step_overhead")
    assert run.returncode == 0, run.stderr
    tables = tables_in(path)
    first, voc, *others = tables.split("### ")[1:]
    assert first.startswith("The training step over bare forward and backward\n")  # in the order of the benchmarks
    assert voc.startswith("VOC mAP\n")
    assert others == ["Inference\n\n    line\n\n| kept |\n\n", "Another's\n\n| kept |"]
    assert "| old |" not in tables
    assert tables.count("measured anew") == 2
    assert tables.count("package 1.2; 2") == 2  # with what each was made, and on which day
    assert sorted(each.name for each in folder.iterdir() if each.name.startswith(".")) == []


def test_what_held_for_all_tables_stays_with_those_that_stay(folder: Path) -> None:
    """A document of before has one line of versions for all: above a new table it would be wrong."""
    path = held(folder, "torch 0.1\n\n### Inference\n\n    command\n\n| kept |\n\n### VOC mAP\n\n| old |")
    assert bench_in(folder, "--only", "voc_map_speed").returncode == 0
    voc, inference = tables_in(path).split("### ")[1:]
    assert inference == "Inference\n\ntorch 0.1\n\n    command\n\n| kept |"
    assert "torch 0.1" not in voc


def test_a_benchmark_that_fails_keeps_its_table_and_fails_the_command(folder: Path) -> None:
    path = held(folder, "### Mean IoU\n\n| kept |\n\n### VOC mAP\n\n| old |")
    (folder / "mean_iou_speed.py").write_text(FAILS)
    run = bench_in(folder, "--only", "voc_map_speed", "mean_iou_speed", "index_cache", "--quick")
    assert run.returncode == 1
    assert "did not run to their end: mean_iou_speed\n" in run.stderr
    assert "failed with exit code 3" in run.stdout
    voc, iou, index = tables_in(path).split("### ")[1:]
    assert "measured anew" in voc
    assert "`--quick`: rough" in voc
    assert iou == "Mean IoU\n\n| kept |\n\n"
    assert "measured anew" in index


def test_where_nothing_ran_to_its_end_the_document_is_not_touched(folder: Path) -> None:
    path = held(folder, "as it is")
    (folder / "mean_iou_speed.py").write_text(FAILS)
    assert bench_in(folder, "--only", "mean_iou_speed").returncode == 1
    assert tables_in(path) == "as it is"


def test_a_whole_run_replaces_everything(bench: Any) -> None:
    made = dict.fromkeys(reversed(bench.BENCHMARKS.values()), "new")
    assert bench.document(made, {"Another's": "old", "VOC mAP": "old"}) == "\n\n".join(
        f"### {heading}\n\nnew" for heading in bench.BENCHMARKS.values()
    )


def test_sections_come_back_as_they_were(bench: Any) -> None:
    sections = {"Mean IoU": "made with\n\n    command\n\n| table |", "Inference": "| table |", "Another's": "    text"}
    assert bench.sections_of(f"\n\n{bench.document({}, sections)}\n\n") == sections
    assert bench.sections_of("\n\n") == {}


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", None])
def test_a_document_without_place_for_tables_is_said_before_anything_runs(folder: Path, text: str | None) -> None:
    path = folder / "document.md"
    if text is not None:
        path.write_text(text)
    run = bench_in(folder)
    assert run.returncode == 2
    assert f"--write document.md: needs the lines {BEGIN!r} and {END!r}" in run.stderr
    assert not (folder / "runs").exists()
    assert path.is_file() == (text is not None)
    assert text is None or path.read_text() == text


def test_a_document_is_written_whole_or_not_at_all(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = held(tmp_path, "### VOC mAP\n\n| old |")
    path.chmod(0o640)
    link = tmp_path / "link.md"
    link.symlink_to(path)

    def full(source: Path, target: Path) -> None:
        assert Path(source).parent == path.parent  # another folder may be another disk
        assert path.read_text().endswith("The rest.\n")  # not yet touched
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="disk full"):
            bench.write(link, {"VOC mAP": "| new |"})
    assert tables_in(path) == "### VOC mAP\n\n| old |"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["document.md", "link.md"]
    bench.write(link, {"VOC mAP": "| new |"})
    assert tables_in(path) == "### VOC mAP\n\n| new |"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["document.md", "link.md"]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups, as terminals use them for Ctrl-C")
@pytest.mark.parametrize("whom", ["group", "process"])
def test_an_interruption_keeps_what_was_measured(folder: Path, whom: str) -> None:
    path = held(folder, "### Mean IoU\n\n| kept |\n\n### VOC mAP\n\n| old |")
    (folder / "mean_iou_speed.py").write_text(HANGS)
    only = ("--only", "voc_map_speed", "mean_iou_speed", "index_cache")
    bench = subprocess.Popen(
        [sys.executable, "bench.py", "--write", "document.md", *only],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    assert bench.stdout is not None
    lines = list(iter(bench.stdout.readline, "hangs\n"))
    scratch = Path(lines[-1].strip())
    assert scratch.is_dir()
    if whom == "group":
        os.killpg(bench.pid, signal.SIGINT)  # Ctrl-C
    else:
        os.kill(bench.pid, signal.SIGTERM)
    # it comes back only when nobody holds its ends of the pipes: the benchmark's own child is gone, too
    output, errors = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert errors == "interrupted: not run, or not to their end: mean_iou_speed, index_cache\n"
    assert "### VOC mAP" in output
    voc, iou = tables_in(path).split("### ")[1:]
    assert "measured anew" in voc
    assert iou == "Mean IoU\n\n| kept |"
    assert not scratch.exists()


class _Clock:
    """Time that only passes when it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def process_time(self) -> float:
        """Seconds."""
        return self.now


def test_a_turn_of_the_loop_is_from_a_batch_to_the_next(benchmarks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs beside takes 10, 20, 30 s, the loop's own work 1, 2, 3 s; the third turn is not timed."""
    step_overhead = importlib.import_module("step_overhead")
    clock, order = _Clock(), []
    monkeypatch.setattr(step_overhead, "time", clock)

    def beside() -> None:
        order.append("beside")
        clock.now += 10 * order.count("beside")

    run, batch = SimpleNamespace(deadline=None), object()
    same = step_overhead.SameBatch(run, batch, beside, turns=2)
    for handed in same(0):
        assert handed is batch
        order.append("step")
        clock.now += order.count("step")
        if run.deadline is not None:  # as the training loop, after its step
            break
    assert same.times == {"step": [1.0, 2.0], "beside": [10.0, 20.0]}
    assert order == ["beside", "step"] * 3


def test_the_overhead_is_the_step_over_the_bare_network(benchmarks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step_overhead = importlib.import_module("step_overhead")

    def prepared(name: str, turns: int) -> tuple[None, Any]:
        slow = [9.0] * step_overhead.WARM_UP  # not counted
        counted = turns - step_overhead.WARM_UP
        times = {"step": slow + [3.0] * counted, "beside": slow + [2.0] * counted}
        return None, SimpleNamespace(times=times, batch=SimpleNamespace(images=torch.zeros(4, 3, 5, 6)))

    monkeypatch.setattr(step_overhead, "prepared", prepared)
    monkeypatch.setattr(step_overhead, "trained", lambda run: None)
    rows = step_overhead.result(quick=True).rows
    assert len(rows) == len(step_overhead.TASKS)
    assert all((row.ratio, row.spread, row.met) == (1.5, (1.5, 1.5), False) for row in rows)
    assert rows[0].ours == "step 3.000 s"
    assert rows[0].beside == "bare forward and backward 2.000 s"
    assert rows[0].what == "YOLOv3, sample_yolov3_lite0, 4 images of 5x6"


@pytest.mark.parametrize("resident", [300.0, math.nan])
def test_faster_rcnn_keeps_its_rows_where_the_system_gives_no_account(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], resident: float
) -> None:
    """Ours takes 2 s a step of one image, torchvision's 4 s: twice as many images a second."""
    speed = importlib.import_module("frcnn_speed_vs_torchvision")

    def trained(run: Any) -> None:
        run.batches.times = {"step": [9.0, 2.0, 2.0], "beside": [9.0, 4.0, 4.0]}

    memory = {"ours": {"resident": resident, "allocated": 100.0}, "torchvision": {"resident": 400, "allocated": 125.0}}
    monkeypatch.setattr(speed, "trained", trained)
    monkeypatch.setattr(speed, "our_run", lambda images: SimpleNamespace(task=SimpleNamespace(model=None)))
    monkeypatch.setattr(speed, "their_step", lambda batch, ours: (lambda: None, None))
    monkeypatch.setattr(speed, "memory_in_fresh_process", lambda who, images: memory[who])
    rows = speed.result(quick=True).rows
    assert (rows[0].ratio, rows[0].ours, rows[0].beside) == (2.0, "0.500 images/s", "torchvision 0.250 images/s")
    assert (rows[-1].ratio, rows[-1].ours) == (0.8, "100 MB")
    said = "no /proc/self/status on this system: the row of resident memory is left out\n" in capsys.readouterr().out
    if math.isnan(resident):
        assert said
        assert len(rows) == 2
    else:
        assert not said
        assert [row.ratio for row in rows] == [2.0, 0.75, 0.8]


def test_resident_memory_is_no_number_without_proc(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speed = importlib.import_module("frcnn_speed_vs_torchvision")
    status = tmp_path / "status"
    monkeypatch.setattr(speed, "STATUS", status)
    assert math.isnan(speed.resident_megabytes("VmRSS"))
    status.write_text("Name:\tpython\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\n")
    assert speed.resident_megabytes("VmRSS") == pytest.approx(2.048)
    assert speed.resident_megabytes("VmHWM") == pytest.approx(3.072)


def test_allocated_memory_is_the_most_that_was_held_beyond_the_model(benchmarks: Path) -> None:
    speed = importlib.import_module("frcnn_speed_vs_torchvision")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model = torch.nn.Linear(1000, 1000)  # 4 MB
        for megabytes in (12, 20, 8):
            held = torch.zeros(megabytes * 250_000)
            del held
    assert speed.allocated_megabytes(profile, model) == pytest.approx(20, abs=0.1)


def test_a_process_for_memory_that_fails_shows_why(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    speed = importlib.import_module("frcnn_speed_vs_torchvision")
    script = tmp_path / "script.py"
    monkeypatch.setattr(speed, "__file__", str(script))
    script.write_text(
        "import json, sys; print('a line', file=sys.stderr); print('a line'); print(json.dumps(sys.argv[1:]))"
    )
    assert speed.memory_in_fresh_process("ours", 2) == {
        account: ["--memory-of", "ours", "--account", account, "--images", "2"] for account in ("resident", "allocated")
    }
    script.write_text("raise SystemExit('out of memory')")
    with pytest.raises(subprocess.CalledProcessError):
        speed.memory_in_fresh_process("ours", 2)
    assert capfd.readouterr().err == "out of memory\n"  # and nothing of the one that succeeded


@pytest.mark.parametrize("count", [1, 5, 16, 40])
def test_decoding_alone_takes_sixteen_images_at_a_time_however_few_there_are(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    pipelines = importlib.import_module("input_pipelines")
    read: list[str] = []

    def imread(path: str, flags: int) -> None:
        read.append(path)

    monkeypatch.setattr(pipelines.cv2, "imread", imread)
    batches = pipelines.decoding(pipelines.Pictures([str(number) for number in range(count)], [], [], []))
    for batch in range(1, 6):
        next(batches)
        assert len(read) == 16 * batch
    assert read == [str(position % count) for position in range(80)]


def test_every_loader_of_a_few_photographs_gives_whole_batches(benchmarks: Path, tmp_path: Path) -> None:
    """As with IMAGES: three files, where a batch has up to sixteen images."""
    pipelines = importlib.import_module("input_pipelines")
    pipelines.drawn_scenes(tmp_path, 3)
    paths = pipelines.photographs(tmp_path, 32)
    assert len(paths) == 3
    pictures = pipelines.with_truth(paths, tmp_path)
    for name, batches in {**pipelines.ours(pictures), **pipelines.torchvisions(pictures)}.items():
        batch = next(batches)
        images = batch[0] if isinstance(batch, (tuple, list)) else batch.images
        assert len(images) == pipelines.BATCHES[name.partition(",")[0]], name
