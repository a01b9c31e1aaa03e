"""What the events of a run leave behind."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from toy_task import Result
from whole_checkpoint import whole_checkpoint

from transfer.engine.checkpoint import load_checkpoint
from transfer.engine.hooks import (
    CheckpointKeeper,
    MetricsFile,
    ProgressLog,
    TensorBoard,
    duration,
    json_text,
    logging_to_file,
)
from transfer.engine.train import Evaluation, Saving, Step


def step(iteration: int, total: int = 6, **changes: Any) -> Step:
    values: dict[str, Any] = {
        "iteration": iteration,
        "total": total,
        "per_epoch": 4,
        "images": 8,
        "losses": {"loss_class": 0.5 * iteration, "loss_box": 1.0},
        "lr": 0.01,
        "grad_norm": None,
        "seconds": 2.0,
        "loader_seconds": 0.5,
        "dropped": {},
        "skipped_files": [],
        "skipped_step": False,
    }
    return Step(**{**values, **changes})


def rows(path: Path) -> list[dict[str, Any]]:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360000, "100:00:00")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_metrics_rows_hold_steps_and_evaluations_as_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write = MetricsFile(path, 0)
    write(step(1, grad_norm=3.0, dropped={"crop": 2}))
    write(Evaluation(2, 6, 4, [Result(0.25), Result(math.nan)], is_best=True))
    write(Saving({}, is_best=True))
    first, second = rows(path)
    assert (first["iteration"], first["epoch"], first["total"]) == (1, 0.25, 1.5)
    assert (first["loss_class"], first["loss_box"], first["lr"], first["grad_norm"]) == (0.5, 1.0, 0.01, 3.0)
    assert first["dropped_boxes"] == {"crop": 2}
    assert (second["iteration"], second["epoch"], second["is_best"]) == (2, 0.5, True)
    assert [e["values"] for e in second["evaluation"]] == [{"figure": 0.25}, {"figure": None}]


def test_rows_beyond_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write = MetricsFile(path, 0)
    for iteration in range(1, 6):
        write(step(iteration))
        if iteration in (3, 4):
            write(Evaluation(iteration, 6, 4, [Result(0.5)], is_best=False))
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"iteration": 1, "cut sh')
    MetricsFile(path, 3)(step(4, lr=9.0))
    assert [row["iteration"] for row in rows(path)] == [1, 2, 3, 3, 4]
    assert rows(path)[-1]["lr"] == 9.0


def test_the_log_says_how_far_and_what_it_costs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    log = ProgressLog(every=2)
    for iteration in range(1, 4):
        log(step(iteration, total=3))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # at the interval and at the end
    assert "epoch 0.5/0.8 iteration 2/3 lr 1.00e-02 loss 1.750 (class 0.750 box 1.000)" in lines[0]  # means of 1 and 2
    assert "4.0 images/s, 25% waiting for data" in lines[0]
    assert "iteration 3/3" in lines[1]
    assert "(class 1.500 box 1.000)" in lines[1]
    assert "left 0:00:00" in lines[1]


def test_the_log_names_unreadable_files_and_figures(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    log = ProgressLog(every=100)
    log(step(1, skipped_files=["a.jpg", "b.jpg"], skipped_step=True))
    log(Evaluation(4, 6, 4, [Result(0.123)], is_best=False))
    assert "12.30 [by hand]" in caplog.text
    assert "(2 so far): b.jpg" in caplog.text
    assert "iteration 1: a gradient overflowed" in caplog.text
    assert "figure 0.123" not in caplog.text
    log(Evaluation(6, 6, 4, [Result(0.123)], is_best=False, is_last=True))
    assert "figure 0.123" in caplog.text  # the table, at the end


def test_log_lines_go_to_the_file_those_from_before_it_had_a_name_first(tmp_path: Path) -> None:
    logger, handlers = logging.getLogger("trickstack"), logging.getLogger().handlers[:]
    with logging_to_file() as log_to:
        logger.info("before")
        log_to(tmp_path / "log.txt")
        logger.info("within ä")
    logger.warning("after")
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in lines] == ["before", "ä"]
    assert logging.getLogger().handlers == handlers
    with logging_to_file():
        logger.info("of a run that could not start")
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


def test_the_best_is_kept_beside_the_last(tmp_path: Path) -> None:
    keep = CheckpointKeeper(tmp_path)
    for iteration, is_best in ((1, False), (2, True), (3, False)):
        keep(Saving({**whole_checkpoint(), "iteration": iteration}, is_best))
        assert (tmp_path / "best.pth").exists() == (iteration > 1)
    assert load_checkpoint(tmp_path / "last.pth")["iteration"] == 3
    assert load_checkpoint(tmp_path / "best.pth")["iteration"] == 2


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path, 0)
    for iteration in (1, 2, 3):
        board(step(iteration))
    board(Evaluation(2, 6, 4, [Result(0.25)], is_best=True))
    board.close()
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.0")  # files are read by name, and both are of the same second
    board = TensorBoard(tmp_path, 2)  # goes on from iteration 2: what the first one wrote beyond is hidden
    board(step(3, lr=7.0))
    board.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss_class")] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert read.Scalars("train/lr")[-1].value == pytest.approx(7.0)
    assert len(read.Scalars("train/lr")) == 3
    assert [
        (e.step, e.value) for e in read.Scalars(f"evaluation/figure ({Result(0.25).protocol.partition(' at ')[0]})")
    ] == [(2, 0.25)]


def test_undefined_figures_are_null() -> None:
    assert json.loads(json_text({"a": [math.nan, 1.0], "b": ({"c": math.nan},)})) == {
        "a": [None, 1.0],
        "b": [{"c": None}],
    }


def test_an_evaluation_that_the_checkpoint_does_not_know_of_is_dropped(tmp_path: Path) -> None:
    """The run was killed between measuring at iteration 4 and saving that it did: it will measure there again."""
    path = tmp_path / "metrics.jsonl"
    rows = [{"iteration": i, "total": 1.0} for i in range(1, 6)]
    rows[2:2] = [{"iteration": 2, "evaluation": []}]
    rows[5:5] = [{"iteration": 4, "evaluation": []}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    MetricsFile(path, 4, 2)
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["iteration"] for row in kept if "total" in row] == [1, 2, 3, 4]
    assert [row["iteration"] for row in kept if "evaluation" in row] == [2]
