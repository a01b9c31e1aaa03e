"""One network from several checkpoints of one run, or of runs of one config: their weights' mean.

Sources: Polyak and Juditsky 1992; Izmailov et al. 2018, Averaging Weights Leads to Wider Optima (arXiv 1803.05407):
weights are averaged along a run, and the statistics of batch norm, which are no longer those of the averaged weights,
are measured anew on training images. Wortsman et al. 2022 (arXiv 2203.05482) average runs that began from the same
pretrained weights; of runs that began from different random values the mean is of no use, and nothing here can tell.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.assemble import backbone_of, build_data
from transfer.build import from_json
from transfer.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transfer.engine.distributed import World, choose_device
from transfer.engine.workers import batches_of
from transfer.loading import training_batches
from transfer.restoring import differing_keys, restore
from transfer.types import UserError

logger = logging.getLogger("trickstack")

_FREE = ("training", "loader", "data", "augment", "optimizer", "schedule", "criterion")
"""What of the config may differ between checkpoints that are averaged; the rest is the network and its task."""


def average_checkpoints(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    statistics: int = 0,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> None:
    """Write the mean of several checkpoints, to be evaluated, predicted with or grafted; training cannot go on from it.

    Args:
        paths: at least two checkpoints of one network; of each the moving average counts where there is one.
        output: file to write; it must not exist.
        statistics: training images on which batch norm's statistics are measured anew; 0: they are averaged, too.
        device: for `statistics`: "auto", "cpu", "cuda", "cuda:N".
        trust: modules besides this project's that the checkpoints' configs may name.
    Raises:
        UserError: they are not of one network, or the output is there already.
    """
    target = Path(output)
    if len(paths) < 2:
        raise UserError(f"{len(paths)} checkpoint: a mean takes two or more")
    if target.exists():
        raise UserError(f"--output {str(output)!r} is there already: give another name")
    if not target.parent.is_dir():
        raise UserError(f"--output {str(output)!r}: there is no folder {str(target.parent)!r}")
    checkpoints = [load_checkpoint(path) for path in paths]
    for path, other in zip(paths[1:], checkpoints[1:]):
        _check_alike(str(paths[0]), checkpoints[0], str(path), other)
    states = [_evaluated(checkpoint) for checkpoint in checkpoints]
    mean: Checkpoint = {
        **checkpoints[0],
        "model": mean_state(states),
        **dict.fromkeys(("ema", "optimizer", "scaler", "early_stopping", "best")),
        "metrics": [],
        "measured_at": 0,
        "averaged": [str(path) for path in paths],
    }
    if statistics:
        _measure_statistics(mean, statistics, device, trust)
    save_checkpoint(target, mean)
    logger.info("%s: the mean of %d checkpoints", target, len(paths))


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts of one network, in float64 on the way; of counters the largest.

    Args:
        states: with the same names and shapes.
    """
    mean = {}
    for name, first in states[0].items():
        values = [state[name] for state in states]
        if first.is_floating_point():
            mean[name] = torch.stack([value.double() for value in values]).mean(dim=0).to(first.dtype)
        else:
            mean[name] = torch.stack(values).amax(dim=0)
    return mean


def _evaluated(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights that an evaluation would take."""
    state: dict[str, Tensor] = checkpoint["model"] if checkpoint["ema"] is None else checkpoint["ema"]["module"]
    return state


def _check_alike(first: str, one: Checkpoint, second: str, other: Checkpoint) -> None:
    """Raises: UserError where two checkpoints are not of one network."""
    ours, theirs = _evaluated(one), _evaluated(other)
    shapes = {name: list(value.shape) for name, value in ours.items()}
    differing = [name for name in {**ours, **theirs} if shapes.get(name) != _shape(theirs.get(name))]
    if differing:
        raise UserError(f"{second!r} is of another network than {first!r}: they differ in {', '.join(differing[:5])}")
    if list(one["class_names"]) != list(other["class_names"]):
        raise UserError(f"{second!r} has other classes than {first!r}, or another order of them")
    configs = from_json(one["config"]), from_json(other["config"])
    changed = [key for key in differing_keys(*configs) if key.partition(".")[0] not in _FREE]
    changed = [key for key in changed if not key.endswith((".weights", ".zero_gamma", ".init"))]
    if changed:
        raise UserError(f"the configs of {first!r} and {second!r} differ in {', '.join(changed)}: no mean of both")


def _shape(value: Tensor | None) -> list[int] | None:
    return None if value is None else list(value.shape)


@torch.no_grad()
def _measure_statistics(mean: Checkpoint, images: int, device: str, trust: Sequence[str]) -> None:
    """Replace batch norm's running statistics by the mean over some training batches, weights as they are."""
    here = World(0, 1, choose_device(device))
    restored = restore(mean, here.device, trust=trust)
    model: nn.Module = restored.task.model
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    trained = model.train() and [norm for norm in norms if norm.training and norm.track_running_stats]
    if not trained:
        raise UserError("--statistics: the network has no batch norm that follows its batches; leave it out")
    for norm in trained:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    config: Any = restored.config
    data = build_data(config, restored.trusted)
    pad_value = backbone_of(model).pad_value
    batches, _ = training_batches(config, data.train, pad_value, here, restored.trusted)
    torch.manual_seed(config["training"].get("seed", 0))  # for stochastic depth and dropout
    done = 0
    with batches_of(batches(0)) as loaded:
        for batch in loaded:
            batch = batch.to(here.device)
            model(batch.images, [target.size for target in batch.targets], batch.targets)
            done += len(batch.targets)
            if done >= images:
                break
    mean["model"] = {name: value.cpu() for name, value in model.state_dict().items()}
    logger.info("batch norm: %d layers measured anew on %d images", len(trained), done)
