"""The training images that a preflight looks at: the run's own first batches, made anew as the run will make them.

Batches follow from the run's seed and their position alone, so drawing them here takes nothing from the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from transfer.engine.train import Run
from transfer.engine.workers import batches_of
from transfer.types import Batch, Target

LOOKED_AT = 32
"""Images, at least, over all batches; a run that has fewer is looked at as a whole."""
MOST_BATCHES = 16
IN_NETWORK = 2
"""Images that go through the network: enough for batch norm, and a step takes a second on two cores."""


def first_batches(run: Run) -> list[Batch]:
    """The first micro-batches of the run (of this process), on the CPU.

    Raises:
        UserError: what the loader raises: files that cannot be read, an augmentation that fails.
    """
    batches: list[Batch] = []
    with batches_of(run.batches(0)) as loaded:
        for batch in loaded:
            batches.append(batch)
            if len(batches) == MOST_BATCHES or sum(len(each.targets) for each in batches) >= LOOKED_AT:
                break
    return batches


def for_network(batches: Sequence[Batch]) -> Batch:
    """A few images of the batch that has most to teach, those with objects first."""

    def objects(target: Target) -> int:
        return len(target.boxes) if target.mask is None and target.classes is None else 1

    batch = max(batches, key=lambda each: sum(objects(target) > 0 for target in each.targets))  # of equals the first
    ranked = sorted(range(len(batch.targets)), key=lambda image: objects(batch.targets[image]) == 0)  # stable
    chosen = sorted(ranked[:IN_NETWORK])
    return Batch(batch.images[chosen], [batch.targets[image] for image in chosen])
