"""How long a run mixes pairs of images or joins mosaics, and what may do that.

Source: Zhang et al. 2019, Bag of Freebies, arXiv 1902.04103 (and its recipes in GluonCV: mixing is off for the last 20
epochs). A recipe that keeps those 20 epochs and shortens the run to 20 never mixes: it is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from transfer.types import Mix, Request, Sample, Target, UserError


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


@runtime_checkable
class GroupJoining(Protocol):
    """The config's `loader.mosaic`: `transfer.augment.mosaic.Mosaic`, or what offers the same."""

    last_epochs_without: float
    """Epochs at the end of the run in which nothing is joined."""

    def gather(self, rng: np.random.Generator, index: int, length: int) -> tuple[int, ...]:
        """The partners of image `index` of `length` images: what RequestBatches calls `gatherer`."""
        ...

    def join(self, samples: Sequence[Sample], request: Request, rng: np.random.Generator) -> Sample:
        """The one sample made of an image and its partners: what TrainingView calls `join`."""
        ...


@runtime_checkable
class BatchBlending(Protocol):
    """The config's `loader.blend`: `transfer.augment.image_mixing.ImageMixup`, or what offers the same."""

    last_epochs_without: float
    """Epochs at the end of the run in which nothing is mixed."""

    def __call__(self, images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
        """The mixed batch: what Collate calls `blend`."""
        ...


KINDS: dict[str, tuple[type[PairMixing] | type[GroupJoining] | type[BatchBlending], str, str, str]] = {
    "loader.mixup": (
        PairMixing,
        "mix images",
        "mixes two images",
        "dict(type=BoxMixup, alpha=1.5) with from transfer.augment.box_mixup import BoxMixup",
    ),
    "loader.mosaic": (
        GroupJoining,
        "join images",
        "joins several images",
        "dict(type=Mosaic) with from transfer.augment.mosaic import Mosaic",
    ),
    "loader.blend": (
        BatchBlending,
        "mix batches",
        "mixes the images of a batch",
        "dict(type=ImageMixup, alpha=0.2) with from transfer.augment.image_mixing import ImageMixup",
    ),
}
"""What each setting must offer, what it does, and what to write."""


def mixed_iterations(mixing: object, *, total: int, per_epoch: int, images: int, setting: str = "loader.mixup") -> int:
    """How many optimizer steps of the run, counted from its start, are made with mixing (or with mosaics).

    Args:
        mixing: what the config gives for `setting`, not None.
        total: optimizer steps of the run.
        per_epoch: optimizer steps of an epoch.
        images: of the training set.
        setting: "loader.mixup", "loader.mosaic" or "loader.blend".

    Returns:
        A number in [1, total]; the first step without mixing, where there is one.

    Raises:
        UserError: `mixing` cannot do it, there are too few images, or no step would be left with mixing.
    """
    kind, does, doing, remedy = KINDS[setting]
    if not isinstance(mixing, kind):
        raise UserError(f"{setting}={mixing!r} cannot {does}: give None, or {remedy}")
    if images < 2:
        raise UserError(f"{setting} {doing}, but data.train has {images}: give {setting}=None")
    epochs = mixing.last_epochs_without
    # At least one step where any epochs were asked for: a small part of a short epoch must not round to none.
    without = max(1, round(epochs * per_epoch)) if epochs > 0 else 0
    if without >= total:
        raise UserError(
            f"{setting}.last_epochs_without={epochs:g}, but the run has {total / per_epoch:g} epochs ({total} "
            f"iterations of the optimizer): it would never {does}. Make it smaller, train longer "
            f"(training.epochs), or give {setting}=None"
        )
    return total - without
