"""A bounded, balanced sample of rows that come one after another and fall into classes.

Every row has a random priority of its own. Of each class the rows of least priority are kept, which is a uniform draw
without replacement (reservoir sampling by random sort keys), whatever order or batches the rows come in. If the classes
together have too many, the rarest keep all they have.
"""

from __future__ import annotations

import bisect

import numpy as np

from transfer.types import UserError

Row = dict[str, np.ndarray]
"""What is kept of a row, by name; of every row the same names and shapes."""


class ClassReservoir:
    """The sample.

    Args:
        per_class: rows of a class at the most.
        total: rows at the most.
    """

    def __init__(self, *, per_class: int, total: int) -> None:
        wrong = [
            f"{name}={value!r}"
            for name, value in (("per_class", per_class), ("total", total))
            if type(value) is not int or value < 2
        ]
        if wrong:
            raise UserError(f"{', '.join(wrong)}: give whole numbers of 2 or more, as many rows as a score is to see")
        self.per_class, self.total = per_class, total
        self._held: dict[int, list[tuple[float, Row]]] = {}

    def wants(self, label: int, priority: float) -> bool:
        """Whether a row would be kept at present: if not, its features need not be computed."""
        held = self._held.get(label, [])
        return len(held) < self.per_class or priority < held[-1][0]

    def add(self, label: int, priority: float, row: Row) -> None:
        """Keep a row if it is wanted; another of its class may have to go."""
        if not self.wants(label, priority):
            return
        held = self._held.setdefault(label, [])
        bisect.insort(held, (priority, row), key=lambda entry: entry[0])
        del held[self.per_class :]

    def labels_and_rows(self) -> tuple[np.ndarray, list[Row]]:
        """Labels [N] int64 and rows, by class and then by priority."""
        # Each row by its place in its class: the first of all classes, then the second of all, ...
        ordered = sorted(
            (place, priority, label) for label, held in self._held.items() for place, (priority, _) in enumerate(held)
        )
        chosen = sorted((label, place) for place, _, label in ordered[: self.total])
        labels = np.array([label for label, _ in chosen], dtype=np.int64)
        return labels, [self._held[label][place][1] for label, place in chosen]
