"""Over- or underfitting, read from the curves of a finished run.

Two curves are read: the main figure of the measured images (validation, or where there is none the test set) and the
training loss. Their values cannot be compared: the loss is taken on augmented, perhaps mixed images, and no loss is
taken on the measured ones. What is compared is where each of them is heading; the loss as a logarithm, so in shares.

Rules, in this order; "rises", "falls" and "worse" are changes beyond the noise (`transfer.report.trends`) and of at
least 2 % of the best figure, or 5 % of the loss:

- the figure was 0 throughout: not learning;
- the figure rises in the last third of the evaluations: not finished;
- the figure's level at the end is worse than its best one: overfitting where the loss has fallen since then, diverging
  where it has risen, else worse at the end;
- the figure has not risen since the beginning, and the loss has risen: diverging, or not fallen: not learning;
- the change in the last third is surely (95 %) below 10 % of the best figure, and the end at most 5 % below the best
  level: level;
- anything else, and fewer than 4 evaluations: too little to say.

The steep climb to half of the best figure is left out of the noise and of the search for the best level. Five
evaluations in rising or falling order at the end count as beyond the noise, too: 1 chance in 120. Of figures that
are level but for noise, less than 4 % get a claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from transfer.report.trends import (
    IN_A_ROW,
    Change,
    below_best,
    change,
    in_a_row,
    levels,
    rise_at_end,
    rise_from,
    window_of,
)

Verdict = Literal[
    "overfitting", "not finished", "diverging", "worse at the end", "not learning", "level", "too little to say"
]

FEWEST = 4
"""Evaluations without which nothing is said of the figure."""
SMALLEST = 0.02
"""Share of the best figure that a change must have to be worth mentioning."""
SMALLEST_OF_LOSS = 0.05
TREND_OF_LEVEL = 0.1
"""Share of the best figure that the change in the last third of a level curve is surely below."""
DROP_OF_LEVEL = 0.05
"""Share of the best figure that the best level of a level curve is above its end, at most."""
_BINS = 24
"""Parts of the run, each a point of the loss's curve."""
_FEWEST_BINS = 6
_STEPS = 4
"""Fewest of a part."""

_COMPARED = "Compared is where the curves head, not their values: the loss is of augmented images."
_CALMER = "lower optimizer.lr, give schedule a longer warm-up, set training.clip_norm"
_REMEDIES: dict[Verdict, str] = {
    "overfitting": (
        "end earlier (training.epochs), vary the images more (augment.train, loader.mixup, loader.mosaic), train less "
        "of the backbone (model.backbone.frozen_stages, optimizer.lr_factors), raise optimizer.weight_decay; or more "
        "images"
    ),
    "not finished": "train longer (training.epochs, such as twice as many), or with a larger optimizer.lr",
    "diverging": _CALMER,
    "worse at the end": _CALMER,
    "not learning": (
        "try a tenth of optimizer.lr and ten times as much, and look at the data (tools/check_data.py), unless the run "
        "went on from weights that had learned it all"
    ),
    "level": "",
    "too little to say": "evaluate more often (training.evaluate_every) or on more images",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What the curves of a run say."""

    verdict: Verdict
    reason: str
    """The numbers behind it, as sentences."""
    remedy: str
    """What to change, with the config's keys; empty where nothing needs changing."""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}" + (f" Remedy: {self.remedy}." if self.remedy else "")


@dataclass(frozen=True, slots=True)
class _Curve:
    epochs: np.ndarray
    """[n] float64, rising."""
    values: np.ndarray
    """[n] float64."""


def read_fitting(rows: Sequence[Mapping[str, Any]], figure: str | None = None) -> Finding:
    """What the curves of a run say about over- and underfitting.

    Args:
        rows: of its metrics.jsonl (`transfer.report.curves.read_rows`).
        figure: which figure of the first metric, the higher the better; None: its first one, which ranks runs.
    """
    name, figures = _figures(rows, figure)
    loss = _losses(rows)
    if len(figures.values) < FEWEST:
        return _without_figures(len(figures.values), loss)
    best = float(figures.values.max())
    if best <= 0:
        since = "" if loss is None else f", while {_loss_since(loss, 0)}"
        return _finding("not learning", f"{name} was 0 in all {len(figures.values)} evaluations{since}.")
    first = _end_of_climb(figures.values)
    later = _Curve(figures.epochs[first:], figures.values[first:])
    rise = change(later.epochs, later.values, rise_at_end(max(3, -(-len(figures.values) // 3))), recent=True)
    drop = change(later.epochs, later.values, below_best)
    order = in_a_row(figures.values)
    if (rise.up or order > 0) and rise.amount >= SMALLEST * best:
        why = f"{_points(rise.limit)} could be noise" if rise.up else f"the last {IN_A_ROW} each above the one before"
        reason = f"{name} rose by {_points(rise.amount)} in the last third of {len(figures.values)} evaluations ({why})"
        return _finding("not finished", f"{reason}; {_end_of(loss)}. {_COMPARED}")
    if (drop.up or order < 0) and drop.amount >= SMALLEST * best:
        return _worse(name, later, drop, loss)
    rose = change(figures.epochs, figures.values, rise_from(0))
    if loss is not None and not _fell(loss, 0) and not (rose.up and rose.amount >= SMALLEST * best):
        return _unlearned(loss, f"{name} has not risen beyond its noise")
    if abs(rise.amount) + rise.error > TREND_OF_LEVEL * best or drop.amount > DROP_OF_LEVEL * best:
        return _unclear(name, figures, rise, drop, loss)
    return _level(name, figures, rise, drop, loss)


def _end_of_climb(values: np.ndarray) -> int:
    """The first evaluation with half of the best figure, but one that leaves enough: what was before is not noise."""
    reached = int((values >= values.max() / 2).argmax())
    return min(reached, len(values) - max(FEWEST, -(-len(values) // 3)))


def _figures(rows: Sequence[Mapping[str, Any]], figure: str | None) -> tuple[str, _Curve]:
    """Name and curve of the figure; evaluations where it is undefined are left out."""
    points: dict[float, float] = {}
    name = figure or ""
    for row in rows:
        if not row.get("evaluation"):
            continue
        values = row["evaluation"][0]["values"]
        name = name or next(iter(values), "")
        if values.get(name) is not None:
            points[float(row["epoch"])] = float(values[name])
    epochs = sorted(points)
    return name, _Curve(np.array(epochs), np.array([points[epoch] for epoch in epochs]))


def _losses(rows: Sequence[Mapping[str, Any]]) -> _Curve | None:
    """The logarithm of the training loss in parts of the run; None where steps are too few, or it is not above 0."""
    steps = [(float(row["epoch"]), float(row["total"])) for row in rows if row.get("total") is not None]
    bins = min(_BINS, len(steps) // _STEPS)
    if bins < _FEWEST_BINS:
        return None
    parts = [part.mean(axis=0) for part in np.array_split(np.array(steps), bins)]
    epochs, means = np.array(parts).T
    return _Curve(epochs, np.log(means)) if (means > 0).all() else None


def _loss_change(loss: _Curve, position: int) -> Change:
    return change(loss.epochs, loss.values, rise_from(position))


def _fell(loss: _Curve, position: int) -> bool:
    """Whether the loss has fallen from a point to the end."""
    found = _loss_change(loss, position)
    return found.down and -np.expm1(found.amount) >= SMALLEST_OF_LOSS


def _rose(loss: _Curve, position: int) -> bool:
    found = _loss_change(loss, position)
    return found.up and np.expm1(found.amount) >= SMALLEST_OF_LOSS


def _loss_since(loss: _Curve, position: int) -> str:
    """How the loss moved from a point to the end, in words."""
    if not (_fell(loss, position) or _rose(loss, position)):
        return "the training loss has hardly changed"
    share = np.expm1(_loss_change(loss, position).amount)
    return f"the training loss has {'risen' if share > 0 else 'fallen'} by {abs(share):.0%}"


def _still_falls(loss: _Curve | None) -> bool:
    """Whether the loss fell in the last third of the run."""
    return loss is not None and _fell(loss, len(loss.values) * 2 // 3 - window_of(len(loss.values)) // 2)


def _end_of(loss: _Curve | None) -> str:
    """What the loss did in the last third, as a part of a sentence."""
    if loss is None:
        return f"the training loss cannot be read (fewer than {_STEPS * _FEWEST_BINS} steps, or not above 0)"
    return f"the training loss {'was still falling' if _still_falls(loss) else 'was level'} in the last third"


def _worse(name: str, figures: _Curve, drop: Change, loss: _Curve | None) -> Finding:
    """The figure at the end is below its best level."""
    running = levels(figures.values)
    window = window_of(len(figures.values))
    start = int(running.argmax())
    epoch = float(figures.epochs[start : start + window].mean())
    why = f"{_points(drop.limit)} could be noise" if drop.up else f"the last {IN_A_ROW} each below the one before"
    reason = (
        f"{name} was best around epoch {epoch:.3g} of {figures.epochs[-1]:.3g} ({100 * running[start]:.1f}) and ends "
        f"{_points(drop.amount)} lower ({why})"
    )
    if loss is None:
        return _finding("worse at the end", f"{reason}; {_end_of(loss)}.")
    position = max(0, int(np.searchsorted(loss.epochs, epoch)) - window_of(len(loss.values)) // 2)
    verdict: Verdict = "worse at the end"
    if _fell(loss, position) or _rose(loss, position):
        verdict = "overfitting" if _fell(loss, position) else "diverging"
    return _finding(verdict, f"{reason}; {_loss_since(loss, position)} since then. {_COMPARED}")


def _unlearned(loss: _Curve, besides: str) -> Finding:
    """The loss has not fallen since the beginning."""
    return _finding("diverging" if _rose(loss, 0) else "not learning", f"{_loss_since(loss, 0)}; {besides}.")


def _level(name: str, figures: _Curve, rise: Change, drop: Change, loss: _Curve | None) -> Finding:
    """The figure is settled."""
    running = levels(figures.values)
    reason = (
        f"{name} is settled at {100 * running[-1]:.1f}, {_points(drop.amount)} below its best level, and moved by "
        f"{_points(rise.amount, sign=True)} in the last third (known to {_points(rise.error)}); {_end_of(loss)}"
    )
    if _still_falls(loss):
        reason += ". More epochs alone teach the training images; more images or stronger augmentation may still help"
    return _finding("level", f"{reason}. Whether that is good the curves cannot tell.")


def _unclear(name: str, figures: _Curve, rise: Change, drop: Change, loss: _Curve | None) -> Finding:
    """The figure's noise hides what would matter."""
    return _finding(
        "too little to say",
        f"{name} moved by {_points(rise.amount, sign=True)} in the last third and ends {_points(drop.amount)} below "
        f"its best level, but of {len(figures.values)} evaluations like these {_points(rise.limit)} and "
        f"{_points(drop.limit)} could be noise; {_end_of(loss)}.",
    )


def _without_figures(count: int, loss: _Curve | None) -> Finding:
    """Fewer evaluations than a trend needs: what the loss says."""
    evaluations = f"{count} evaluation{'' if count == 1 else 's'}; a trend needs {FEWEST}"
    if loss is not None and not _fell(loss, 0):
        return _unlearned(loss, evaluations)
    return _finding("too little to say", f"{evaluations}; {_end_of(loss)}.")


def _finding(verdict: Verdict, reason: str) -> Finding:
    return Finding(verdict, reason, _REMEDIES[verdict])


def _points(amount: float, *, sign: bool = False) -> str:
    """A figure's change in points, hundredths of the whole."""
    return f"{100 * amount:{'+' if sign else ''}.1f} points"
