"""Learning a few images by heart: what a model, its criterion and its postprocess must be able to do if they fit.

A copy of the model is trained on at most ten images as the test pipeline prepares them, so without any augmentation,
with the config's optimizer: a warm-up of 20 steps to the schedule's largest lr, then a cosine down to a twentieth. It
ends when the mean average precision at an overlap of 0.5 is 1 on these images, or after 300 steps. An image is learnt
when it alone has 1. Where that fails while the other checks find nothing, look for targets that contradict each other,
a decoding that is not the encoding's inverse, or an lr that is too low for so few steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from transfer.checking.findings import counted
from transfer.engine.task import DetectionTask
from transfer.engine.train import Run
from transfer.optim.schedules import set_lr
from transfer.preflight.findings import Outcome
from transfer.preflight.learning_rate import peak_factor
from transfer.preflight.sandbox import Trial, random_states_kept, trial_of
from transfer.report.pages import spread
from transfer.types import Batch, DetectionDataset, Prediction, UserError, task_of

logger = logging.getLogger("trickstack")

BUDGET = 300
"""Optimizer steps."""
EVERY = 25
"""Steps between two looks at what is learnt."""
_WARM_UP, _FINAL = 20, 0.05
_FIGURES = ("mAP50", "AP50")
"""Names of the figure in the results of this project's metrics."""


def images_with_objects(dataset: DetectionDataset, count: int) -> list[int]:
    """Images to learn, spread over those that have an object that is not marked as difficult.

    Args:
        dataset: boxes.
        count: at the most.
    Raises:
        UserError: there is none, or the data have no boxes.
    """
    if (task := task_of(dataset)) != "detection":
        raise UserError(f"--overfit learns boxes by heart: this config's data are for {task}; leave it out")
    usable = []
    for index in range(len(dataset)):
        record = dataset.record(index)
        if bool((~record.difficult & ~record.crowd).any()):
            usable.append(index)
    if not usable:
        raise UserError("--overfit: data.train has no image with an object to learn")
    return [usable[place] for place in spread(len(usable), count)]


def memorise(
    run: Run, dataset: DetectionDataset, batches: Sequence[Batch], metrics: Sequence[Any], *, budget: int = BUDGET
) -> Outcome:
    """Train a copy of the run's model on these images alone, and say which of them it has not learnt.

    Args:
        run: stays as it is.
        dataset: the images.
        batches: the same images as the test pipeline prepares them, on the CPU, each once.
        metrics: the config's; one of them gives average precision at 0.5.
        budget: optimizer steps at the most.
    """
    with random_states_kept():
        return _Memory(trial_of(run), dataset, batches, metrics).learn(peak_factor(run), budget)


class _Memory:
    """The images, and how far they are learnt."""

    def __init__(
        self, trial: Trial, dataset: DetectionDataset, batches: Sequence[Batch], metrics: Sequence[Any]
    ) -> None:
        self.trial, self.dataset = trial, dataset
        self.batches = [batch.to(trial.device) for batch in batches]
        self.records = [dataset.record(index) for index in range(len(dataset))]
        self.metric, self.figure = self._metric(metrics)
        self.loss = math.nan

    def learn(self, peak: float, budget: int) -> Outcome:
        """Steps until all is learnt or the budget is spent."""
        started, whole, figures, step = time.perf_counter(), 0.0, [0.0], 0
        for step in range(1, budget + 1):
            self._step(step - 1, peak, budget)
            if not math.isfinite(self.loss):
                break
            if step % EVERY == 0 or step == budget:
                whole, figures = self._measure()
                seconds = (time.perf_counter() - started) / step * (budget - step)
                logger.info(
                    "overfit: step %d of %d: loss %.3g, %s %.3f, %d of %d images learnt, at most %s left",
                    step, budget, self.loss, self.figure, whole, sum(map(_is_learnt, figures)), len(figures),
                    f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s",
                )  # fmt: skip
                if all(map(_is_learnt, figures)) and _is_learnt(whole):
                    break
        return self._outcome(step, whole, figures)

    def _step(self, number: int, peak: float, budget: int) -> None:
        trial, batch = self.trial, self.batches[number % len(self.batches)]
        done = max(0.0, (number - _WARM_UP) / max(1, budget - _WARM_UP))
        cosine = _FINAL + (1 - _FINAL) * 0.5 * (1 + math.cos(math.pi * done))
        set_lr(trial.optimizer, peak * min((number + 1) / _WARM_UP, cosine))
        losses = trial.losses(batch, number)
        total = torch.stack(list(losses.values())).sum()
        self.loss = float(total.detach())
        trial.precision.backward(total)
        trial.precision.step(trial.optimizer, max_norm=trial.settings.clip_norm)
        trial.optimizer.zero_grad(set_to_none=True)

    def _measure(self) -> tuple[float, list[float]]:
        """The figure of all images together, and of each by itself."""
        task = self.trial.task
        assert isinstance(task, DetectionTask)
        predictions: dict[int, Prediction] = {}
        task.model.eval()
        for batch in self.batches:
            for target, prediction in zip(batch.targets, task.predict(task.model, batch)):
                predictions[target.index] = prediction
        task.model.train()
        in_order = [predictions[index] for index in range(len(self.records))]
        alone = [self._figure([record], [prediction]) for record, prediction in zip(self.records, in_order)]
        return self._figure(self.records, in_order), alone

    def _figure(self, records: Sequence[Any], predictions: Sequence[Prediction]) -> float:
        names, ids = self.dataset.class_names, self.dataset.category_ids()
        return float(self.metric.evaluate(records, predictions, names, ids).values[self.figure])

    def _metric(self, metrics: Sequence[Any]) -> tuple[Any, str]:
        """The first metric that gives average precision at 0.5, and the name it has there."""
        names, ids = self.dataset.class_names, self.dataset.category_ids()
        nothing = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        for metric in metrics:
            values = metric.evaluate(self.records[:1], [nothing], names, ids).values
            for figure in _FIGURES:
                if figure in values:
                    return metric, figure
        raise UserError("--overfit needs a metric with average precision at 0.5: transfer.metrics.voc_map.VOCMeanAP")

    def _outcome(self, step: int, whole: float, figures: Sequence[float]) -> Outcome:
        outcome = Outcome("overfit")
        paths = [record.path for record in self.records]
        left = [f"{path} ({figure:.2f})" for path, figure in zip(paths, figures) if not _is_learnt(figure)]
        outcome.facts = {"steps": step, self.figure: whole, "not_learnt": left, "loss": self.loss}
        learnt = len(paths) - len(left)
        outcome.lines = [
            f"overfit: {learnt} of {counted(len(paths), 'image')} learnt in {step} steps, {self.figure} {whole:.3f}, "
            f"loss {self.loss:.3g}",
            *(f"  not learnt: {path}" for path in left),
        ]
        if left:
            shown = ", ".join(left[:3]) + (f" and {len(left) - 3} others" if len(left) > 3 else "")
            outcome.error(
                "not-learnt",
                f"{len(left)} of {counted(len(paths), 'image')} not learnt by heart in {step} steps: {shown}",
                "look at these images' boxes; a higher lr or a longer budget if the loss was still falling",
            )
        return outcome


def _is_learnt(figure: float) -> bool:
    """Whether nothing is missed and nothing false ranks before it; NaN: there was nothing to find."""
    return math.isnan(figure) or figure > 1 - 1e-6
