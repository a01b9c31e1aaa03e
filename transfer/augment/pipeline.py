"""Steps that change a sample, one after the other, each with random numbers of its own.

A step is any callable (sample, request, rng) -> sample. It returns a new sample (or the same one) and leaves the one it
was given, and that one's arrays, as they were: a data set may keep them. It draws from `rng` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from transfer.types import Request, Sample


class Augment(Protocol):
    """One step, or a whole pipeline."""

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The changed sample.

        Args:
            sample: stays as it is.
            request: what was asked for; `request.size` is the batch's shape.
            rng: the only source of randomness.
        """
        ...


class Pipeline:
    """Runs steps in turn."""

    def __init__(self, steps: Sequence[Augment]) -> None:
        """Set the steps.

        Args:
            steps: first to last; none at all leaves the sample alone.
        """
        self.steps = tuple(steps)

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample after every step."""
        # A stream for each step: how much one step draws does not move what the next ones draw.
        for step, stream in zip(self.steps, rng.spawn(len(self.steps)), strict=True):
            sample = step(sample, request, stream)
        return sample
