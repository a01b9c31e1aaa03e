"""Runs as tasks of a Ray cluster: with a Ray that notes what it is asked, and with the real one where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from transfer.experiments.description import Description
from transfer.experiments.ledger import Ledger
from transfer.experiments.on_ray import RayPool

HERE = Path(__file__).parent
DONE = ("done", {"metrics": [1]}, {"host": "node"}, "")


class FakeRay:
    """Ends tasks in their order, one at each `wait`.

    Args:
        outcomes: of the runs by their seed: what the task returns, or an exception that fetching it raises.
    """

    def __init__(self, outcomes: dict[int, Any]) -> None:
        self.outcomes = outcomes
        self.submitted: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
        self.cancelled: list[Any] = []
        self.most_pending = 0
        self.interrupt_at: int | None = None
        self.waits = 0

    def remote(self, function: Any) -> FakeRay:
        assert function.__name__ == "make_run"
        return self

    def options(self, **options: Any) -> Any:
        submitted = self.submitted

        class Bound:
            def remote(self, *arguments: Any) -> int:
                submitted.append((options, arguments))
                return int(json.loads(arguments[0])["seed"])

        return Bound()

    def wait(self, tasks: list[int], *, num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        assert num_returns == 1
        self.waits += 1
        self.most_pending = max(self.most_pending, len(tasks))
        if self.waits == self.interrupt_at:
            raise KeyboardInterrupt
        return tasks[:1], tasks[1:]

    def get(self, task: int) -> Any:
        outcome = self.outcomes.get(task, DONE)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def cancel(self, task: int, *, force: bool) -> None:
        assert not force  # or no checkpoint would be written
        self.cancelled.append(task)
        self.outcomes[task] = ("waiting", {}, {}, "")


def grid(tmp_path: Path, count: int = 4, **fields: Any) -> tuple[Ledger, list[str]]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    runs = [Description(f"toy {n}", {"steps": 3, "figure": 0.1 * n}, n, **fields) for n in range(count)]
    return ledger, ledger.enter("toy", [("arm", run) for run in runs])


def test_what_came_out_is_entered(tmp_path: Path) -> None:
    class NodeDiedError(Exception):
        pass

    ledger, keys = grid(tmp_path)
    told: list[str] = []
    ray = FakeRay({1: ("failed", {}, {}, "out of paper"), 2: NodeDiedError("node 7 is gone")})
    pool = RayPool(ledger, tmp_path / "runs", ray, told=lambda event, claim, seconds: told.append(event))
    assert pool.run(keys)
    rows = list(ledger.rows(keys).values())
    assert [row.state for row in rows] == ["done", "failed", "failed", "done"]
    assert (rows[0].result, rows[0].facts) == ({"metrics": [1]}, {"host": "node"})
    assert [row.error for row in rows[1:3]] == ["out of paper", "NodeDiedError: node 7 is gone"]
    assert told.count("started") == 4
    assert (told.count("done"), told.count("failed")) == (2, 2)
    assert RayPool(ledger, tmp_path / "runs", FakeRay({})).run(keys)  # nothing is left
    assert len(ray.submitted) == 4


def test_what_a_task_asks_for(tmp_path: Path) -> None:
    ledger, keys = grid(tmp_path, 1, processes=2)
    ray = FakeRay({})
    RayPool(ledger, tmp_path / "runs", ray, cores=3, gpus=1, attempts=4, device="cuda").run(keys)
    ((options, (text, root, device, attempts, cores, _)),) = ray.submitted
    assert options["num_cpus"] == 6
    assert options["num_gpus"] == 2
    assert options["max_retries"] == 3
    assert Description.from_json(text).key == keys[0]
    assert (root, device, attempts, cores) == (str(tmp_path / "runs"), "cuda", 4, 3)


def test_no_more_tasks_than_jobs(tmp_path: Path) -> None:
    ledger, keys = grid(tmp_path, 5)
    ray = FakeRay({})
    assert RayPool(ledger, tmp_path / "runs", ray, jobs=2).run(keys)
    assert ray.most_pending == 2
    assert {row.state for row in ledger.rows(keys).values()} == {"done"}


def test_an_interrupt_asks_the_tasks_to_stop_and_the_runs_wait(tmp_path: Path) -> None:
    ledger, keys = grid(tmp_path)
    ray = FakeRay({})
    ray.interrupt_at = 2
    assert not RayPool(ledger, tmp_path / "runs", ray).run(keys)
    assert ray.cancelled == [1, 2, 3]
    assert [row.state for row in ledger.rows(keys).values()] == ["done", "waiting", "waiting", "waiting"]
    assert RayPool(ledger, tmp_path / "runs", FakeRay({})).run(keys)
    assert {row.state for row in ledger.rows(keys).values()} == {"done"}


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


TASK = """
import json, sys
from transfer.experiments.on_ray import make_run
print(json.dumps(make_run(sys.argv[1], sys.argv[2], "cpu", 2, 1, ["toy_runner"])))
"""


def test_a_task_makes_its_run_and_goes_on_from_what_another_left(tmp_path: Path) -> None:
    run = Description("toy", {"steps": 4, "figure": 0.5, "trouble": "crash once"}, 0, runner="toy_runner.run")
    start = tmp_path / run.directory / "001"
    start.mkdir(parents=True)
    (start / "last.pth").write_text("1")  # of a task that was lost with its node
    command = [sys.executable, "-c", TASK, run.to_json(), str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120, env=_environment(), check=True)
    state, result, facts, _ = json.loads(made.stdout)
    assert (state, result["directory"]) == ("done", f"{run.directory}/001")
    assert result["metrics"][0]["values"]["steps"] == 0.5
    assert (facts["device"], facts["threads"]) == ("cpu", 1)
    assert (start / "steps.txt").read_text().split() == ["2", "3", "4"]  # the crash at 2 repeated nothing


CLUSTER = """
import sys, ray
from pathlib import Path
from transfer.experiments.description import Description
from transfer.experiments.ledger import Ledger
from transfer.experiments.on_ray import RayPool
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
root = Path(sys.argv[1])
ledger = Ledger(root / "ledger.sqlite")
runs = [Description(f"toy {n}", {"steps": 3, "figure": 0.1 * n}, n, runner="toy_lost.run") for n in range(3)]
keys = ledger.enter("toy", [("arm", run) for run in runs])
assert RayPool(ledger, root / "runs", ray, preload=["toy_runner"]).run(keys)
ray.shutdown()
"""


@pytest.mark.slow
def test_a_real_ray_retries_a_lost_task(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    command = [sys.executable, "-c", CLUSTER, str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, env=_environment(), check=False)
    assert made.returncode == 0, made.stderr
    rows = list(Ledger(tmp_path / "ledger.sqlite").members("toy").values())
    assert (tmp_path / "runs" / "lost").exists()
    assert [row.state for row in rows] == ["done"] * 3
    figures = sorted(row.result["metrics"][0]["values"]["steps"] for row in rows if row.result)
    assert figures == pytest.approx([0.0, 0.1, 0.2])
    assert all(len(list((tmp_path / "runs" / row.description.directory).glob("*/results.json"))) == 1 for row in rows)
