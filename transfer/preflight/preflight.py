"""Checks before training, all of them, in seconds: what else shows after a night.

First the data: labels, the format of boxes, pixels against the weights' statistics. Then, on a copy of the model, a few
steps on two images: shapes, scales, the first losses against those of an untrained head, gradients, the lr. Data whose
labels or boxes are wrong are not put through the network: on a GPU a label out of range ends the process.

With several processes the checks that step are left out, as batch norm and losses would wait for the other processes;
the data are checked, on process 0. tools/preflight.py makes all of them with one process.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from backbones.contract import Backbone
from transfer.engine.train import Run
from transfer.preflight.anchors import check_anchors
from transfer.preflight.batches import first_batches, for_network
from transfer.preflight.box_format import check_boxes
from transfer.preflight.findings import ERROR, Finding, Outcome, in_order
from transfer.preflight.first_loss import check_first_losses
from transfer.preflight.gradients import check_gradients
from transfer.preflight.labels import check_image_labels, check_labels, check_mask_labels
from transfer.preflight.learning_rate import check_lr, peak_factor
from transfer.preflight.magnitudes import check_magnitudes
from transfer.preflight.normalisation import check_normalisation
from transfer.preflight.receptive_field import check_receptive_field
from transfer.preflight.sandbox import Trial, random_states_kept, trial_of
from transfer.preflight.shapes import check_shapes
from transfer.preflight.steps import finish_steps
from transfer.preflight.truth import decoded_objects, decoded_samples, stated_objects
from transfer.preflight.watching import watching
from transfer.types import AnyDataset, Batch, UserError, task_of

logger = logging.getLogger("trickstack")

LOST = 0.5
"""Share of boxes that the augmentation drops from which it is named."""


@dataclass
class Report:
    """What a preflight found."""

    outcomes: list[Outcome]
    batches: list[Batch] = field(default_factory=list)
    """The images that were looked at, to be drawn."""
    class_names: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def findings(self) -> list[Finding]:
        """Of all checks, worst first."""
        return in_order(finding for outcome in self.outcomes for finding in outcome.findings)

    @property
    def errors(self) -> list[Finding]:
        """What would spoil the run."""
        return [finding for finding in self.findings if finding.severity == ERROR]


def preflight(run: Run, dataset: AnyDataset) -> Report:
    """Check a run that has not begun; neither it nor any random generator is changed.

    Args:
        run: as `transfer.assemble.build_run` makes it.
        dataset: what it trains on.
    Raises:
        UserError: what training itself would raise at its first batch.
    """
    started = time.perf_counter()
    with random_states_kept():
        batches = first_batches(run)
        trial = trial_of(run)
        report = Report(_data_checks(trial, dataset, batches), batches, tuple(dataset.class_names))
        wrong = [each.name for each in report.outcomes if each.is_wrong and each.name in ("labels", "boxes")]
        if wrong:
            report.outcomes.append(_left_out(f"{' and '.join(wrong)} are wrong", "mend that first"))
        elif run.world.size > 1:
            why = f"the run has {run.world.size} processes, which would wait for each other"
            report.outcomes.append(_left_out(why, "tools/preflight.py checks it with one"))
        else:
            report.outcomes += _network_checks(run, trial, batches)
    report.seconds = time.perf_counter() - started
    return report


def _left_out(why: str, remedy: str) -> Outcome:
    outcome = Outcome("network")
    outcome.note("not-checked", f"nothing was put through the network: {why}", remedy)
    return outcome


def _backbone(model: nn.Module) -> Backbone:
    backbone = model.backbone
    assert isinstance(backbone, Backbone)  # `transfer.assemble.backbone_of` has seen to that
    return backbone


def _data_checks(trial: Trial, dataset: Any, batches: Sequence[Batch]) -> list[Outcome]:
    """What needs no step."""
    samples = decoded_samples(dataset)
    kind = task_of(dataset)
    if kind == "segmentation":
        outcomes = [check_mask_labels(dataset)]
    elif kind == "classification":
        outcomes = [check_image_labels(dataset)]
    else:
        stated, decoded = stated_objects(dataset), decoded_objects(samples, len(dataset))
        outcomes = [
            check_labels(stated, decoded, dataset.class_names),
            check_boxes(stated, decoded),
            _augmentation(batches),
        ]
    backbone = _backbone(trial.model).eval()
    outcomes.append(check_normalisation(backbone, batches, samples if backbone.has_map else []))
    return outcomes


def _augmentation(batches: Sequence[Batch]) -> Outcome:
    """Boxes that the augmentation drops, and batches without any."""
    outcome = Outcome("augmentation")
    kept = sum(len(target.boxes) for batch in batches for target in batch.targets)
    dropped: dict[str, int] = {}
    for batch in batches:
        for step, count in batch.dropped.items():
            dropped[step] = dropped.get(step, 0) + count
    lost, images = sum(dropped.values()), sum(len(batch.targets) for batch in batches)
    outcome.facts = {"images": images, "boxes": kept, "dropped": dropped}
    outcome.lines = [f"{images} augmented images with {kept} boxes" + (f", {lost} were dropped" if lost else "")]
    if kept == 0:
        outcome.warning(
            "no-objects",
            f"{images} augmented images without one box" + (f"; {lost} were dropped" if lost else ""),
            "look at preflight.jpg, at data.train and at augment.train",
        )
    elif lost > LOST * (kept + lost):
        steps = ", ".join(f"{step} {count}" for step, count in sorted(dropped.items(), key=lambda item: -item[1]))
        outcome.warning(
            "boxes-lost",
            f"the augmentation drops {lost} of {kept + lost} boxes ({steps})",
            "look at preflight.jpg: boxes too small for it, cut away by a crop, or in another format",
        )
    return outcome


def _network_checks(run: Run, trial: Trial, batches: Sequence[Batch]) -> list[Outcome]:
    """What takes a copy of the model through a few steps."""
    batch = for_network(batches).to(trial.device)
    outcomes: list[Outcome] = []
    try:
        for outcome in _steps(run, trial, batch, batches):
            outcomes.append(outcome)  # noqa: PERF402  # what came before a failure is kept
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        outcomes.append(_failure(error))
    return outcomes


def _steps(run: Run, trial: Trial, batch: Batch, batches: Sequence[Batch]) -> Iterable[Outcome]:
    backbone, criterion = _backbone(trial.model), trial.task.criterion
    backbone.eval()  # one image tells batch norm too little
    if backbone.has_map:
        yield check_receptive_field(backbone, batch, batches)
    trial.model.train()
    with watching(trial.model) as watched:
        losses = trial.losses(batch)
    if backbone.has_map:
        yield check_shapes(trial.model, backbone, watched, batch)
    yield check_magnitudes(trial.model, watched)
    yield check_first_losses(criterion, trial.model, watched, losses, batch)
    if batch.targets[0].mask is None and batch.targets[0].classes is None:
        size = (int(batch.images.shape[2]), int(batch.images.shape[3]))
        yield check_anchors(criterion, trial.model, watched.output, size, batches)
    finite = all(bool(torch.isfinite(loss)) for loss in losses.values())
    if not finite or not any(loss.requires_grad for loss in losses.values()):
        return  # no gradient would say anything
    watched.maps.clear()
    peak = peak_factor(run)
    steps = finish_steps(trial, batch, losses, peak=peak)
    yield check_gradients(trial.model, steps)
    lr = peak * max(group["initial_lr"] for group in trial.optimizer.param_groups)
    grown = batch.targets[0].classes is not None and backbone.weights_source == "random"
    yield check_lr(steps, lr=lr, grown=grown)


def _failure(error: Exception) -> Outcome:
    """A step that fails: with the place in the code, as training would end there, too."""
    outcome = Outcome("network")
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "site-packages" not in frame.filename]
    frame = (inner or frames)[-1]
    logger.debug("preflight: the step that failed", exc_info=error)
    outcome.error(
        "step-fails",
        f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}, in {frame.name})",
        "training would end there, too: mend the model, the criterion or what they are given",
    )
    return outcome
