"""Which shape a training batch comes out in, from (run seed, iteration) alone.

Source: Redmon and Farhadi, YOLO9000, section 2 (multi-scale training: 320 to 608 in steps of 32, redrawn every 10
batches); Zhang et al. 2019, Bag of Freebies, arXiv 1902.04103 (random shapes training).

Deviations: a run starts with the largest shape, so that it runs out of memory at once or never. The draw depends on the
run's seed and the global iteration and on nothing else, so every rank and every worker agrees, and a resumed run goes
on with the same shapes.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from transfer.types import Size, UserError, is_number

SHAPE_STREAM = 2
"""First word of the spawn key of everything drawn here; requests.py uses others."""


class Shapes(Protocol):
    """How the shape of a batch is chosen."""

    def shape(self, seed: int, iteration: int) -> Size | None:
        """(height, width) of every image of the global batch `iteration`, or None: the augmentation decides."""
        ...


@runtime_checkable
class PlannedShapes(Shapes, Protocol):
    """Shapes that follow from how much of the run is done."""

    def plan(self, total: int) -> None:
        """Told the global iterations of the whole run before the first shape is asked for."""
        ...


class FixedShape:
    """The same shape for every batch."""

    def __init__(self, size: int | Size | None) -> None:
        """Keep the shape.

        Args:
            size: side of a square, or (height, width), in pixels; None: the augmentation decides.

        Raises:
            UserError: when a side is not positive.
        """
        self.size: Size | None = None
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            if height < 1 or width < 1:
                raise UserError(f"FixedShape: size={size!r} must be positive pixels, as 416 or (height, width)")
            self.size = (int(height), int(width))

    def shape(self, seed: int, iteration: int) -> Size | None:
        """The fixed shape, whatever the position."""
        return self.size


class RandomShapes:
    """Shapes redrawn every few batches from multiples of 32, the largest first."""

    def __init__(
        self, low: int = 320, high: int = 608, *, step: int = 32, every: int = 10, rectangular: bool = False
    ) -> None:
        """Set the range.

        Args:
            low: smallest side, pixels, a multiple of 32.
            high: largest side, pixels, a multiple of 32; drawn too.
            step: distance between two sides, pixels, a multiple of 32.
            every: batches (global iterations) that share one draw.
            rectangular: draw height and width apart instead of a square.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _range_problems(low, high, step)
        if every < 1:
            problems.append(f"every={every} must be at least 1 batch")
        if problems:
            raise UserError("RandomShapes: " + "; ".join(problems))
        self.sides = tuple(range(low, high + 1, step))
        self.every = every
        self.rectangular = rectangular

    def shape(self, seed: int, iteration: int) -> Size | None:
        """The shape of the global batch `iteration` (counted from 0 at the start of the run)."""
        draw = iteration // self.every
        if draw == 0:
            return self.sides[-1], self.sides[-1]
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SHAPE_STREAM, draw)))
        height, width = (self.sides[position] for position in rng.integers(len(self.sides), size=2))
        return (height, width) if self.rectangular else (height, height)


class ProgressiveShapes:
    """Square shapes that grow with the run, from small and quick to the full size.

    Source: progressive resizing as in EfficientNetV2 (Tan and Le 2021, arXiv 2104.00298, section 4), sides alone: its
    augmentation grows along, here it stays. The very first batch has the largest shape, so that a run runs out of
    memory at once or never.
    """

    def __init__(self, low: int = 128, high: int = 224, *, step: int = 32, until: float = 0.8) -> None:
        """Set the range.

        Args:
            low: the first side, pixels, a multiple of 32.
            high: the last side, pixels, a multiple of 32.
            step: distance between two sides, pixels, a multiple of 32.
            until: share of the run after which the last side stays, in (0, 1]; the sides before it last equally long.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _range_problems(low, high, step)
        if not is_number(until) or not 0 < until <= 1:
            problems.append(f"until={until!r} must be in (0, 1]: a share of the run")
        if problems:
            raise UserError("ProgressiveShapes: " + "; ".join(problems))
        self.sides = tuple(range(low, high + 1, step))
        self.until = until
        self.total: int | None = None

    def plan(self, total: int) -> None:
        """Args: total: global iterations of the whole run; needed before the first shape."""
        self.total = total

    def shape(self, seed: int, iteration: int) -> Size | None:
        """The shape of the global batch `iteration`: no draw, so the seed is not read."""
        assert self.total is not None, "plan() comes first"
        growing = self.until * self.total
        position = len(self.sides) - 1
        if 0 < iteration < growing:
            position = min(position, int(iteration / growing * position))
        return self.sides[position], self.sides[position]


def _range_problems(low: int, high: int, step: int) -> list[str]:
    problems = [
        f"{name}={value!r} is not a positive multiple of 32; the nearest is {max(32, round(value / 32) * 32)}"
        for name, value in (("low", low), ("high", high), ("step", step))
        if value < 1 or value % 32
    ]
    if low > high:
        problems.append(f"low={low} is above high={high}: exchange them")
    elif step > 0 and (high - low) % step:
        problems.append(f"high={high} is not reached from low={low} in steps of {step}")
    return problems
