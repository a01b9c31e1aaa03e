"""When to stop, by hand; resume; and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transfer.engine.early_stopping import EarlyStopping
from transfer.types import UserError


def test_by_hand() -> None:
    """Patience 3: the third evaluation in a row without improvement stops; equal is none, nor is NaN."""
    stopping = EarlyStopping(3)
    figures = [0.5, 0.5, math.nan, 0.6, 0.6, 0.1, math.nan]
    assert [stopping.tell(figure) for figure in figures] == [False] * 6 + [True]
    assert (stopping.best, stopping.stale, stopping.stopped) == (0.6, 3, True)


def test_patience_of_one_stops_at_the_first_evaluation_without_improvement() -> None:
    stopping = EarlyStopping(1)
    assert [stopping.tell(figure) for figure in (0.1, 0.2, 0.2)] == [False, False, True]


def test_an_improvement_must_exceed_the_best_by_more_than_min_delta() -> None:
    stopping = EarlyStopping(2, min_delta=0.25)
    # 0.75 is 0.25 above 0.5: no more than min_delta. 0.875 exceeds it, though it is not far from 0.75.
    assert [stopping.tell(figure) for figure in (0.5, 0.75, 0.875, 1.0, 1.125)] == [False] * 4 + [True]
    assert stopping.best == 0.875


@pytest.mark.parametrize("seed", range(5))
def test_the_stop_is_where_the_best_of_the_past_was_patience_ago(seed: int) -> None:
    """Written the other way round: stop at the first n whose best figure so far was measured at n - patience."""
    figures = np.random.default_rng(seed).random(200).tolist()
    stopping = EarlyStopping(7)
    stopped_at = next(n for n, figure in enumerate(figures) if stopping.tell(figure))
    assert stopped_at == next(n for n in range(7, 200) if int(np.argmax(figures[: n + 1])) == n - 7)


def test_resume_goes_on_as_if_unbroken() -> None:
    figures = [0.5, 0.7, 0.6, 0.6, 0.8, 0.1, 0.1, 0.1]
    unbroken = EarlyStopping(3)
    expected = [unbroken.tell(figure) for figure in figures]
    for told in range(len(figures)):
        first, second = EarlyStopping(3), EarlyStopping(3)
        found = [first.tell(figure) for figure in figures[:told]]
        second.load_state_dict(first.state_dict())
        assert found + [second.tell(figure) for figure in figures[told:]] == expected
    over = EarlyStopping(3)
    over.load_state_dict(unbroken.state_dict())
    assert over.stopped


def test_nonsense_is_refused_all_at_once() -> None:
    with pytest.raises(UserError, match=r"patience is 0(.|\n)*min_delta is -1"):
        EarlyStopping(0, min_delta=-1)
    with pytest.raises(UserError, match=r"patience is 2\.5"):
        EarlyStopping(2.5)
    with pytest.raises(UserError, match="min_delta is nan"):
        EarlyStopping(1, min_delta=math.nan)
