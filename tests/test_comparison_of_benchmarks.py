"""What the benchmarks of speed share, by hand: a target that is missed must show."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def comparison(repository: Path) -> ModuleType:
    """benchmarks/comparison.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("comparison", repository / "benchmarks" / "comparison.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comparison"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_ratio_is_taken_within_each_round(comparison: ModuleType) -> None:
    """The machine was half as fast in the second round: means would give 12 / 9, medians of the sides 4 / 3."""
    middle, (low, high) = comparison.ratio_of([2.0, 8.0, 4.0], [1.0, 4.0, 4.0])
    assert (middle, low, high) == (2.0, 1.5, 2.0)
    assert comparison.ratio_of([3.0], [2.0]) == (1.5, (1.5, 1.5))


@pytest.mark.parametrize(
    ("wanted", "ratio", "met"),
    [("at least", 1.5, True), ("at least", 1.49, False), ("at most", 1.5, True), ("at most", 1.51, False)],
)
def test_targets(comparison: ModuleType, wanted: str, ratio: float, met: bool) -> None:
    row = comparison.Row("key", "what", "1 s", "2 s", ratio, (1.0, 2.0), 1.5, wanted)
    assert row.met is met
    assert ("**missed**" in comparison.table_of([row])) is not met
    assert comparison.Row("key", "what", "1 s", "2 s", ratio, (1.0, 2.0)).met is None


def test_runs_alternate_and_the_clock_is_that_of_each_run(comparison: ModuleType) -> None:
    order: list[str] = []
    now = [0.0]

    def run(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    runs = {"a": lambda: run("a", 1.0), "b": lambda: run("b", 5.0)}
    times = comparison.in_turn(runs, rounds=3, warm_up=1, clock=lambda: now[0])
    assert times == {"a": [1.0] * 3, "b": [5.0] * 3}
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]  # the first pair is not counted


def test_rows_come_back_from_their_file(comparison: ModuleType, tmp_path: Path) -> None:
    row = comparison.Row("key", "what", "1 s", "2 s", 2.0, (1.5, 2.5), 1.5, "at most", "a note")
    result = comparison.Result([row], {"torch": "2.6.0"})
    comparison.report(result, argparse.Namespace(json=tmp_path / "rows.json"))
    assert comparison.read_result(tmp_path / "rows.json") == result
