"""A bounded, balanced draw."""

from __future__ import annotations

import numpy as np
import pytest

from transfer.ranking.reservoir import ClassReservoir
from transfer.types import UserError


def kept(per_class: int, total: int, rows: list[tuple[int, float]]) -> set[tuple[int, float]]:
    reservoir = ClassReservoir(per_class=per_class, total=total)
    for label, priority in rows:
        reservoir.add(label, priority, {"x": np.array([priority])})
    labels, found = reservoir.labels_and_rows()
    return {(int(label), float(row["x"][0])) for label, row in zip(labels, found, strict=True)}


def test_of_each_class_those_of_least_priority() -> None:
    rows = [(0, 0.5), (0, 0.1), (1, 0.9), (0, 0.3), (0, 0.2), (1, 0.8)]
    assert kept(2, 100, rows) == {(0, 0.1), (0, 0.2), (1, 0.8), (1, 0.9)}
    assert kept(2, 100, rows[::-1]) == kept(2, 100, rows)


def test_rare_classes_keep_all_they_have() -> None:
    rows = [(0, place / 100) for place in range(50)] + [(1, 0.9), (2, 0.95), (2, 0.97)]
    found = kept(40, 8, rows)
    assert {row for row in found if row[0]} == {(1, 0.9), (2, 0.95), (2, 0.97)}
    assert {row for row in found if not row[0]} == {(0, place / 100) for place in range(5)}


def test_what_is_not_wanted_would_not_be_kept() -> None:
    reservoir = ClassReservoir(per_class=2, total=9)
    for priority in (0.5, 0.4):
        assert reservoir.wants(3, priority)
        reservoir.add(3, priority, {})
    assert not reservoir.wants(3, 0.6)
    assert reservoir.wants(3, 0.45)
    assert reservoir.wants(4, 0.99)
    reservoir.add(3, 0.6, {})
    assert len(reservoir.labels_and_rows()[1]) == 2


def test_the_draw_is_uniform() -> None:
    rng = np.random.default_rng(0)
    drawn: np.ndarray = np.zeros(10)
    for _ in range(2000):
        reservoir = ClassReservoir(per_class=3, total=3)
        for row, priority in enumerate(rng.random(10)):
            reservoir.add(0, float(priority), {"row": np.array(row)})
        for row in reservoir.labels_and_rows()[1]:
            drawn[int(row["row"])] += 1
    assert drawn / 2000 == pytest.approx(np.full(10, 0.3), abs=0.05)


def test_limits_out_of_range() -> None:
    with pytest.raises(UserError, match=r"per_class=1, total='many': give whole numbers of 2 or more"):
        ClassReservoir(per_class=1, total="many")  # type: ignore[arg-type]
