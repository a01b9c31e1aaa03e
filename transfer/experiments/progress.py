"""How far the runs of an experiment are: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from transfer.experiments.ledger import Claim

logger = logging.getLogger("trickstack")


def duration(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Progress:
    """Is told of runs by the pool.

    Args:
        total: runs of the experiment.
        count_over: how many of them nothing more is done for, failed ones included; another pool may make some, too.
        lasted: seconds that those made before this start took, each.
        jobs: runs at a time.
    """

    def __init__(self, total: int, count_over: Callable[[], int], lasted: Sequence[float], jobs: int) -> None:
        self.total, self.count_over, self.lasted, self.jobs = total, count_over, list(lasted), jobs
        self.over = count_over()
        self.running: dict[str, float] = {}
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=self.over, bar_format="|{bar:20}| {n_fmt}/{total_fmt} runs{postfix}")
            self.tick()

    def told(self, event: str, claim: Claim, seconds: float) -> None:
        """Note an event of `transfer.experiments.pool.Told`."""
        name = claim.description.directory
        if event == "started":
            self.running[name] = time.monotonic()
            logger.info("started %s", name)
            return
        self.running.pop(name, None)
        if event == "done":
            self.lasted.append(seconds)
        self.over = self.count_over()
        what = {"crashed": "crashed, is tried again:"}.get(event, event)
        count, left = f"{self.over} of {self.total} runs", self.left()
        logger.info("%s %s after %s; %s, left %s", what, name, duration(seconds), count, left)

    def left(self) -> str:
        """Time until all runs are over, from the mean of those that are; "unknown" before the first."""
        if not self.lasted:
            return "unknown"
        each, now = sum(self.lasted) / len(self.lasted), time.monotonic()
        begun = [max(0.0, each - (now - began)) for began in self.running.values()]
        waiting = self.total - self.over - len(begun)
        return duration((sum(begun) + waiting * each) / max(1, min(self.jobs, self.total - self.over)))

    def tick(self) -> None:
        """Bring the bar up to date."""
        if self.bar is not None:
            now, self.bar.n = time.monotonic(), self.over
            at = ", ".join(f"{name} {duration(now - began)}" for name, began in list(self.running.items())[:2])
            more = f" and {len(self.running) - 2} more" if len(self.running) > 2 else ""
            self.bar.set_postfix_str(f"left {self.left()}; {at}{more}", refresh=True)

    def close(self) -> None:
        """Take the bar down."""
        if self.bar is not None:
            self.bar.close()
