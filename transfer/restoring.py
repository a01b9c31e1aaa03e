"""From a checkpoint back to what was trained, and whether a run may go on from it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones.contract import BackboneError
from transfer.assemble import backbone_of, build_task
from transfer.build import TRUSTED_MODULES, Node, from_json
from transfer.data.strangers import printable, short
from transfer.engine.checkpoint import Checkpoint
from transfer.optim.ema import EMA
from transfer.types import RefusedCheckpoint, UserError


@dataclass
class Restored:
    """What a checkpoint holds, ready to predict."""

    task: Any
    """`transfer.engine.task.DetectionTask` or `SegmentationTask`."""
    config: Node
    class_names: tuple[str, ...]
    category_ids: list[int]
    trusted: tuple[str, ...] | None


def restore(checkpoint: Checkpoint, device: torch.device, *, trust: Sequence[str] | None = ()) -> Restored:
    """The trained task of a checkpoint: the moving average where there is one, in eval mode.

    Args:
        checkpoint: as `load_checkpoint` gives it.
        device: where the model goes.
        trust: modules besides this project's that the checkpoint's config may name; None: any, for a checkpoint that
            this very process wrote.
    Raises:
        UserError: the config names other modules, or does not fit the weights.
    """
    trusted = trusted_modules(trust)
    class_names = tuple(str(name) for name in checkpoint["class_names"])
    with building():
        config = config_for_testing(from_json(checkpoint["config"]), from_stranger=trusted is not None)
        task = build_task(config, len(class_names), trusted)
        if not isinstance(task.model, nn.Module):
            raise RefusedCheckpoint(f"model={short(config['model'])} is no network: take another copy")
        check_postprocess(task.postprocess, config)
    state = checkpoint["model"]
    try:
        if checkpoint["ema"] is not None:
            ema = EMA(task.model)
            ema.load_state_dict(checkpoint["ema"])
            state = ema.module.state_dict()
        task.model.load_state_dict(state)
    except RuntimeError as error:
        raise RefusedCheckpoint(f"the checkpoint's weights do not fit its config: {error}") from error
    about = checkpoint["backbone"]
    backbone_of(task.model).set_statistics(about["mean"], about["std"], about["interpolation"])
    task.model.to(device).eval()
    return Restored(task, config, class_names, [int(i) for i in checkpoint["category_ids"]], trusted)


def trusted_modules(trust: Sequence[str] | None) -> tuple[str, ...] | None:
    """The modules that a stranger's config may name; see `restore` for `trust`."""
    if trust and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own module, as beside a config
    return None if trust is None else (*TRUSTED_MODULES, *trust)


@contextmanager
def building(whose: str = "the checkpoint's") -> Iterator[None]:
    """Raises: RefusedCheckpoint in place of a foreign error: a config that nobody checked may fail anywhere."""
    try:
        yield
    except (UserError, BackboneError):
        raise
    except Exception as error:
        said = printable(f"{type(error).__name__}: {error}")
        raise RefusedCheckpoint(f"{whose} config cannot be built: {said}") from error


def check_postprocess(postprocess: Any, config: Node) -> None:
    """Raises: RefusedCheckpoint where what was built of `postprocess` cannot be called."""
    if not callable(postprocess):
        raise RefusedCheckpoint(f"postprocess={short(config['postprocess'])} makes no predictions: take another copy")


def config_for_testing(config: Node, *, from_stranger: bool) -> Node:
    """A checkpoint's config, changed in place: without what took part in training alone, fetching and writing nothing.

    Args:
        config: of the checkpoint.
        from_stranger: whether it may not choose where the sample is drawn.
    """
    _forget_weights(config["model"])
    if from_stranger:
        _forget_sample_folders(config)
    criterion = config["criterion"]
    if isinstance(criterion, dict) and "teacher" in criterion:
        criterion["teacher"] = None  # its own file may be gone
    if isinstance(criterion, dict) and criterion.get("class_weights") == "balanced":
        criterion["class_weights"] = None  # the training images are not asked
    return config


def _forget_sample_folders(node: Any) -> None:
    """Wherever in a config: data may stand in data, and a stranger's may name them where none belong."""
    if isinstance(node, dict) and str(node.get("type", "")).startswith("transfer.data.sample_dataset."):
        node.pop("root", None)
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for each in inner:
        _forget_sample_folders(each)


def _forget_weights(node: Any) -> None:
    """A checkpoint brings its own weights: none are to be fetched while it is built."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str) and "weights" in node:
            node["weights"] = None
        for value in node.values():
            _forget_weights(value)
    elif isinstance(node, list):
        for value in node:
            _forget_weights(value)


def differing_keys(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Dotted keys at which two configs differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(set(ours) | set(theirs))
        return [d for k in keys for d in differing_keys(ours.get(k), theirs.get(k), f"{where}.{k}" if where else k)]
    return [] if ours == theirs else [where]


HARMLESS_ON_RESUME = (
    *("loader.workers", "loader.test_batch_size"),
    *("training.log_every", "training.pictures", "training.preflight"),
)


def check_same_config(config: Node, checkpoint: Checkpoint, path: Path) -> None:
    """Raises: RefusedCheckpoint where a run is to go on with another config than it began with."""
    changed = [k for k in differing_keys(config, from_json(checkpoint["config"])) if k not in HARMLESS_ON_RESUME]
    if changed:
        raise RefusedCheckpoint(
            f"--resume {str(path)!r}: the config was changed since: {', '.join(changed)}. Start a new run, or undo that"
        )
