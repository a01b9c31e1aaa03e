"""How long a run mixes pairs of images, and what may do the mixing.

Source: Zhang et al. 2019, Bag of Freebies, arXiv 1902.04103 (and its recipes in GluonCV: mixing is off for the last 20
epochs). A recipe that keeps those 20 epochs and shortens the run to 20 never mixes: it is refused here.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from transfer.types import Mix, Request, Sample, UserError


@runtime_checkable
class PairMixing(Protocol):
    """The config's `loader.mixup`: `transfer.augment.box_mixup.BoxMixup`, or what offers the same."""

    last_epochs_without: float
    """Epochs at the end of the run in which nothing is mixed."""

    def draw(self, rng: np.random.Generator, index: int, length: int) -> Mix | None:
        """The second image for image `index` of `length` images: what RequestBatches calls `mixer`."""
        ...

    def combine(self, first: Sample, second: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The mixed sample: what TrainingView calls `combine`."""
        ...


def mixed_iterations(mixing: object, *, total: int, per_epoch: int, images: int) -> int:
    """How many optimizer steps of the run, counted from its start, are made with mixing.

    Args:
        mixing: the config's `loader.mixup`, not None.
        total: optimizer steps of the run.
        per_epoch: optimizer steps of an epoch.
        images: of the training set.

    Returns:
        A number in [1, total]; the first step without mixing, where there is one.

    Raises:
        UserError: `mixing` cannot mix, there is no pair to mix, or no step would be left with mixing.
    """
    if not isinstance(mixing, PairMixing):
        raise UserError(
            f"loader.mixup={mixing!r} cannot mix images: give None, or dict(type=BoxMixup, alpha=1.5) with "
            "from transfer.augment.box_mixup import BoxMixup"
        )
    if images < 2:
        raise UserError(f"loader.mixup mixes two images, but data.train has {images}: give loader.mixup=None")
    epochs = mixing.last_epochs_without
    # At least one step where any epochs were asked for: a small part of a short epoch must not round to none.
    without = max(1, round(epochs * per_epoch)) if epochs > 0 else 0
    if without >= total:
        raise UserError(
            f"loader.mixup.last_epochs_without={epochs:g}, but the run has {total / per_epoch:g} epochs ({total} "
            "iterations of the optimizer): it would never mix. Make it smaller, train longer "
            "(training.epochs), or give loader.mixup=None"
        )
    return total - without
