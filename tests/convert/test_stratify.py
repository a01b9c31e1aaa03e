"""Sharing out: hand-computed cases, the promises for random data, and scikit-learn's single-label rule of thumb."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.convert.stratify import stratify, whole_shares


def one_hot(*classes: int, count: int) -> np.ndarray:
    """[N, count] bool; -1: no objects."""
    present = np.zeros((len(classes), count), bool)
    for row, label in enumerate(classes):
        if label >= 0:
            present[row, label] = True
    return present


def sizes(part: np.ndarray, parts: int) -> list[int]:
    return np.bincount(part, minlength=parts).tolist()


@pytest.mark.parametrize(
    ("total", "shares", "expected"),
    [
        (10, [0.8, 0.1, 0.1], [8, 1, 1]),
        (
            364,
            [0.8, 0.1, 0.1],
            [291, 37, 36],
        ),  # 291.2, 36.4, 36.4: 363 whole ones, the first largest remainder takes one
        (3, [0.8, 0.1, 0.1], [1, 1, 1]),
        (2, [0.8, 0.1, 0.1], [2, 0, 0]),  # 1.6, 0.2, 0.2
        (7, [1 / 3] * 3, [3, 2, 2]),
        (0, [0.5, 0.5], [0, 0]),
    ],
)
def test_whole_shares(total: int, shares: list[float], expected: list[int]) -> None:
    assert whole_shares(total, np.array(shares)).tolist() == expected


def test_each_class_in_its_share() -> None:
    """One class an image: every part has exactly its share of every class, and of the images without objects."""
    present = one_hot(*[0] * 50, *[1] * 20, *[2] * 10, *[-1] * 20, count=3)
    part = stratify(present, [0.7, 0.2, 0.1], 0)
    assert sizes(part, 3) == [70, 20, 10]
    for rows, expected in (
        (present[:, 0], [35, 10, 5]),
        (present[:, 1], [14, 4, 2]),
        (present[:, 2], [7, 2, 1]),
        (~present.any(1), [14, 4, 2]),
    ):
        assert sizes(part[rows], 3) == expected


def test_images_without_objects_in_their_share() -> None:
    """Whatever the classes of the others do: 60 of 200 to five parts of 40."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        present = rng.random((200, 8)) < rng.uniform(0.02, 0.5, 8)
        present[60:, 0] |= ~present[60:].any(1)
        present[:60] = False
        part = stratify(present, [0.2] * 5, seed)
        assert sizes(part[:60], 5) == [12] * 5
        assert sizes(part, 5) == [40] * 5


def test_three_images_of_a_class_reach_three_parts() -> None:
    """The paper's fractional wishes (2.4, 0.3, 0.3) would put all three into the first part."""
    present = one_hot(*[0] * 27, *[1] * 3, count=2)
    for seed in range(10):
        part = stratify(present, [0.8, 0.1, 0.1], seed)
        assert sorted(part[27:].tolist()) == [0, 1, 2]
        assert sizes(part, 3) == [24, 3, 3]


def test_what_the_greedy_order_gets_wrong_is_mended() -> None:
    """Class 1 is in images 0 to 2 only, two of which hold the rarer class 0: these two must not meet in one part."""
    present = one_hot(*[2] * 30, count=3)
    present[:3, 1] = True
    present[:2, 0] = True
    for seed in range(20):
        part = stratify(present, [0.8, 0.1, 0.1], seed)  # two of class 0: 1.6, 0.2 and 0.2
        assert set(part[:3].tolist()) == {0, 1, 2}, seed


def test_a_swap_keeps_the_sizes_where_it_can() -> None:
    """As above, but every second other unit is of two images: parts of 45 * 0.8, 0.1 and 0.1 images."""
    present = one_hot(*[2] * 30, count=3)
    present[:3, 1] = True
    present[:2, 0] = True
    images = np.where(np.arange(30) % 2, 2, 1)
    for seed in range(20):
        part = stratify(present, [0.8, 0.1, 0.1], seed, images=images)
        assert set(part[:3].tolist()) == {0, 1, 2}, seed
        found = np.array([images[part == side].sum() for side in range(3)])
        assert np.abs(found - [36, 5, 4]).max() <= 1, (seed, found)


def test_what_nobody_can_do_ends() -> None:
    """Three images with the classes AB, BC and CA: two parts cannot both have all three."""
    present = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], bool)
    assert sorted(sizes(stratify(present, [0.5, 0.5], 0), 2)) == [1, 2]


def test_units_stay_whole_and_parts_keep_their_sizes() -> None:
    present = one_hot(*[0] * 30, *[1] * 10, count=2)
    images = np.ones(40, np.int64)
    images[[0, 35]] = 5
    part = stratify(present, [0.5, 0.5], 3, images=images)
    assert [int(images[part == side].sum()) for side in (0, 1)] == [24, 24]


def test_no_part_stays_empty() -> None:
    """Of 9 images two parts get one each, but only one unit is that small."""
    part = stratify(one_hot(-1, 0, 0, count=1), [0.8, 0.1, 0.1], 0, images=np.array([3, 1, 5]))
    assert sorted(part.tolist()) == [0, 1, 2]


def test_the_seed_chooses_and_nothing_else() -> None:
    present = np.random.default_rng(0).random((60, 4)) < 0.3
    first = stratify(present, [0.5, 0.5], 1)
    assert (stratify(present.copy(), [0.5, 0.5], 1) == first).all()
    assert (stratify(present, [0.5, 0.5], 2) != first).any()


def test_folds_are_closer_to_the_whole_than_chance() -> None:
    """Label distribution (the paper's LD): mean deviation of the parts' odds of each class from the whole's."""
    rng = np.random.default_rng(5)
    present = rng.random((300, 12)) < rng.uniform(0.02, 0.4, 12)

    def deviation(part: np.ndarray) -> float:
        def odds(rows: np.ndarray) -> np.ndarray:
            return rows.sum(0) / np.maximum((~rows).sum(0), 1)

        return float(np.mean([np.abs(odds(present[part == side]) - odds(present)) for side in range(5)]))

    ours = [deviation(stratify(present, [0.2] * 5, seed)) for seed in range(5)]
    chance = [deviation(rng.permutation(np.arange(300) % 5)) for _ in range(20)]
    assert max(ours) < min(chance)
    assert np.mean(ours) < np.mean(chance) / 3


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_promises_for_any_data(data: st.DataObject) -> None:
    parts = data.draw(st.integers(2, 4))
    count, classes = data.draw(st.integers(parts, 40)), data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    labels = rng.integers(-1, classes, count)  # one class an image: then every class can be everywhere
    shares = rng.dirichlet(np.ones(parts) * 3) * 0.9 + 0.1 / parts
    part = stratify(one_hot(*labels, count=classes), list(shares), 0)
    assert part.min() >= 0
    assert sizes(part, parts) == whole_shares(count, shares).tolist()
    for label in range(classes):
        # each part has room for all classes only where it has that many places
        if (labels == label).sum() >= parts and min(sizes(part, parts)) >= classes + 1:
            assert len(set(part[labels == label])) == parts
