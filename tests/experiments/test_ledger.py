"""The ledger: who may make which run, whatever happens to whoever made it before."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from transfer.experiments.description import Description, slug, state_of_code
from transfer.experiments.ledger import STALE_SECONDS, Claim, Ledger
from transfer.experiments.processes import PROC, process_is_alive, process_start
from transfer.types import UserError


def description(seed: int = 0, name: str = "arm", **training: Any) -> Description:
    return Description(name, {"training": {"seed": seed, **training}, "loader": {"batch_size": 2}}, seed)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def claimed(ledger: Ledger, keys: list[str]) -> Claim:
    claim = ledger.claim(keys)
    assert claim is not None
    return claim


def change(ledger: Ledger, **values: Any) -> None:
    """Write into all rows what no method would."""
    names = ", ".join(f"{name} = ?" for name in values)
    ledger.connection.execute(f"UPDATE runs SET {names}", tuple(values.values()))


@pytest.fixture
def dead() -> tuple[int, str]:
    """Number and start of a process that was."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = process_start(process.pid)
        assert start is not None
        assert process_is_alive(process.pid, start)
        process.kill()
    return process.pid, start


def test_what_makes_two_runs_the_same() -> None:
    run = description(lr=0.1)
    assert run.key == description(lr=0.1, name="of another experiment").key
    assert run.key == description(lr=0.1, log_every=7, pictures=0).key
    different = [
        description(lr=0.2),
        description(seed=1, lr=0.1),
        Description(run.name, run.config, 1),
        Description(run.name, run.config, 0, processes=2),
        Description(run.name, run.config, 0, runner="other.run"),
        Description(run.name, {**run.config, "loader": {"batch_size": 4}}, 0),
    ]
    assert len({each.key for each in [run, *different]}) == 7
    assert len(run.config["training"]) == 2  # the key took nothing out of it


def test_description_comes_back_from_text() -> None:
    run = Description("+ class smoothing", {"a": [1, {"b": None}]}, 3, "x.run", 2)
    assert Description.from_json(run.to_json()) == run
    assert run.directory == f"class_smoothing-seed3-{run.key[:8]}"
    assert [slug(text) for text in ("../x y", "all but a/b", "++")] == ["x_y", "all_but_a_b", "unnamed"]


def test_state_of_code_is_of_the_sources(tmp_path: Path) -> None:
    state = state_of_code()
    assert len(state["code"]) == 12
    assert state == state_of_code()
    assert state["torch"][0].isdigit()


def test_runs_are_claimed_in_order_and_once(ledger: Ledger) -> None:
    keys = ledger.enter("e", [("a", description(seed)) for seed in (2, 0, 1)])
    claims = [claimed(ledger, keys) for _ in range(3)]
    assert [claim.description.seed for claim in claims] == [2, 0, 1]
    assert ledger.claim(keys) is None  # this process makes all three
    assert all(ledger.holds(claim) and ledger.confirm(claim) and ledger.beat(claim) for claim in claims)
    row = ledger.rows(keys)[keys[0]]
    assert (row.state, row.pid) == ("running", os.getpid())
    assert process_is_alive(row.pid or 0, row.process_start)


def test_done_stays_done_and_is_shared_between_experiments(ledger: Ledger) -> None:
    keys = ledger.enter("first", [("a", description())])
    assert ledger.finish(claimed(ledger, keys), {"figure": 0.5}, {"host": "h"})
    again = ledger.enter("second", [("b", description(name="b")), ("c", description(1)), ("d", description())])
    assert again == [*keys, description(1).key]  # the same run is listed once
    members = ledger.members("second")
    assert set(members) == {("b", 0), ("c", 1), ("d", 0)}
    assert members["b", 0].result == {"figure": 0.5}
    assert members["b", 0].facts == {"host": "h"}
    assert members["c", 1].state == "waiting"
    assert claimed(ledger, again).key == description(1).key


def test_a_run_whose_process_is_gone_waits_again_and_the_old_claim_is_worth_nothing(
    ledger: Ledger, dead: tuple[int, str]
) -> None:
    keys = ledger.enter("e", [("a", description())])
    old = claimed(ledger, keys)
    now = time.time()
    change(ledger, pid=dead[0], process_start=dead[1], started=now - 100, heartbeat=now - 40)
    new = claimed(ledger, keys)
    assert new.token != old.token
    assert not ledger.confirm(old)  # what claimed it, or was started by that, finds out
    assert not ledger.beat(old)
    assert not ledger.finish(old, {"figure": 1.0}, {})
    assert not ledger.fail(old, "late", attempts=1)
    assert not ledger.give_back(old)
    row = ledger.rows(keys)[keys[0]]
    assert (row.state, row.result, row.failures) == ("running", None, 0)
    assert row.seconds == pytest.approx(60, abs=1)  # as long as it was heard of
    assert ledger.finish(new, {}, {})


def test_the_number_of_a_process_may_belong_to_another_one_by_now(ledger: Ledger) -> None:
    keys = ledger.enter("e", [("a", description())])
    claimed(ledger, keys)
    change(ledger, process_start="before the last boot: 12")  # this process's number, another start
    assert ledger.claim(keys) is not None


def test_runs_of_another_host_are_taken_when_their_heartbeat_is_old(ledger: Ledger, dead: tuple[int, str]) -> None:
    keys = ledger.enter("e", [("a", description())])
    claimed(ledger, keys)
    change(ledger, host="elsewhere", pid=dead[0], process_start=dead[1], heartbeat=time.time() - STALE_SECONDS + 60)
    assert ledger.claim(keys) is None
    change(ledger, heartbeat=time.time() - STALE_SECONDS - 1)
    assert ledger.claim(keys) is not None


@pytest.mark.skipif(not PROC.is_dir(), reason="needs /proc")
def test_what_is_left_of_a_killed_process_does_not_count_as_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    state = ""
    while state != "Z":  # ended, and nobody has asked for its exit code
        state = (PROC / str(process.pid) / "stat").read_text().rpartition(")")[2].split()[0]
    assert process_start(process.pid) is None
    process.wait()
    assert process_start(process.pid) is None


def test_failures_are_counted_and_the_last_is_kept(ledger: Ledger) -> None:
    keys = ledger.enter("e", [("a", description())])
    assert ledger.fail(claimed(ledger, keys), "first", attempts=2)
    assert ledger.rows(keys)[keys[0]].state == "waiting"
    assert ledger.give_back(claimed(ledger, keys))  # an interruption is no failure
    assert ledger.fail(claimed(ledger, keys), "second", attempts=2)
    row = ledger.rows(keys)[keys[0]]
    assert (row.state, row.failures, row.error) == ("failed", 2, "second")
    assert ledger.claim(keys) is None
    assert ledger.retry_failed(keys) == 1
    assert ledger.retry_failed(keys) == 0
    assert ledger.rows(keys)[keys[0]].failures == 0
    assert ledger.claim(keys) is not None


def test_seconds_of_attempts_add_up(ledger: Ledger) -> None:
    keys = ledger.enter("e", [("a", description())])
    for lasted in (10, 20):
        claim = claimed(ledger, keys)
        change(ledger, started=time.time() - lasted)
        ledger.give_back(claim)
    assert ledger.rows(keys)[keys[0]].seconds == pytest.approx(30, abs=1)


CLAIMING = """
import json, sys
from pathlib import Path
from transfer.experiments.ledger import Ledger
ledger, keys, mine = Ledger(Path(sys.argv[1])), json.loads(sys.argv[2]), []
while claim := ledger.claim(keys):
    mine.append(claim.key)
print(json.dumps(mine), flush=True)
sys.stdin.readline()
"""


def test_processes_that_claim_at_once_get_different_runs(ledger: Ledger, repository: Path) -> None:
    keys = ledger.enter("e", [("a", description(seed)) for seed in range(60)])
    command = [sys.executable, "-c", CLAIMING, str(ledger.path), json.dumps(keys)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository)
        for _ in range(4)
    ]
    claims = []
    for process in processes:  # all stay alive until all have claimed, else their runs were free again
        assert process.stdout is not None
        claims += json.loads(process.stdout.readline())
    for process in processes:
        process.communicate("\n", timeout=30)
    assert sorted(claims) == sorted(keys)


def test_files_that_are_no_ledger_are_refused(tmp_path: Path) -> None:
    text, other, newer = tmp_path / "text", tmp_path / "other", tmp_path / "newer"
    text.write_text("not a data base, and long enough to tell" * 10)
    sqlite3.connect(other).execute("CREATE TABLE runs (x)").connection.execute("CREATE TABLE users (x)")
    sqlite3.connect(newer).execute("PRAGMA user_version = 7")
    for path, problem in (
        (text, "cannot be used"),
        (other, "users"),
        (newer, "version 7"),
        (tmp_path, "cannot be used"),
    ):
        with pytest.raises(UserError, match=problem) as refused:
            Ledger(path)
        assert str(path) in str(refused.value)
        assert "--work-dir" in str(refused.value)
