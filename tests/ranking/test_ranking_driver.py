"""A ranking through the ledger: killed at any moment, in stages, with runs that fail or are given up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy_ranking

from transfer.experiments.description import Description
from transfer.experiments.experiment import Experiment
from transfer.experiments.ledger import Ledger
from transfer.ranking.collect import Known, collect
from transfer.ranking.driver import Driver
from transfer.ranking.plan import Halving
from transfer.ranking.record import BackboneRecord, RankingRecord, TaskRecord
from transfer.types import UserError

HERE = Path(__file__).parent


def record_of(driver: Driver) -> RankingRecord:
    plan = driver.grid.plan
    tasks = [TaskRecord(task.name, "detection", task.config, "figure", "", 8, 4) for task in plan.tasks]
    backbones = [BackboneRecord(b.name, "", b.arm, "", None, None, 1, 1, [1, 1]) for b in plan.backbones]
    bases = {name: (f"{name}.py", toy_ranking.toy_config("a")) for name in ("one", "two", "grown")}
    return collect(driver, Known(tasks, backbones, bases, "the command"))


class AtOnce:
    """Makes runs in this process, in no time; what it made is counted.

    Args:
        failing: parts of names of runs that fail.
    """

    def __init__(self, *failing: str) -> None:
        self.failing, self.made, self.jobs = failing, Counter[str](), list[int | None]()
        self.stop_after: int | None = None

    def __call__(self, experiment: Experiment, jobs: int | None) -> bool:
        ledger = Ledger(experiment.ledger_path)
        keys = ledger.enter(experiment.name, [(arm, run) for (arm, _), run in experiment.runs.items()])
        self.jobs.append(jobs)
        while (claim := ledger.claim(keys)) is not None:
            name, directory = claim.description.name, claim.description.directory
            if self.stop_after is not None and self.made.total() >= self.stop_after:
                ledger.give_back(claim)
                return False
            self.made[f"{name} {claim.description.seed}"] += 1
            if any(part in name for part in self.failing):
                ledger.fail(claim, "it burnt down", attempts=1)
                continue
            result = self.result(claim.description, experiment.work_dir / "runs" / directory / "001")
            ledger.finish(claim, {**result, "directory": f"{directory}/001"}, {"host": "h", "processor": "p"})
        ledger.close()
        return True

    @staticmethod
    def result(run: Description, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True)
        for name in ("last.pth", "0.jpg", "0-truth.jpg"):
            (folder / name).write_text(run.name)
        if run.runner.endswith("beside"):
            assert toy_ranking.beside(run.config, name="beside", work_dir=folder, device="cpu", resume=None)
            return dict(json.loads((folder / "beside/001/results.json").read_text()))
        backbone, lr = run.config["model"]["backbone"], run.config["optimizer"]["lr"]
        figure = toy_ranking.QUALITY[backbone] - 0.05 * abs(lr - toy_ranking.BEST_LR[backbone]) + 0.01 * run.seed
        per_class = {"cat": {"ap": figure, "truths": 7}}
        metric = {"protocol": "counted", "main": "mAP", "values": {"mAP": figure}, "per_class": per_class}
        return {"measured": "last.pth", "metrics": [{**metric, "count_columns": ["truths"]}]}


@pytest.mark.slow
def test_ten_kills_in_the_middle_lose_no_run_and_make_none_twice(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent / 'experiments'}:{repository}")
    command = [sys.executable, str(HERE / "toy_ranking.py"), str(tmp_path), "10"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    came_to = [int(line.split()[-1]) for line in made.stdout.splitlines()]
    assert len(came_to) == 10
    assert came_to == sorted(came_to)
    assert came_to[0] < came_to[-1] < 49  # kills fell into the grid, not behind it
    driver = toy_ranking.toy_driver(tmp_path)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    rows = ledger.rows([row[0] for row in ledger.connection.execute("SELECT key FROM runs")])
    assert len(rows) == 1 + 6 + 6 + 18 + 12 + 6  # grown, forecasts, costs, search, runs, pictures
    assert {row.state for row in rows.values()} == {"done"}
    assert not list(tmp_path.glob("runs/*/two at once"))
    for row in rows.values():
        folder = tmp_path / "runs" / row.description.directory
        assert len(list(folder.glob("*/results.json"))) == 1
        if row.description.runner == "toy_ranking.run":
            steps = [int(line) for path in folder.glob("*/steps.txt") for line in path.read_text().split()]
            length = round(row.description.config["training"]["epochs"])
            assert sorted(set(steps)) == list(range(1, length + 1))
            assert len(steps) <= length + 10  # gone on with: a kill repeats one step at most
    record = record_of(driver)
    assert {run.state for run in record.runs} == {"done"}
    lrs = {(run.backbone, run.lr) for run in record.runs}
    assert lrs == {("a", 3.0), ("b", 1.0), ("grown", 1.0)}
    assert next(run.figure for run in record.runs if (run.backbone, run.seed) == ("a", 1)) == pytest.approx(51.0)


def test_stages_their_order_and_the_record(tmp_path: Path) -> None:
    driver, maker = toy_ranking.toy_driver(tmp_path), AtOnce()
    assert driver.make(maker)
    names = list(maker.made)
    stages = [
        next(names.index(name) for name in names if part in name) for part in ("growth", "forecast", "cost", "lr")
    ]
    assert stages == sorted(stages)
    assert maker.jobs == [None, None, 1, None, None, None]  # costs are measured alone
    assert names.index("b on two 0") < names.index("a on one 1")  # all at one seed before the next
    assert maker.made["a on one 0"] == 1
    record = record_of(driver)
    assert (record.tasks[0].figure, record.tasks[0].protocol) == ("mAP", "counted")
    run = next(run for run in record.runs if (run.backbone, run.task, run.seed) == ("a", "two", 1))
    assert (run.state, run.lr, run.per_class) == ("done", 3.0, {"cat": {"ap": pytest.approx(51.0)}})
    told = """tools/train_det.py two.py --cfg-options "data.train={'type': 'two'}" optimizer.lr=3.0 training.seed=1"""
    assert run.command == told
    assert [s.factor for s in record.searches if s.chosen] == [3.0, 1.0, 1.0] * 2
    assert all(s.figure is not None and s.state == "done" for s in record.searches)
    assert "a on one (x3), a on two (x3): a wider grid" in record.facts["best lr at the edge of the grid"]
    assert record.facts["peak memory"] == "as told"
    assert len(record.costs) == len(record.forecasts) == 6
    assert (record.costs[0].backbone, record.costs[0].peak_memory_mb) == ("a", 5.0)
    assert record.backbones[2].grown is not None
    assert record.backbones[2].grown["top1"] == pytest.approx(30.0)
    assert [(p.task, list(p.predictions)) for p in record.pictures] == [
        (t, ["a", "b", "grown"]) for t in ("one", "two")
    ]
    drawn = driver.folder / record.pictures[1].predictions["b"]
    assert drawn.read_text() == "b on two pictures"
    before = maker.made.copy()
    assert driver.make(maker)
    assert maker.made == before  # nothing twice


def test_an_interrupted_ranking_is_recorded_as_far_as_it_came(tmp_path: Path) -> None:
    driver, maker = toy_ranking.toy_driver(tmp_path), AtOnce()
    maker.stop_after = 1 + 12 + 18 + 3  # three runs that count
    assert not driver.make(maker)
    record = record_of(driver)
    assert Counter(run.state for run in record.runs) == {"done": 3, "missing": 9}
    assert all(run.command for run in record.runs)
    assert record.pictures == []
    maker.stop_after = None
    assert driver.make(maker)
    assert set(maker.made.values()) == {1}


def test_what_fails_and_what_hangs_on_it(tmp_path: Path) -> None:
    driver = toy_ranking.toy_driver(tmp_path)
    assert driver.make(AtOnce("growth", "a on one search", "b on two search lr x1", "b on one"))
    runs = {(run.backbone, run.task, run.seed): run for run in record_of(driver).runs}
    grown = runs["grown", "one", 0]
    assert (grown.state, grown.error) == ("failed", "it could not be grown: it burnt down")
    nowhere = runs["a", "one", 0]
    assert (nowhere.state, nowhere.error, nowhere.lr) == ("failed", "no lr of the search gave a figure", None)
    assert (runs["b", "two", 0].state, runs["b", "two", 0].lr) == ("done", 0.3)  # the best of those that are left
    assert (runs["a", "two", 1].state, runs["a", "two", 1].figure) == ("done", pytest.approx(51.0))


def test_given_up_after_the_first_seed(tmp_path: Path) -> None:
    halving = Halving((1,), keep=0.3, margin=15.0)
    driver, maker = toy_ranking.toy_driver(tmp_path, halving=halving, seeds=3), AtOnce()
    assert driver.make(maker)
    states = {(run.backbone, run.seed): run.state for run in record_of(driver).runs if run.task == "one"}
    assert states == {
        **{(name, seed): "done" for name in "ab" for seed in range(3)},  # b is 10 points behind: within the margin
        ("grown", 0): "done",
        ("grown", 1): "halved",
        ("grown", 2): "halved",
    }
    assert maker.made["grown on one 1"] == 0


def test_nobody_is_given_up_before_all_had_their_chance(tmp_path: Path) -> None:
    driver, maker = toy_ranking.toy_driver(tmp_path, halving=Halving((1,), keep=0.3, margin=0.0)), AtOnce()
    maker.stop_after = 1 + 12 + 18 + 2  # a and b on one
    assert not driver.make(maker)
    assert driver.kept("one") == {}
    maker.stop_after = None
    assert driver.make(maker)
    assert driver.kept("one") == {"b": 1, "grown": 1}


@pytest.fixture
def whole_grid_one_by_one(tmp_path: Path) -> Callable[[], AtOnce]:
    def make() -> AtOnce:
        driver, maker = toy_ranking.toy_driver(tmp_path), AtOnce()
        for index in range(len(driver.grid.slots())):
            assert driver.only(index, maker)
            assert driver.only(index, maker)  # a second task of the same number finds it done
        return maker

    return make


def test_a_run_at_a_time_makes_the_same_grid(whole_grid_one_by_one: Callable[[], AtOnce], tmp_path: Path) -> None:
    maker = whole_grid_one_by_one()
    assert set(maker.made.values()) == {1}
    assert maker.made.total() == 1 + 18 + 12
    driver = toy_ranking.toy_driver(tmp_path)
    assert {run.state for run in record_of(driver).runs} == {"done"}
    assert driver.make(maker)  # the rest: forecasts, costs, pictures
    assert maker.made.total() == 49


def test_a_run_that_comes_too_early_says_so(tmp_path: Path) -> None:
    driver = toy_ranking.toy_driver(tmp_path)
    with pytest.raises(UserError, match=r"--only 20 \(b on one, seed 0\): the search of its lr is not over"):
        driver.only(20, AtOnce())
    with pytest.raises(UserError, match="it is not grown yet"):
        driver.only(7, AtOnce())
    with pytest.raises(UserError, match="the grid has runs 0 to 30"):
        driver.only(31, AtOnce())


def test_another_config_is_another_ranking(tmp_path: Path) -> None:
    driver, other = toy_ranking.toy_driver(tmp_path), toy_ranking.toy_driver(tmp_path)
    assert driver.name == other.name
    assert driver.name == toy_ranking.toy_driver(tmp_path, seeds=7).name  # more seeds go on in the same folder
    dict(other.grid.configs)["a", "one"]["optimizer"]["lr"] = 2.0
    assert driver.name != other.name
