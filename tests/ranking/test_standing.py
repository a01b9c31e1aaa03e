"""Who is ahead, by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from transfer.experiments.statistics import power
from transfer.ranking.standing import standing

SHARED = [0.0, 3.0, -2.0, 5.0]
"""What a seed does to all backbones alike."""
NOISE = {
    "a": [0.0, 0.1, -0.1, 0.02],
    "b": [0.1, 0.0, 0.05, -0.1],
    "c": [0.0, -0.1, 0.1, 0.1],
    "d": [1.5, -2.7, 2.1, 0.3],
}


def figures_of(means: dict[str, float], task: str = "fruit", seeds: int = 4) -> dict[tuple[str, str, int], float]:
    return {
        (name, task, seed): mean + SHARED[seed] + NOISE[name][seed]
        for name, mean in means.items()
        for seed in range(seeds)
    }


def test_pairs_are_paired_t_tests_corrected_over_all_pairs() -> None:
    means = {"c": 78.0, "a": 80.0, "b": 79.9}
    found = standing(figures_of(means)).tasks[0]
    assert [place.backbone for place in found.places] == ["a", "b", "c"]
    p_values = {}
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        first, second = (np.array([means[name] + x + y for x, y in zip(SHARED, NOISE[name])]) for name in (one, other))
        expected = stats.ttest_rel(first, second)
        p_values[one, other] = expected.pvalue
        pair = found.pair(other, one)
        assert (pair.first, pair.second) == (one, other)
        assert pair.gain is not None
        assert pair.gain.p == pytest.approx(expected.pvalue)
        assert pair.gain.mean == pytest.approx((first - second).mean())
    ordered = sorted(p_values, key=lambda pair: p_values[pair])
    running = 0.0
    for rank, pair in enumerate(ordered):
        running = max(running, min(1.0, (3 - rank) * p_values[pair]))
        assert found.pair(*pair).p_holm == pytest.approx(running)
    assert [found.pair(*pair).ahead for pair in (("a", "b"), ("a", "c"), ("b", "c"))] == [None, "a", "b"]


def test_means_and_intervals_are_those_of_the_seeds() -> None:
    place = standing(figures_of({"a": 80.0})).tasks[0].places[0]
    values = [80.0 + x + y for x, y in zip(SHARED, NOISE["a"])]
    assert place.figures == pytest.approx(dict(enumerate(values)))
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    assert (place.mean, *place.interval) == pytest.approx((np.mean(values), interval.low, interval.high))


def test_groups_and_the_ranks_the_evidence_leaves() -> None:
    # d scatters so much that it ties with all of them but c
    found = standing(figures_of({"a": 80.0, "b": 79.97, "c": 77.0, "d": 79.0})).tasks[0]
    by_name = {place.backbone: place for place in found.places}
    assert [place.backbone for place in found.places] == ["a", "b", "d", "c"]
    assert [place.rank for place in found.places] == [1, 2, 3, 4]
    assert {name: place.group for name, place in by_name.items()} == {"a": 1, "b": 1, "d": 1, "c": 2}
    assert found.pair("c", "d").ahead is None
    assert {name: place.ranks for name, place in by_name.items()} == {
        "a": (1, 3),
        "b": (1, 3),
        "d": (1, 4),
        "c": (3, 4),
    }


def test_ties_do_not_pass_on() -> None:
    """d ties with the best and c with d, but c is not in the first group."""
    found = standing(figures_of({"a": 80.0, "c": 78.5, "d": 79.0})).tasks[0]
    assert (found.pair("a", "d").ahead, found.pair("d", "c").ahead, found.pair("a", "c").ahead) == (None, None, "a")
    assert [place.group for place in found.places] == [1, 1, 2]


def test_correction_takes_back_what_one_interval_would_claim() -> None:
    figures = {("a", "t", seed): value for seed, value in enumerate([80.0, 81.0, 80.4])}
    figures |= {("b", "t", seed): value for seed, value in enumerate([79.0, 79.75, 79.5])}
    pair = standing(figures).tasks[0].pairs[0]
    assert pair.ahead == "a"
    figures |= {
        (name, "t", seed): 80.0 + (seed - 1) * sign for name, sign in (("c", 1), ("d", -1)) for seed in range(3)
    }
    pair = standing(figures).tasks[0].pair("a", "b")
    assert pair.gain is not None
    assert pair.gain.is_evident
    assert pair.p_holm > 0.05
    assert pair.ahead is None
    # Enough for one comparison, but not for six, each of which has a sixth of 5 %.
    assert pair.more_seeds is not None
    level, needed = 0.05 / 6, 3 + pair.more_seeds
    mean, sd = pair.gain.mean, pair.gain.sd
    assert power(mean, sd, needed, confidence=1 - level) >= 0.8 > power(mean, sd, needed - 1, confidence=1 - level)


def test_an_open_comparison_among_several_needs_more_seeds_than_alone() -> None:
    """By hand: a over b by 0.5 with a standard deviation of 0.4; of six pairs each has a sixth of 5 %."""
    wobble = [0.4, -0.4, 0.4, -0.4]
    two = {("a", "t", seed): 80.5 + wobble[seed] for seed in range(4)} | {("b", "t", seed): 80.0 for seed in range(4)}
    four = two | {(name, "t", seed): 70.0 + wobble[seed] for name in "cd" for seed in range(4)}
    needed = []
    for figures, level in ((two, 0.05), (four, 0.05 / 6)):
        pair = standing(figures).tasks[0].pair("a", "b")
        assert pair.gain is not None
        assert pair.more_seeds is not None
        needed.append(4 + pair.more_seeds)
        mean, sd, of = pair.gain.mean, pair.gain.sd, 1 - level
        assert power(mean, sd, needed[-1], confidence=of) >= 0.8 > power(mean, sd, needed[-1] - 1, confidence=of)
    assert needed[0] < needed[1]


def test_how_many_more_seeds_an_open_comparison_needs() -> None:
    figures = {("a", "t", seed): 80.0 + [0.5, -0.5, 0.3, -0.3][seed] for seed in range(4)}
    figures |= {("b", "t", seed): 79.8 for seed in range(4)}
    (pair,) = standing(figures).tasks[0].pairs
    assert pair.ahead is None
    assert pair.gain is not None
    assert pair.more_seeds is not None
    needed = 4 + pair.more_seeds
    assert power(pair.gain.mean, pair.gain.sd, needed) >= 0.8 > power(pair.gain.mean, pair.gain.sd, needed - 1)
    evident = standing(figures_of({"a": 80.0, "c": 70.0})).tasks[0].pairs[0]
    assert (evident.ahead, evident.more_seeds) == ("a", None)


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_cannot_be_known_is_a_tie(seeds: int) -> None:
    found = standing(figures_of({"a": 80.0, "b": 79.95}, seeds=seeds)).tasks[0]
    assert found.pairs[0].ahead is None
    assert [place.group for place in found.places] == [1, 1]
    assert math.isnan(found.pairs[0].p_holm) == (seeds == 1)
    assert "nothing sets the best apart" in found.sentence()
    if seeds == 1:
        assert found.pairs[0].more_seeds is None
        assert math.isnan(found.places[0].interval[0])


def test_only_shared_seeds_are_compared() -> None:
    figures = {("a", "t", 0): 80.0, ("a", "t", 1): 81.0, ("b", "t", 1): 80.5, ("b", "t", 2): 70.0, ("c", "t", 7): 1.0}
    found = standing(figures).tasks[0]
    gain = found.pair("a", "b").gain
    assert gain is not None
    assert gain.differences == (0.5,)
    assert found.pair("a", "c").gain is None
    assert found.pair("a", "c").ahead is None
    assert found.pair("a", "c").more_seeds is None


def test_ranks_over_tasks() -> None:
    figures = figures_of({"a": 80.0, "b": 70.0, "c": 60.0}, "fruit")
    figures |= figures_of({"b": 50.0, "a": 40.0, "c": 30.0}, "camvid")
    figures |= {("d", "camvid", 0): 99.0, ("d", "fruit", 0): math.nan, ("a", "bccd", 0): math.nan}
    found = standing(figures)
    assert [task.task for task in found.tasks] == ["fruit", "camvid"]  # bccd has no figure
    assert found.missing == {"a": ("bccd",), "b": ("bccd",), "c": ("bccd",), "d": ("fruit", "bccd")}
    assert found.overall == ()
    del figures["a", "bccd", 0]
    found = standing(figures)
    assert found.missing == {"d": ("fruit",)}
    # camvid: d 99 (one seed: ties with all), b, a, c; fruit: a, b, c
    assert {mean.backbone: mean.rank for mean in found.overall} == {"a": 2.0, "b": 2.0, "c": 3.5}
    assert found.overall[0].backbone == "a"
    assert {mean.backbone: mean.ranks for mean in found.overall} == {"a": (1.5, 2.0), "b": (1.5, 2.0), "c": (3.0, 3.5)}


def test_equal_means_share_their_ranks() -> None:
    figures = {(name, "t", seed): value for name, value in (("a", 5.0), ("b", 7.0), ("c", 5.0)) for seed in range(3)}
    found = standing(figures).tasks[0]
    assert [(place.backbone, place.rank, place.ranks) for place in found.places] == [
        ("b", 1.0, (1, 1)),
        ("a", 2.5, (2, 3)),
        ("c", 2.5, (2, 3)),
    ]
    assert found.pair("a", "c").more_seeds is None  # they do not differ


def test_sentences() -> None:
    ahead = standing(figures_of({"a": 80.0, "c": 70.0})).tasks[0]
    assert ahead.sentence() == "fruit: a is ahead of all others."
    tied = standing(figures_of({"a": 80.0, "c": 70.0, "d": 79.0})).tasks[0]
    more = tied.pair("a", "d").more_seeds
    assert tied.sentence() == f"fruit: a has the highest mean, but ties with d ({more} more seeds to tell)."
    assert standing(figures_of({"a": 80.0})).tasks[0].sentence() == "fruit: only a was measured."
    assert standing({}).tasks == ()


def test_planted_ties_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(150):
        shared = rng.normal(0, 3, 3)
        figures = {(str(name), "t", seed): shared[seed] + rng.normal() for name in range(5) for seed in range(3)}
        wrong += any(pair.ahead for pair in standing(figures).tasks[0].pairs)
    assert wrong / 150 <= 0.1  # 5 % over all ten pairs, not of each
