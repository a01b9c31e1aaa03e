"""What is said of hand-made curves, and that noise alone is not taken for anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from transfer.report import trends
from transfer.report.fitting import Finding, read_fitting

EPOCHS = 20
TIMES = np.arange(1, 11) / 10
LEARNED = 0.6 * (1 - np.exp(-6 * TIMES))
OVERFITTED = LEARNED - 0.2 * np.maximum(0, TIMES - 0.35)
RISING = 0.6 * TIMES**0.7
SETTLED = 0.6 * (1 - np.exp(-15 * TIMES))


def falling(time: float) -> float:
    return 5 * math.exp(-3 * time)


def settled(time: float) -> float:
    return 1 + 4 * math.exp(-15 * time)


def stuck(time: float) -> float:
    return 5.0


def rising_late(time: float) -> float:
    return falling(min(time, 0.4)) + 8 * max(0.0, time - 0.4)


def rows_of(
    figures: np.ndarray,
    loss: Callable[[float], float],
    *,
    noise: float = 0.004,
    loss_noise: float = 0.2,
    seed: int = 0,
    per_epoch: int = 12,
) -> list[dict[str, Any]]:
    """A run's rows: its loss with a share of noise in each step, its figures at equal distances with noise."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    total = EPOCHS * per_epoch
    for iteration in range(1, total + 1):
        value = loss(iteration / total) * math.exp(loss_noise * generator.standard_normal())
        rows.append({"iteration": iteration, "epoch": iteration / per_epoch, "lr": 0.1, "total": value})
    noisy = np.maximum(0, figures + noise * generator.standard_normal(len(figures)))
    for number, figure in enumerate(noisy, start=1):
        values = {"mAP50": float(figure), "AP": 0.9 - number / 100}
        evaluation = [{"protocol": "area", "values": values}, {"protocol": "other", "values": {"mAP50": 0.0}}]
        rows.append({"iteration": 1, "epoch": EPOCHS * number / len(figures), "evaluation": evaluation})
    return rows


CASES = {
    "overfitting": (OVERFITTED, falling, 0.004),
    "not finished": (RISING, falling, 0.004),
    "diverging": (OVERFITTED, rising_late, 0.004),
    "worse at the end": (OVERFITTED, settled, 0.004),
    "not learning": (np.full(10, 0.02), stuck, 0.004),
    "level": (SETTLED, falling, 0.004),
    "too little to say": (LEARNED, falling, 0.08),
}


@pytest.mark.parametrize("verdict", CASES)
def test_each_verdict_on_a_curve_made_for_it(verdict: str) -> None:
    figures, loss, noise = CASES[verdict]
    found = Counter(read_fitting(rows_of(figures, loss, noise=noise, seed=seed)).verdict for seed in range(20))
    assert found[verdict] >= 17, found  # type: ignore[index]


def test_the_numbers_behind_overfitting_and_its_remedy() -> None:
    figures = np.array([0.2, 0.4, 0.5, 0.55, 0.6, 0.6, 0.58, 0.56, 0.54, 0.52, 0.5, 0.5])
    finding = read_fitting(rows_of(figures, falling, noise=0))
    # Levels are means of 3: the best one is (55 + 60 + 60) / 3 or (60 + 60 + 58) / 3 = 59.3, the last 50.7.
    assert finding.verdict == "overfitting"
    assert "mAP50 was best around epoch 10 of 20 (59.3) and ends 8.7 points lower" in finding.reason
    assert "the training loss has fallen by 7" in finding.reason  # exp(-3 / 2) of it is left: 78 %
    for key in ("training.epochs", "augment.train", "model.backbone.frozen_stages", "optimizer.weight_decay"):
        assert key in finding.remedy
    assert str(finding).startswith("overfitting: mAP50 was best")
    assert finding.remedy in str(finding)


def test_a_figure_that_still_rises_while_the_loss_falls_is_not_finished() -> None:
    finding = read_fitting(rows_of(np.arange(1, 13) / 20, falling, noise=0))
    assert finding.verdict == "not finished"
    assert "rose by 15.0 points in the last third of 12 evaluations" in finding.reason  # 4 points, 3 steps of 5
    assert "still falling" in finding.reason
    assert "training.epochs" in finding.remedy
    level = read_fitting(rows_of(np.arange(1, 13) / 20, settled, noise=0))
    assert level.verdict == "not finished"
    assert "the training loss was level" in level.reason


def test_what_is_beyond_the_noise_but_small_is_no_claim() -> None:
    rising = np.array([0.6] * 8 + [0.605, 0.61, 0.615, 0.62])  # 2.4 % of the best in the last third
    assert read_fitting(rows_of(rising, falling, noise=0)).verdict == "not finished"
    assert read_fitting(rows_of(0.6 + (rising - 0.6) / 2, falling, noise=0)).verdict == "level"
    fall = np.array([0.6] * 7 + [0.595, 0.59, 0.585, 0.58, 0.575])  # means of three: 0.6 and 0.58
    assert read_fitting(rows_of(fall, falling, noise=0)).verdict == "overfitting"
    assert read_fitting(rows_of(0.6 - (0.6 - fall) / 2, falling, noise=0)).verdict == "level"
    level = np.full(12, 0.6)
    for share, verdict in ((0.03, "not learning"), (0.1, "level")):  # what the loss falls by
        found = read_fitting(rows_of(level, lambda time: 1 - share * time, noise=0, loss_noise=0.001))  # noqa: B023
        assert found.verdict == verdict


def test_a_figure_that_has_risen_was_learned_whatever_the_loss_says() -> None:
    assert read_fitting(rows_of(SETTLED, stuck)).verdict == "level"


def test_a_wild_climb_does_not_hide_the_fall_after_it() -> None:
    climb = [0.02, 0.2, 0.04, 0.22, 0.03, 0.21, 0.05, 0.24]
    figures = np.array([*climb, 0.6, 0.6, 0.58, 0.56, 0.54, 0.52, 0.5, 0.5])
    finding = read_fitting(rows_of(figures, falling, noise=0))
    assert finding.verdict == "overfitting"
    assert "best around epoch 12.5 of 20" in finding.reason  # the 9th to 11th of 16


def test_an_end_far_below_the_best_level_is_not_called_level() -> None:
    figures = np.array([0.5, 0.55, 0.66, 0.6, 0.64, 0.57, 0.6, 0.57, 0.58, 0.575, 0.58, 0.575])
    found = read_fitting(rows_of(figures, falling, noise=0))
    assert found.verdict == "too little to say"  # 63.3 - 57.7 points, 9 % of the best
    closer = np.where(figures > 0.6, 0.6, figures)
    assert read_fitting(rows_of(closer, falling, noise=0)).verdict == "level"


def test_a_figure_that_fell_and_rises_again_is_not_overfitting() -> None:
    figures = np.array([0.3, 0.5, 0.6, 0.6, 0.55, 0.5, 0.45, 0.4, 0.44, 0.48, 0.52, 0.56])
    assert read_fitting(rows_of(figures, falling, noise=0.002)).verdict == "not finished"


@pytest.mark.parametrize("count", [4, 6, 10, 24])
@pytest.mark.parametrize("shape", ["level", "rising to a level"])
def test_noise_alone_yields_no_claim_in_95_of_100_runs(count: int, shape: str) -> None:
    times = np.arange(1, count + 1) / count
    figures = np.full(count, 0.5) if shape == "level" else 0.5 * (1 - np.exp(-25 * times))
    draws = [read_fitting(rows_of(figures, falling, noise=0.03, seed=seed, per_epoch=2)) for seed in range(500)]
    silent = sum(finding.verdict in ("level", "too little to say") for finding in draws)
    assert silent >= 475


@pytest.mark.parametrize("count", [6, 24])
def test_the_limit_of_a_change_is_what_200_level_curves_exceed_once(count: int) -> None:
    x = np.arange(float(count))
    curves = np.random.default_rng(7).normal(3, 0.2, (2000, count))
    for statistic in (trends.below_best, trends.rise_at_end(3), trends.rise_from(0)):
        found = [trends.change(x, curve, statistic) for curve in curves]
        assert 2 <= sum(change.up for change in found) <= 22  # 10 expected


def test_noise_at_the_end_is_that_of_the_last_half() -> None:
    generator = np.random.default_rng(5)
    x = np.arange(24.0)
    y = np.concatenate([generator.normal(0, 1, 12), generator.normal(0, 0.01, 12)])
    y[16:] += np.arange(8) / 20
    late = trends.change(x, y, trends.rise_at_end(8), recent=True)
    assert late.up
    assert late.limit < 0.2 * trends.change(x, y, trends.rise_at_end(8)).limit
    quiet = np.array([1.0, 1.3, 0.8, 1.2, 0.7, 1.4, 0.6, 1.1, 1.15, 1.2, 1.2, 1.2, 1.2])  # the lr has gone to zero
    expected = math.sqrt((0.225**2 + 0.025**2) / 1.5 / 5)  # of the last 7: 5 distances, two of them not 0
    assert float(trends.noise_of(x[:7], quiet[-7:], median=False)) == pytest.approx(expected)
    assert not trends.change(x[:13], quiet, trends.rise_at_end(5), recent=True).up


# Light YOLOv3 at 128 px: 24 drawn scenes without augmentation, 160 with, 240 photographs of fruit; seed 0.
REAL = {
    "24 scenes": [0, 0, 2.9, 1.8, 4.1, 1.8, 3.1, 1.8, 3.5, 3.1, 2.7, 3.4, 3.3, 3.2, 3.2, 3.2],
    "160 scenes": [0, 0, 0, 1.9, 4.0, 4.9, 6.8, 5.7, 5.9, 6.1],
    "fruit": [9.7, 31.3, 42.9, 41.2, 44.4, 50.4, 58.5, 57.7, 61.7, 63.7, 63.4, 64.2],
}


@pytest.mark.parametrize("run", REAL)
def test_of_real_curves_that_are_too_noisy_nothing_is_claimed(run: str) -> None:
    assert read_fitting(rows_of(np.array(REAL[run]) / 100, falling, noise=0)).verdict == "too little to say"


def test_noise_is_found_beneath_a_curve() -> None:
    x = np.sort(np.random.default_rng(1).uniform(0, 10, 2000))
    noise = np.random.default_rng(2).normal(0, 0.3, 2000)
    assert float(trends.noise_of(x, np.sin(x) + 5 * x + noise)) == pytest.approx(0.3, rel=0.1)
    assert float(trends.noise_of(x, 2 - 5 * x)) == pytest.approx(0, abs=1e-9)  # unequal distances, too


def test_statistics_of_a_curve_by_hand() -> None:
    x, y = np.array([1.0, 2, 3, 4, 5, 7]), np.array([0.0, 4, 6, 2, 3, 3])
    assert float(trends.below_best(x, y)) == 5 - 3  # of neighbours' means 2, 5, 4, 2.5, 3
    # Places 4, 5, 7 lie -4/3, -1/3, 5/3 from their mean; the slope is (-8/3 - 1 + 5) / (42/9), the way 3.
    assert float(trends.rise_at_end(3)(x, y)) == pytest.approx(3 * (4 / 3) / (42 / 9))
    assert float(trends.rise_from(1)(x, y)) == 3 - 5
    assert float(trends.rise_from(5)(x, y)) == 3 - 4  # as late as two levels allow that share no point


@pytest.mark.parametrize(
    ("curve", "expected"),
    [([9.0, 1, 2, 3, 4, 5], 1), ([5.0, 4, 3, 2, 1], -1), ([1.0, 2, 3, 3, 4], 0), ([1.0, 2, 3, 4], 0)],
)
def test_five_points_in_one_order_at_the_end(curve: list[float], expected: int) -> None:
    assert trends.in_a_row(np.array(curve)) == expected


@pytest.mark.parametrize("verdict", CASES)
def test_neither_the_scale_of_the_figure_nor_that_of_the_loss_matters(verdict: str) -> None:
    figures, loss, noise = CASES[verdict]
    rows = rows_of(figures, loss, noise=noise, seed=3)
    scaled = []
    for row in rows:
        if "total" in row:
            scaled.append({**row, "total": 1000 * row["total"]})
        else:
            value = row["evaluation"][0]["values"]["mAP50"]
            scaled.append({**row, "evaluation": [{"protocol": "area", "values": {"mAP50": value / 64}}]})
    assert read_fitting(scaled).verdict == read_fitting(rows).verdict


def test_too_few_evaluations_leave_the_loss() -> None:
    few = read_fitting(rows_of(LEARNED[:3], falling))
    assert few.verdict == "too little to say"
    assert "3 evaluations; a trend needs 4" in few.reason
    assert "the training loss was still falling in the last third" in few.reason
    assert "training.evaluate_every" in few.remedy
    assert "the training loss was level" in read_fitting(rows_of(LEARNED[:1], settled)).reason
    assert read_fitting(rows_of(LEARNED[:3], stuck)).verdict == "not learning"
    assert read_fitting(rows_of(LEARNED[:3], lambda time: 1 + 3 * time)).verdict == "diverging"
    assert (
        read_fitting([]).reason
        == "0 evaluations; a trend needs 4; the training loss cannot be read (fewer than 24 steps, or not above 0)."
    )


def test_a_figure_of_zero_throughout_is_said() -> None:
    finding = read_fitting(rows_of(np.zeros(8), falling, noise=0))
    assert finding.verdict == "not learning"
    assert "mAP50 was 0 in all 8 evaluations, while the training loss has fallen by 9" in finding.reason


def test_undefined_figures_are_left_out_and_another_may_be_read() -> None:
    rows = rows_of(RISING, falling)
    rows[-2]["evaluation"][0]["values"]["mAP50"] = None
    assert "last third of 9 evaluations" in read_fitting(rows).reason
    assert read_fitting(rows, figure="AP").reason.startswith("AP was best around epoch")  # falls by a point each time
    assert isinstance(read_fitting(rows, figure="no such"), Finding)


def test_a_loss_below_zero_is_not_read() -> None:
    finding = read_fitting(rows_of(OVERFITTED, lambda time: 1 - 2 * time))
    assert finding.verdict == "worse at the end"
    assert "cannot be read" in finding.reason
