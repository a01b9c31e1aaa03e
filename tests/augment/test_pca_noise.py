"""PCA noise: hand-computed shifts, the covariance of the formula, rounding and clipping."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from transfer.augment.pca_noise import EIGENVALUES, EIGENVECTORS, PCANoise, shift_colours
from transfer.types import Request, UserError

ANY = Request(0, 0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


class FixedNormals:
    """A generator whose normal numbers are given."""

    def __init__(self, *coefficients: float) -> None:
        self.coefficients = np.array(coefficients)

    def normal(self, mean: float, std: float, count: int) -> np.ndarray:
        assert (mean, count) == (0, 3)
        return self.coefficients * std


def test_a_shift_computed_by_hand(noise) -> None:
    sample = replace(noise(2, 3), image=np.full((2, 3, 3), 100, np.uint8))
    # Coefficient 0.1 of the first direction: 5.546 * (-0.5675, -0.5808, -0.5836) = -3.147, -3.221, -3.237
    shifted = PCANoise(0.1)(sample, ANY, FixedNormals(1, 0, 0))  # type: ignore[arg-type]
    assert shifted.image[0, 0].tolist() == [97, 97, 97]
    # -1.5 of the first and 2 of the second: 8.319 * (0.5675, 0.5808, 0.5836) + 0.9588 * (0.7192, -0.0045, -0.6948)
    # = 4.721 + 0.690, 4.832 - 0.004, 4.855 - 0.666 = 5.41, 4.83, 4.19
    shifted = PCANoise(0.1)(sample, ANY, FixedNormals(-1.5, 2, 0))  # type: ignore[arg-type]
    assert (shifted.image == [105, 105, 104]).all()  # the whole image alike
    # 50 of the third, at strength 0.1: 5.74 * (0.4009, -0.8140, 0.4203) = 2.30, -4.67, 2.41
    shifted = PCANoise(0.1)(sample, ANY, FixedNormals(0, 0, 50))  # type: ignore[arg-type]
    assert (shifted.image == [102, 95, 102]).all()
    assert (sample.image == 100).all()


def test_the_spread_is_that_of_the_formula(noise) -> None:
    std = 0.5
    sample = replace(noise(1, 1), image=np.full((1, 1, 3), 128, np.uint8))
    step = PCANoise(std)
    shifts = np.array([step(sample, ANY, rng(seed)).image[0, 0] for seed in range(4000)]).astype(np.float64) - 128
    directions = np.array(EIGENVECTORS) * np.array(EIGENVALUES)
    expected = std**2 * directions @ directions.T + np.eye(3) / 12  # what rounding adds
    assert np.cov(shifts.T) == pytest.approx(expected, rel=0.08)
    assert np.abs(shifts.mean(axis=0)).max() < 4 * np.sqrt(expected.max() / 4000)


def test_the_directions_are_orthogonal_units_of_falling_weight() -> None:
    vectors = np.array(EIGENVECTORS)
    assert vectors.T @ vectors == pytest.approx(np.eye(3), abs=1e-3)
    assert list(EIGENVALUES) == sorted(EIGENVALUES, reverse=True)
    # The first is brightness, all channels of one sign; 0.2175 in units of 0..1.
    assert (vectors[:, 0] < 0).all()
    assert EIGENVALUES[0] / 255 == pytest.approx(0.2175, abs=1e-4)


def test_shifts_are_rounded_to_the_nearest_and_clipped() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    shift = np.array([2.6, -3.4, 0.49])
    shifted = shift_colours(ramp, shift).astype(np.float64)
    exact = np.clip(ramp + shift, 0, 255)
    assert np.abs(shifted - exact).max() <= 0.5
    for channel, whole in enumerate((3, -3, 0)):
        assert (shifted[:, 0, channel] == np.clip(np.arange(256) + whole, 0, 255)).all()
    assert shift_colours(ramp, np.array([1e4, -1e4, 0.0]))[7, 0].tolist() == [255, 0, 7]


@pytest.mark.parametrize("size", [(5, 5), (1, 1), (3, 500), (400, 1)])
def test_only_the_colours_change(noise, size) -> None:
    sample = replace(noise(*size, [[0, 0, 1, 1]]), label=3, mask=np.ones(size, np.uint8))
    sample.image.setflags(write=False)
    step = pickle.loads(pickle.dumps(PCANoise(1.0)))
    first, again = (step(sample, ANY, rng(2)) for _ in range(2))
    assert first.image.shape == (*size, 3)
    assert first.image.dtype == np.uint8
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, sample.image)
    assert (first.label, first.mask is sample.mask, first.boxes.tolist()) == (3, True, [[0, 0, 1, 1]])


def test_off_is_the_sample_itself_and_mistakes_are_named(noise) -> None:
    sample = noise(4, 4)
    assert PCANoise(0)(sample, ANY, rng(0)) is sample
    for std in (-0.1, float("nan"), True, "0.1"):
        with pytest.raises(UserError, match="PCANoise: std="):
            PCANoise(std)  # type: ignore[arg-type]
