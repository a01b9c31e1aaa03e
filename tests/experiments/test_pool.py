"""Runs in processes of their own: killed at any moment, interrupted, crashing, several at a time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toy_pool import descriptions

from transfer.experiments.ledger import Ledger, Row
from transfer.experiments.processes import process_is_alive

HERE = Path(__file__).parent


class ToyPool:
    """Pools on one ledger, each a process."""

    def __init__(self, folder: Path, configs: list[dict[str, Any]]) -> None:
        self.folder = folder
        (folder / "configs.json").write_text(json.dumps(configs))
        self.count = len(configs)
        self.begun: list[subprocess.Popen[str]] = []

    def start(self, **settings: Any) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        arguments = [str(self.folder), str(self.folder / "configs.json"), json.dumps({"jobs": 2, **settings})]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "toy_pool.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # so that a Ctrl-C can be sent to it and what it started, and to nothing else
        )
        self.begun.append(process)
        return process

    def finish(self, **settings: Any) -> str:
        process = self.start(**settings)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output

    def rows(self) -> list[Row]:
        ledger = Ledger(self.folder / "ledger.sqlite")
        found = ledger.members("toy")
        ledger.close()
        return [row for _, row in sorted(found.items(), key=lambda item: item[0])]

    def wait_for(self, condition: Callable[[list[Row]], Any], seconds: float = 120.0) -> list[Row]:
        end = time.monotonic() + seconds
        while not condition(rows := self.rows()):
            assert time.monotonic() < end, [(row.state, row.error) for row in rows]
            time.sleep(0.02)
        return rows

    def at_work(self) -> list[Row]:
        """The runs whose own process is there: not those that a pool has claimed and not begun."""
        pools = [process.pid for process in self.begun]
        running = [row for row in self.rows() if row.state == "running" and row.pid not in pools]
        return [row for row in running if process_is_alive(row.pid or 0, row.process_start)]

    def directory(self, row: Row) -> Path:
        return self.folder / "runs" / row.description.directory

    def steps(self, row: Row) -> list[int]:
        return [int(line) for path in self.directory(row).glob("*/steps.txt") for line in path.read_text().split()]

    def console(self, row: Row) -> str:
        path = self.directory(row) / "console.txt"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Callable[[list[dict[str, Any]]], ToyPool]]:
    made: list[ToyPool] = []

    def make(configs: list[dict[str, Any]]) -> ToyPool:
        made.append(ToyPool(tmp_path, configs))
        return made[-1]

    yield make
    for pool in made:
        for process in pool.begun:
            if process.poll() is None:
                process.kill()
                process.communicate()


def has_failed(rows: list[Row], *, times: int) -> bool:
    return rows[0].failures == times


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_no_run_and_make_none_twice(
    toy: Callable[..., ToyPool], tmp_path: Path
) -> None:
    draw = random.Random(0)
    gate = tmp_path / "gate"  # keeps the last runs from ending before the kills do
    configs: list[dict[str, Any]] = [{"steps": 8, "seconds": 0.05, "figure": 0.01 * n} for n in range(8)]
    for config in configs[6:]:
        config["gate"] = str(gate)
    pool = toy(configs)
    process = pool.start(attempts=12)
    killed = []
    for kill in range(10):
        if kill % 3 != 2:  # every third falls into the start
            pool.wait_for(lambda rows: pool.at_work())
        time.sleep(draw.uniform(0.0, 0.4))
        runs = pool.at_work()
        if kill % 2 and runs:
            os.kill(draw.choice(runs).pid or 0, signal.SIGKILL)
            killed.append("run")
        else:
            process.kill()
            process.communicate()
            killed.append("pool")
            process = pool.start(attempts=12)
    assert set(killed) == {"run", "pool"}
    gate.touch()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert pool.finish() == ""
    rows = pool.rows()
    assert [row.state for row in rows] == ["done"] * 8
    for number, row in enumerate(rows):
        assert row.result is not None
        assert row.result["metrics"][0]["values"]["steps"] == pytest.approx(0.01 * number)
        assert len(list(pool.directory(row).glob("*/results.json"))) == 1
        assert not (pool.directory(row) / "two at once").exists()
        steps = pool.steps(row)
        assert sorted(set(steps)) == list(range(1, 9))
        assert len(steps) <= 8 + 10  # gone on with from the checkpoint: a kill repeats one step at most


def test_done_is_done_and_leaves_no_process(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 2, "figure": 0.5}, {"steps": 2, "figure": 0.25}])
    assert pool.finish(jobs=1).splitlines() == ["started toy 0", "done toy 0", "started toy 1", "done toy 1"]
    assert pool.finish() == ""  # nothing is left to do
    rows = pool.rows()
    assert [row.result["metrics"][0]["values"]["steps"] for row in rows if row.result] == [0.5, 0.25]
    assert [row.result["directory"] for row in rows if row.result] == [
        f"{row.description.directory}/001" for row in rows
    ]
    assert all(row.facts and row.facts["code"] and row.facts["device"] == "cpu" for row in rows)
    assert not any(process_is_alive(row.pid or 0, row.process_start) for row in rows)


def test_two_pools_on_one_ledger_share_the_runs(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 3, "seconds": 0.1, "figure": 0.0, "number": n} for n in range(6)])
    first, second = pool.start(), pool.start()
    printed = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted("".join(printed).split("\n"))[1:] == sorted(
        f"{e} toy {n}" for e in ("done", "started") for n in range(6)
    )
    assert all(len(pool.steps(row)) == 3 for row in pool.rows())
    assert not list(pool.folder.glob("runs/*/two at once"))


def test_what_crashes_is_tried_again_from_its_checkpoint_and_given_up_after_three(toy: Callable[..., ToyPool]) -> None:
    troubles = ("crash", "crash once", "mistake", "full disk")
    pool = toy([{"steps": 4, "figure": 0.0, "trouble": trouble} for trouble in troubles])
    printed = pool.finish()
    always, once, mistake, full = pool.rows()
    assert [row.state for row in pool.rows()] == ["failed", "done", "failed", "done"]
    assert [row.failures for row in pool.rows()] == [3, 1, 1, 1]
    assert pool.steps(full) == [1, 2, 3, 4]  # what may pass costs no checkpoint
    assert full.error == "the disk is full"
    assert "RuntimeError: the disk is on fire" in (always.error or "")
    assert mistake.error == "steps: give more"
    assert pool.steps(once) == [1, 2, 3, 4]  # the second attempt began at 3
    assert "begins at step 2" in pool.console(once)
    assert printed.count("crashed toy 0") == 2
    assert printed.count("failed toy 0") == 1


def test_the_signal_that_killed_a_run_is_kept(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 1, "figure": 0.0, "trouble": "hang"}])
    process = pool.start()
    for failures in (1, 2, 3):
        pool.wait_for(lambda rows: pool.at_work() and "begins at" in pool.console(rows[0]))
        os.kill(pool.at_work()[0].pid or 0, signal.SIGKILL)
        pool.wait_for(partial(has_failed, times=failures))
    process.communicate(timeout=120)
    (row,) = pool.rows()
    assert (row.state, row.failures) == ("failed", 3)
    assert "killed by SIGKILL" in (row.error or "")
    assert "begins at step" in (row.error or "")


def test_ctrl_c_lets_runs_write_their_checkpoint(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 400, "seconds": 0.05, "figure": 0.0, "number": n} for n in range(3)])
    process = pool.start()
    pool.wait_for(lambda rows: len([row for row in rows if pool.steps(row)]) == 2)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert output.count("interrupted") == 2
    rows = pool.rows()
    assert [row.state for row in rows] == ["waiting"] * 3
    assert [row.failures for row in rows] == [0] * 3
    for row in rows[:2]:
        saved = int((pool.directory(row) / "001" / "last.pth").read_text())
        assert saved == pool.steps(row)[-1]
        assert row.seconds > 0


def test_a_second_ctrl_c_kills(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 1, "figure": 0.0, "trouble": "hang"}])
    process = pool.start()
    (row,) = pool.wait_for(lambda rows: rows and pool.steps(rows[0]))
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None  # waits for the run
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    (row,) = pool.rows()
    assert row.state == "waiting"
    assert not process_is_alive(row.pid or 0, row.process_start)


def test_a_run_whose_pool_was_killed_stops_by_itself_with_a_checkpoint(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 1000, "seconds": 0.05, "figure": 0.0}])
    process = pool.start()
    (row,) = pool.wait_for(lambda rows: rows and pool.steps(rows[0]))
    process.kill()
    process.communicate()
    end = time.monotonic() + 120
    while process_is_alive(row.pid or 0, row.process_start):
        assert time.monotonic() < end
        time.sleep(0.05)
    saved = int((pool.directory(row) / "001" / "last.pth").read_text())
    assert saved == pool.steps(row)[-1]
    assert pool.rows()[0].state == "running"  # nobody was there to say otherwise; the next pool looks


def test_a_refused_checkpoint_is_put_aside_and_the_run_begins_anew(toy: Callable[..., ToyPool]) -> None:
    configs = [{"steps": 4, "figure": 0.5}]
    pool = toy(configs)
    start = pool.folder / "runs" / descriptions(configs)[0].directory / "001"
    start.mkdir(parents=True)
    (start / "last.pth").write_text("damaged")
    pool.finish()
    (row,) = pool.rows()
    assert (row.state, row.failures) == ("done", 1)
    assert row.error == "'damaged' is no checkpoint"
    assert (start / "refused.pth").read_text() == "damaged"
    assert row.result is not None
    assert row.result["directory"] == f"{row.description.directory}/002"


def test_a_result_that_the_ledger_was_not_told_of_is_taken(toy: Callable[..., ToyPool]) -> None:
    configs = [{"steps": 4, "figure": 0.5}]
    pool = toy(configs)
    start = pool.folder / "runs" / descriptions(configs)[0].directory / "001"
    start.mkdir(parents=True)
    (start / "results.json").write_text('{"metrics": [{"main": "steps", "values": {"steps": 0.75}}]}')
    pool.finish()
    (row,) = pool.rows()
    assert row.state == "done"
    assert row.result is not None
    assert row.result["metrics"][0]["values"]["steps"] == 0.75
    assert pool.steps(row) == []


def test_processes_of_a_run_get_what_torchrun_sets_and_a_gpu_each(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 1, "figure": 0.0, "processes": 2}, {"steps": 1, "figure": 0.0}, {"steps": 1, "figure": 1.0}])
    pool.finish(jobs=1, gpus=["5", "7"])
    together, *alone = pool.rows()
    assert [row.state for row in (together, *alone)] == ["done"] * 3
    for rank, name in enumerate(("console.txt", "console_rank1.txt")):
        assert f"step 0 world 2 rank {rank} gpus 5,7" in (pool.directory(together) / name).read_text()
    assert all("world None rank None gpus 5" in pool.console(row) for row in alone)


def test_runs_at_a_time_are_given_different_gpus(toy: Callable[..., ToyPool]) -> None:
    pool = toy([{"steps": 1, "figure": 0.0, "gate": "gate", "number": n} for n in range(3)])
    pool.start(jobs=3, gpus=["5", "7"])
    rows = pool.wait_for(lambda rows: len(pool.at_work()) == 3 and all(pool.console(row) for row in rows))
    assert sorted(pool.console(row).split()[-1] for row in rows) == ["5", "5", "7"]
