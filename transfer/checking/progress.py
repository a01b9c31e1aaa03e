"""How far a long loop is: a bar with the time left on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

_LOGGER = logging.getLogger(__name__)
_LINES = 4

T = TypeVar("T")


def with_progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, counted on standard error.

    Args:
        items: `total` of them.
        total: >= 0.
        what: the unit, such as "images".
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, unit=f" {what}", desc="check", dynamic_ncols=True, leave=False)
        return
    marks = {total * step // _LINES for step in range(1, _LINES + 1)}
    for number, item in enumerate(items, 1):
        yield item
        if number in marks:
            _LOGGER.info("checked %d of %d %s", number, total, what)
