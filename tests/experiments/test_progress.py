"""Time left, from the runs that are over."""

from __future__ import annotations

import logging

import pytest

from transfer.experiments.description import Description
from transfer.experiments.ledger import Claim
from transfer.experiments.progress import Progress, duration

CLAIM = Claim("key", "token", Description("arm", {}, 0))


def test_time_left_is_that_of_the_runs_over_the_jobs() -> None:
    assert Progress(4, lambda: 0, [], 1).left() == "unknown"
    assert Progress(4, lambda: 2, [10.0, 20.0], 1).left() == "0:00:30"  # two more of 15 seconds
    assert Progress(5, lambda: 2, [3600.0], 2).left() == "1:30:00"
    assert Progress(3, lambda: 2, [10.0], 8).left() == "0:00:10"  # one run is not made faster by more jobs
    assert Progress(3, lambda: 3, [10.0], 2).left() == "0:00:00"
    assert duration(3725) == "1:02:05"


def test_a_run_that_was_begun_has_less_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now, over = 100.0, 1
    monkeypatch.setattr("transfer.experiments.progress.time.monotonic", lambda: now)
    progress = Progress(3, lambda: over, [60.0], 1)
    progress.told("started", CLAIM, 0.0)
    now = 140.0
    assert progress.left() == "0:01:20"  # 20 seconds of this one, 60 of the other
    now = 1000.0
    assert progress.left() == "0:01:00"  # it takes longer than the first did
    over = 2
    with caplog.at_level(logging.INFO, logger="trickstack"):
        progress.told("done", CLAIM, 120.0)
    assert progress.left() == "0:01:30"  # the mean of 60 and 120
    assert caplog.messages[-1] == f"done {CLAIM.description.directory} after 0:02:00; 2 of 3 runs, left 0:01:30"
