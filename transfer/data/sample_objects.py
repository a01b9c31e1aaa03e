"""The classes of the embedded sample: who draws each, and how it may lie or stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transfer.data import sample_animals as animals
from transfer.data import sample_made as made
from transfer.data import sample_nature as nature
from transfer.data import sample_outdoor as outdoor
from transfer.data.sample_canvas import Canvas


@dataclass(frozen=True, slots=True)
class Kind:
    """How to draw a class and how it may be turned."""

    draw: Callable[[Canvas], None]
    turn_above: float
    """Largest turn in degrees where the camera looks down."""
    turn_level: float
    """Largest turn in degrees where the camera looks ahead."""
    faces: bool = False
    """Drawn facing right, so that a pose Left or Right can be told."""
    flies: bool = False
    """Needs no ground under it."""


KINDS: dict[str, Kind] = {
    "apple": Kind(nature.apple, 60, 12),
    "ball": Kind(made.ball, 180, 180),
    "banana": Kind(nature.banana, 180, 25),
    "book": Kind(made.book, 180, 10),
    "bottle": Kind(made.bottle, 180, 4),
    "butterfly": Kind(animals.butterfly, 180, 50, flies=True),
    "car": Kind(outdoor.car, 20, 4, faces=True),
    "cat": Kind(animals.cat, 25, 9),
    "clock": Kind(made.clock, 40, 6),
    "fish": Kind(animals.fish, 180, 20, faces=True),
    "flower": Kind(nature.flower, 70, 12),
    "guitar": Kind(made.guitar, 180, 18),
    "house": Kind(outdoor.house, 8, 2),
    "key": Kind(made.key, 180, 40),
    "leaf": Kind(nature.leaf, 180, 180),
    "mug": Kind(made.mug, 25, 4),
    "mushroom": Kind(nature.mushroom, 70, 12),
    "umbrella": Kind(outdoor.umbrella, 120, 25),
}

CROP_ONLY = ("banana", "book", "flower", "guitar", "key", "leaf")
DETECTION_ONLY = ("ball", "house", "mushroom", "umbrella")

SAMPLE_CLASSES: tuple[str, ...] = tuple(sorted(set(KINDS) - set(CROP_ONLY)))
"""The twelve classes with boxes and masks; their order gives the labels."""
CROP_CLASSES: tuple[str, ...] = tuple(sorted(set(KINDS) - set(DETECTION_ONLY)))
"""The fourteen classes of the single-object crops; eight of them are in SAMPLE_CLASSES."""
