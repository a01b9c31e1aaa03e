"""Fitted anchors: known clusters, brute force on few shapes, and figures that are not an artefact of the fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer.ops.anchor_fitting import best_ious, fit_anchors, held_out_best_ious, mean_with_interval
from transfer.types import UserError

CLUSTERS = torch.tensor([[12.0, 30.0], [50.0, 20.0], [60.0, 90.0]])


def around_clusters(count: int = 300, spread: float = 0.05, seed: int = 0) -> Tensor:
    """Shapes of three kinds, in turn, with a random factor on each side."""
    noise = torch.randn((count, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return CLUSTERS.double().repeat(count // 3, 1) * torch.exp(spread * noise)


def test_best_iou_by_hand() -> None:
    sides = torch.tensor([[4.0, 6.0], [10.0, 10.0]])
    anchors = torch.tensor([[2.0, 12.0], [4.0, 8.0], [10.0, 5.0]])
    torch.testing.assert_close(best_ious(sides, anchors), torch.tensor([24 / 32, 0.5]))


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_found_smallest_first(seed: int) -> None:
    anchors = fit_anchors(around_clusters(seed=seed), 3, seed=seed)
    torch.testing.assert_close(anchors, CLUSTERS.double(), rtol=0.02, atol=0)


def test_the_fit_does_not_depend_on_the_unit() -> None:
    """IoU has no scale: large boxes count no more than small ones, unlike under Euclidean distance."""
    sides = torch.cat([around_clusters(), 10 * around_clusters(30, seed=1)])
    anchors = fit_anchors(sides, 6)
    torch.testing.assert_close(fit_anchors(7 * sides, 6), 7 * anchors)
    expected = torch.cat([CLUSTERS, 10 * CLUSTERS]).double()
    torch.testing.assert_close(anchors, expected[expected.prod(dim=1).argsort()], rtol=0.05, atol=0)


def test_no_division_into_groups_with_their_means_is_better() -> None:
    sides = torch.tensor([[8.0, 9], [10, 8], [9, 30], [11, 26], [40, 12], [36, 15], [14, 14]], dtype=torch.float64)
    best = 0.0
    for groups in itertools.product(range(3), repeat=len(sides)):
        if set(groups) == {0, 1, 2}:
            belongs = torch.tensor(groups)
            means = torch.stack([sides[belongs == group].mean(dim=0) for group in range(3)])
            best = max(best, best_ious(sides, means).mean().item())
    found = best_ious(sides, fit_anchors(sides, 3, starts=10)).mean().item()
    assert found >= best


def test_the_same_seed_gives_the_same_anchors_and_more_anchors_fit_better() -> None:
    sides = 5 + 100 * torch.rand((200, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_anchors(sides, 5, seed=3), fit_anchors(sides, 5, seed=3))
    fits = [best_ious(sides.double(), fit_anchors(sides, count)).mean().item() for count in (1, 2, 4, 8, 16)]
    assert fits == sorted(fits)
    assert fits[-1] > fits[0] + 0.2


def test_as_many_anchors_as_different_shapes_are_those_shapes() -> None:
    sides = torch.tensor([[5.0, 5], [20, 10], [5, 5], [30, 30]])
    assert fit_anchors(sides, 3).tolist() == [[5, 5], [20, 10], [30, 30]]
    with pytest.raises(UserError, match="4 anchors cannot be fitted to 4 boxes of 3 different shapes"):
        fit_anchors(sides, 4)


def test_no_box_is_an_error_of_words() -> None:
    with pytest.raises(UserError, match="9 anchors cannot be fitted to 0 boxes"):
        fit_anchors(torch.zeros(0, 2), 9)


def test_more_boxes_than_are_fitted_to() -> None:
    anchors = fit_anchors(around_clusters(24_000), 3, starts=1)
    torch.testing.assert_close(anchors, CLUSTERS.double(), rtol=0.02, atol=0)


def test_a_box_is_judged_by_anchors_of_other_images() -> None:
    """Each image has one shape of its own: fitted to themselves they are covered well, held out they are not."""
    rng = np.random.default_rng(0)
    sides = torch.from_numpy(rng.uniform(5, 200, (12, 2))).repeat_interleave(5, dim=0)
    images = np.repeat(np.arange(12) * 7, 5)  # any numbers may name the images
    held_out = held_out_best_ious(sides, images, 9)
    assert held_out.shape == (60,)
    assert best_ious(sides, fit_anchors(sides, 9)).mean() > held_out.mean() + 0.1
    for image in range(12):
        of_image = held_out[images == 7 * image]
        assert (of_image == of_image[0]).all()


def test_on_boxes_of_one_kind_the_held_out_figure_is_the_fits_own() -> None:
    sides, images = around_clusters(), np.arange(300)
    own = best_ious(sides, fit_anchors(sides, 3)).mean()
    torch.testing.assert_close(held_out_best_ious(sides, images, 3).mean(), own, rtol=0.01, atol=0)


def test_too_few_images_to_judge_on() -> None:
    with pytest.raises(UserError, match="4 images with boxes: at least 5"):
        held_out_best_ious(around_clusters(), np.arange(300) % 4, 3)


def test_the_interval_is_that_of_images_and_not_of_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    of_images = torch.randn(100, generator=generator, dtype=torch.float64)
    values, images = of_images.repeat_interleave(9), np.repeat(np.arange(100), 9)
    mean, low, high = mean_with_interval(values, images)
    assert mean == pytest.approx(of_images.mean().item())
    normal = 1.96 * of_images.std().item() / 10  # of 100 independent draws, not of 900
    assert mean - low == pytest.approx(normal, rel=0.15)
    assert high - mean == pytest.approx(normal, rel=0.15)
    same = mean_with_interval(torch.full((6,), 0.25), np.arange(6))
    assert same == pytest.approx((0.25, 0.25, 0.25))
