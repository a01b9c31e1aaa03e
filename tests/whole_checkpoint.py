"""A checkpoint with every field that `load_checkpoint` asks for, and nothing trained in it."""

from __future__ import annotations

import json
from typing import Any

from transfer.build import TOP_LEVEL
from transfer.engine.checkpoint import FORMAT


def whole_checkpoint() -> dict[str, Any]:
    """Another one at each call."""
    return {
        "format": FORMAT,
        "model": {},
        **dict.fromkeys(("ema", "optimizer", "scaler", "best")),
        **dict.fromkeys(("iteration", "measured_at", "seed"), 0),
        "world_size": 1,
        "config": json.dumps({name: [] if name == "metrics" else {} for name in TOP_LEVEL if name != "task"}),
        "class_names": ["a"],
        "category_ids": [1],
        "backbone": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear"},
        "metrics": [],
        "versions": {},
    }
