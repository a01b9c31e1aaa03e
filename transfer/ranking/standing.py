"""Which backbone is ahead on which task, how sure that is, and what it would take to know more.

On each task, every backbone is compared with every other one at the same seeds (`paired_gain`); two are told apart
where the interval of their difference leaves zero out and its p value is below 0.05 after Holm's correction over all
pairs of the task. Everything else is a tie, which is no evidence that they are equal. Ties do not pass on (A may tie
with B and B with C while A is ahead of C), so groups are made from the top: the best and all that tie with it, then the
best of the rest and all of the rest that tie with it, and so on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from transfer.experiments.statistics import CONFIDENCE, Gain, holm, paired_gain, seeds_needed, t_interval


@dataclass(frozen=True)
class Pair:
    """Two backbones on a task."""

    first: str
    """The one of the higher mean."""
    second: str
    gain: Gain | None
    """Of the first over the second, at the seeds they share; None: they share none."""
    p_holm: float
    """After the correction over all pairs of the task; NaN with fewer than two seeds."""
    comparisons: int = 1
    """Pairs of the task that were tested."""

    @property
    def ahead(self) -> str | None:
        """The better one where that is evident; None: a tie."""
        if self.gain is None or not self.gain.is_evident or not self.p_holm < 1 - CONFIDENCE:
            return None
        return self.first if self.gain.mean > 0 else self.second

    @property
    def more_seeds(self) -> int | None:
        """How many more seeds of both an open comparison needs to be told in 80 % of cases; one at the least.

        At a level of 5 % over all pairs of the task, each taking its equal part (Bonferroni); Holm's correction never
        needs more. None: it is told, or the number is too large to count or not known.
        """
        if self.ahead or self.gain is None or self.gain.mean == 0 or math.isnan(self.gain.sd):
            return None
        level = (1 - CONFIDENCE) / self.comparisons
        needed = seeds_needed(abs(self.gain.mean), self.gain.sd, confidence=1 - level)
        return None if needed is None else max(1, needed - len(self.gain.differences))


@dataclass(frozen=True)
class Place:
    """A backbone on a task."""

    backbone: str
    figures: dict[int, float]
    """Seed -> figure."""
    mean: float
    interval: tuple[float, float]
    """95 %, of the mean; NaN with one seed."""
    rank: float
    """By the mean, from 1; equal means share the mean of their ranks."""
    ranks: tuple[int, int]
    """Best and worst rank that the evidence leaves."""
    group: int
    """1: the best and those that tie with it; 2: the best of the rest, ..."""


@dataclass(frozen=True)
class TaskStanding:
    """All backbones on a task."""

    task: str
    places: tuple[Place, ...]
    """Best first."""
    pairs: tuple[Pair, ...]

    def pair(self, one: str, other: str) -> Pair:
        """The comparison of two backbones."""
        return next(pair for pair in self.pairs if {pair.first, pair.second} == {one, other})

    def sentence(self) -> str:
        """Who is ahead, and how sure that is."""
        best = self.places[0]
        if len(self.places) == 1:
            return f"{self.task}: only {best.backbone} was measured."
        tied = [place.backbone for place in self.places[1:] if place.group == 1]
        if not tied:
            return f"{self.task}: {best.backbone} is ahead of all others."
        open_pairs = [self.pair(best.backbone, other) for other in tied]
        told = ", ".join(f"{other} ({_seeds(pair.more_seeds)})" for other, pair in zip(tied, open_pairs))
        lead = f"{best.backbone} has the highest mean"
        rest = "" if len(tied) < len(self.places) - 1 else "; nothing sets the best apart"
        return f"{self.task}: {lead}, but ties with {told}{rest}."


@dataclass(frozen=True)
class MeanRank:
    """A backbone over all tasks."""

    backbone: str
    rank: float
    """Mean over tasks."""
    ranks: tuple[float, float]
    """Means of the best and of the worst ranks that the evidence leaves."""


@dataclass(frozen=True)
class Standing:
    """All backbones on all tasks."""

    tasks: tuple[TaskStanding, ...]
    overall: tuple[MeanRank, ...]
    """Best first: the backbones that were measured on every task."""
    missing: dict[str, tuple[str, ...]]
    """Backbone -> tasks without a figure of it."""


def standing(figures: Mapping[tuple[str, str, int], float]) -> Standing:
    """The standing of backbones on tasks.

    Args:
        figures: (backbone, task, seed) -> figure, the higher the better; NaN (undefined) does not count.

    Returns:
        Tasks in the order they first occur in; a task without any figure is missing.
    """
    by_task: dict[str, dict[str, dict[int, float]]] = {}
    names = list(dict.fromkeys(backbone for backbone, _, _ in figures))
    all_tasks = list(dict.fromkeys(task for _, task, _ in figures))
    for (backbone, task, seed), figure in figures.items():
        if math.isfinite(figure):
            by_task.setdefault(task, {}).setdefault(backbone, {})[seed] = float(figure)
    tasks = tuple(_on_task(task, by_task[task]) for task in all_tasks if task in by_task)
    missing = {name: tuple(task for task in all_tasks if name not in by_task.get(task, {})) for name in names}
    overall = [_over_tasks(name, tasks) for name in names if not missing[name]]
    return Standing(
        tasks,
        tuple(sorted(overall, key=lambda mean: mean.rank)),
        {name: without for name, without in missing.items() if without},
    )


def _on_task(task: str, figures: Mapping[str, dict[int, float]]) -> TaskStanding:
    means = {name: sum(of.values()) / len(of) for name, of in figures.items()}
    names = sorted(figures, key=lambda name: -means[name])  # of equal means, as given
    gains = [_paired(figures[one], figures[other]) for one, other in itertools.combinations(names, 2)]
    adjusted = holm([math.nan if gain is None else gain.p for gain in gains])
    tested = max(1, sum(not math.isnan(p) for p in adjusted))
    pairs = [Pair(*two, gain, p, tested) for two, gain, p in zip(itertools.combinations(names, 2), gains, adjusted)]
    groups = _groups(names, pairs)
    places = []
    for name in names:
        own = [pair.ahead for pair in pairs if name in (pair.first, pair.second) and pair.ahead]
        behind = sum(ahead != name for ahead in own)
        above, equal = (sum(mean > means[name] for mean in means.values()), list(means.values()).count(means[name]))
        places.append(
            Place(
                name,
                dict(sorted(figures[name].items())),
                means[name],
                t_interval(list(figures[name].values())),
                above + (equal + 1) / 2,
                (1 + behind, len(names) - (len(own) - behind)),
                groups[name],
            )
        )
    return TaskStanding(task, tuple(places), tuple(pairs))


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> Gain | None:
    shared = sorted(set(one) & set(other))
    return paired_gain([one[seed] for seed in shared], [other[seed] for seed in shared]) if shared else None


def _groups(names: list[str], pairs: list[Pair]) -> dict[str, int]:
    """Backbone, best first -> its group."""
    apart = {frozenset((pair.first, pair.second)) for pair in pairs if pair.ahead}
    groups: dict[str, int] = {}
    for number in itertools.count(1):
        rest = [name for name in names if name not in groups]
        if not rest:
            break
        groups |= {name: number for name in rest if frozenset((rest[0], name)) not in apart}
    return groups


def _over_tasks(name: str, tasks: tuple[TaskStanding, ...]) -> MeanRank:
    places = [place for task in tasks for place in task.places if place.backbone == name]
    count = len(places)
    return MeanRank(
        name,
        sum(place.rank for place in places) / count,
        (sum(place.ranks[0] for place in places) / count, sum(place.ranks[1] for place in places) / count),
    )


def _seeds(more: int | None) -> str:
    if more is None:
        return "seeds to tell: unknown"
    return f"{more} more seed{'s' if more > 1 else ''} to tell"
