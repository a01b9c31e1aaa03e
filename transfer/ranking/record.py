"""What a ranking found, in plain types: the driver writes it as ranking.json, the report reads nothing else.

Figures are percent. What was not measured is None (null in the file), never NaN.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.types import UserError


@dataclass
class TaskRecord:
    """A task that backbones are grafted onto."""

    name: str
    kind: str
    """"detection", "segmentation" or "classification"."""
    config: str
    """Path of its config file."""
    figure: str
    """The main figure's name: "mAP50", "mIoU"."""
    protocol: str
    train_images: int
    test_images: int
    changes: list[str] = field(default_factory=list)
    """key=value, of the task and of the command line."""


@dataclass
class BackboneRecord:
    """A backbone and where its weights come from."""

    name: str
    description: str
    arm: str
    """"pretrained", "grown", "random" or "frozen"."""
    weights: str
    top1: float | None
    """ImageNet top-1."""
    top1_source: str | None
    parameters: int
    multiply_adds: int | None
    input_size: list[int]
    """(height, width) that the multiply-adds are of, pixels."""
    changes: list[str] = field(default_factory=list)
    grown: dict[str, Any] | None = None
    """Of one that the ranking grew itself: config, directory, top-1 on its own test set, minutes."""
    adds_to: str | None = None
    """The backbone that it differs from by one trick."""


@dataclass
class CostRecord:
    """What a backbone costs in a task."""

    backbone: str
    task: str
    parameters: int
    """Of the whole model."""
    training_images_per_second: float | None
    inference_images_per_second: float | None
    peak_memory_mb: float | None
    """Of a training step, beyond what the process held before, in 1e6 bytes."""
    device: str


@dataclass
class SearchRun:
    """A run that chose the lr."""

    backbone: str
    task: str
    seed: int
    lr: float
    factor: float
    """Of the task's own lr."""
    figure: float | None
    """On validation data."""
    chosen: bool
    state: str
    directory: str | None
    command: str


@dataclass
class RunRecord:
    """A run that counts."""

    backbone: str
    task: str
    seed: int
    figure: float | None
    """On the test set."""
    per_class: dict[str, dict[str, float | None]]
    lr: float | None
    minutes: float | None
    state: str
    """"done", "failed", "missing" or "halved" (given up by successive halving)."""
    error: str | None
    directory: str | None
    command: str


@dataclass
class ForecastRecord:
    """A transferability score."""

    task: str
    backbone: str
    score: str
    value: float | None


@dataclass
class PictureRecord:
    """A test image under each backbone; paths are relative to the record's folder."""

    task: str
    image_id: str
    truth: str
    predictions: dict[str, str]
    """Backbone -> drawing."""


@dataclass
class PublishedPoint:
    """A figure of a paper, shown as another layer."""

    source: str
    task: str
    backbone: str
    top1: float
    value: float


@dataclass
class RankingRecord:
    """All that a ranking found."""

    name: str
    command: str
    """Repeats it; after an interruption it goes on."""
    made: str
    """ISO 8601, UTC."""
    facts: dict[str, str]
    """Hardware, versions, commit."""
    seeds: list[int]
    tasks: list[TaskRecord]
    backbones: list[BackboneRecord]
    costs: list[CostRecord]
    searches: list[SearchRun]
    runs: list[RunRecord]
    forecasts: list[ForecastRecord]
    pictures: list[PictureRecord]
    published: list[PublishedPoint]


PARTS = {
    "tasks": TaskRecord,
    "backbones": BackboneRecord,
    "costs": CostRecord,
    "searches": SearchRun,
    "runs": RunRecord,
    "forecasts": ForecastRecord,
    "pictures": PictureRecord,
    "published": PublishedPoint,
}


def to_text(record: RankingRecord) -> str:
    """JSON; figures that are not finite are null."""
    return json.dumps(_plain(dataclasses.asdict(record)), indent=1) + "\n"


def read_record(path: str | Path) -> RankingRecord:
    """What `to_text` gave.

    Raises:
        UserError: no such file, or not a ranking.
    """
    path = Path(path)
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in PARTS.items():
            fields[name] = [kind(**each) for each in fields[name]]
        return RankingRecord(**fields)
    except OSError as error:
        raise UserError(f"{str(path)!r}: {error.strerror}; give the ranking.json of a ranking") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{str(path)!r} is not the ranking.json of a ranking: {error}") from error


def _plain(value: Any) -> Any:
    """Non-finite numbers to None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
