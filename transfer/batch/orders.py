"""Which images an epoch draws, and how often, where that is not each of them once.

An order is a function of (generator, number of images) alone, so that a resumed run draws the same ones.

Sources: repeated augmentation, Hoffer et al. 2019 (arXiv 1901.09335) and Berman et al. 2019, MultiGrain (arXiv
1902.05509, section 3.2): a batch holds several differently augmented copies of the same images, and an epoch as many
images as without, so it meets fewer different ones. Class-balanced sampling: Buda et al. 2018 (arXiv 1710.05381,
section 3.1: random minority oversampling and random majority undersampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from transfer.types import UserError


@runtime_checkable
class Order(Protocol):
    """The config's `loader.order`."""

    def length(self, images: int) -> int:
        """Images that an epoch draws from a data set of this many, at least 1."""
        ...

    def draw(self, rng: np.random.Generator, images: int) -> np.ndarray:
        """[length(images)] int64: the images of one epoch in the order in which they come."""
        ...


@runtime_checkable
class OrderByClass(Order, Protocol):
    """An order that has to know the class of every image."""

    def know(self, labels: np.ndarray, class_names: Sequence[str]) -> None:
        """Told the [N] int64 labels before the first epoch is drawn."""
        ...


class RepeatedAugmentation:
    """Each drawn image comes several times in a row, augmented anew each time."""

    def __init__(self, repeats: int = 3) -> None:
        """Set the number.

        Args:
            repeats: copies of an image, at least 2. A batch of B holds B / repeats different images.

        Raises:
            UserError: below 2.
        """
        if type(repeats) is not int or repeats < 2:
            raise UserError(f"RepeatedAugmentation: repeats={repeats!r} must be a whole number of at least 2")
        self.repeats = repeats

    def length(self, images: int) -> int:
        """As many as without: an epoch costs the same and meets images / repeats different ones."""
        return images

    def draw(self, rng: np.random.Generator, images: int) -> np.ndarray:
        """[images] int64; the last image may have fewer copies."""
        return np.repeat(rng.permutation(images), self.repeats)[:images]


class ClassBalanced:
    """Every class comes equally often in an epoch: rare ones repeated, or frequent ones cut short."""

    def __init__(self, to: str = "largest") -> None:
        """Choose the number of images of a class.

        Args:
            to: "largest": as many as the largest class has (over-sampling: an image of a rarer class comes again, and
                no image of a class comes twice more than another of it); "smallest": as many as the smallest class
                has (under-sampling: other images every epoch); "mean": their mean, rounded.

        Raises:
            UserError: another word.
        """
        if to not in ("largest", "smallest", "mean"):
            raise UserError(f"ClassBalanced: to={to!r} is none of largest, smallest, mean")
        self.to = to
        self.of_class: list[np.ndarray] = []
        self.each = 0

    def know(self, labels: np.ndarray, class_names: Sequence[str]) -> None:
        """Sort the images by class.

        Args:
            labels: [N] int64.
            class_names: of the K classes; one without images is left out.
        """
        self.of_class = [of for label in range(len(class_names)) if len(of := np.flatnonzero(labels == label))]
        counts = [len(of) for of in self.of_class]
        self.each = {"largest": max(counts), "smallest": min(counts), "mean": round(sum(counts) / len(counts))}[self.to]

    def length(self, images: int) -> int:
        """Classes times images of a class."""
        assert self.of_class, "know() comes first"
        return self.each * len(self.of_class)

    def draw(self, rng: np.random.Generator, images: int) -> np.ndarray:
        """[length] int64, all classes shuffled together."""
        drawn = []
        for of in self.of_class:
            whole, rest = divmod(self.each, len(of))
            drawn += [np.tile(of, whole), rng.permutation(of)[:rest]]
        return rng.permutation(np.concatenate(drawn))
