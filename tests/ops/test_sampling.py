"""The balanced draw: how many, of which kind, from the seed alone, and fairly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transfer.ops.matching import NEGATIVE, NEITHER
from transfer.ops.sampling import sample_balanced


def mixed(positives: int, negatives: int, neither: int = 7) -> Tensor:
    """Matches in a shuffled order."""
    matches = torch.tensor([k % 4 for k in range(positives)] + [NEGATIVE] * negatives + [NEITHER] * neither)
    return matches[torch.randperm(len(matches), generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("positives", "negatives", "fraction", "expected"),
    [
        (100, 100, 0.25, (8, 24)),
        (100, 100, 0.5, (16, 16)),
        (3, 100, 0.5, (3, 29)),  # negatives make up what positives lack
        (100, 5, 0.5, (16, 5)),  # positives do not
        (0, 100, 0.5, (0, 32)),
        (100, 0, 0.5, (16, 0)),
        (2, 3, 0.5, (2, 3)),
        (100, 100, 0.0, (0, 32)),
        (100, 100, 1.0, (32, 0)),
        (0, 0, 0.5, (0, 0)),
    ],
)
def test_how_many_of_each(positives: int, negatives: int, fraction: float, expected: tuple[int, int]) -> None:
    matches = mixed(positives, negatives)
    drawn_positives, drawn_negatives = sample_balanced(matches, count=32, positive_fraction=fraction, seed=1)
    assert (len(drawn_positives), len(drawn_negatives)) == expected
    assert (matches[drawn_positives] >= 0).all()
    assert (matches[drawn_negatives] == NEGATIVE).all()
    assert len(drawn_positives.unique()) == len(drawn_positives)
    assert len(drawn_negatives.unique()) == len(drawn_negatives)
    assert drawn_positives.dtype == drawn_negatives.dtype == torch.int64


def test_where_there_are_no_more_than_wanted_all_are_taken_in_order() -> None:
    matches = mixed(4, 9)
    positives, negatives = sample_balanced(matches, count=1000, positive_fraction=0.5, seed=1)
    assert positives.tolist() == [i for i, value in enumerate(matches.tolist()) if value >= 0]
    assert negatives.tolist() == [i for i, value in enumerate(matches.tolist()) if value == NEGATIVE]


def test_the_seed_alone_decides_and_torchs_own_generator_is_left_alone() -> None:
    matches = mixed(200, 200)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample_balanced(matches, count=64, positive_fraction=0.5, seed=2**62 + 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = sample_balanced(matches, count=64, positive_fraction=0.5, seed=2**62 + 5)
    other = sample_balanced(matches, count=64, positive_fraction=0.5, seed=2**62 + 6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0].sort().values, other[0].sort().values)
    assert not torch.equal(first[1].sort().values, other[1].sort().values)


def test_every_candidate_has_the_same_chance() -> None:
    matches = mixed(10, 20)
    counts = torch.zeros(len(matches))
    draws = 600
    for seed in range(draws):
        for indices in sample_balanced(matches, count=10, positive_fraction=0.5, seed=seed):
            counts[indices] += 1
    # 5 of 10 positives, 5 of 20 negatives; four standard deviations of a binomial are 49 and 42.
    assert ((counts[matches >= 0] - draws / 2).abs() < 49).all()
    assert ((counts[matches == NEGATIVE] - draws / 4).abs() < 43).all()
    assert (counts[matches == NEITHER] == 0).all()
