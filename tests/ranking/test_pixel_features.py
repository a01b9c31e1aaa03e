"""Features of pixels where the features are the pixels' coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from known_features import Averages, batches_of, ramp, small_head, target

from transfer.ranking.pixel_features import pixel_features, shares
from transfer.types import IGNORED_PIXEL, Batch, UserError

SIZE = (64, 96)


def places_as_classes(size: tuple[int, int], axis: int, border: int) -> np.ndarray:
    """A mask whose class is the pixel's row or column, ignored near the border, where features are not linear."""
    mask = np.indices(size)[axis].astype(np.uint8)
    mask[:, :border] = mask[:, -border:] = mask[:border] = mask[-border:] = IGNORED_PIXEL
    return mask


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("original", "border"), [(SIZE, 8), ((128, 192), 16), ((16, 24), 2)])
def test_the_feature_of_a_pixel_is_read_at_its_centre(original: tuple[int, int], border: int, axis: int) -> None:
    """Also where the mask is of the original size, larger or smaller than the image."""
    mask = places_as_classes(original, axis, border)
    found = pixel_features(Averages(), batches_of([ramp(SIZE)], [target(0, SIZE, mask=mask)], 1), per_image=60)
    ratio = SIZE[axis] / original[axis]
    assert len(found.labels) > 30
    assert found.features[:, 1 - axis] == pytest.approx((found.labels + 0.5) * ratio - 0.5, abs=1e-3)
    assert found.labels.max() < original[axis] - border  # none is ignored


def test_it_is_what_upsampling_the_map_gives() -> None:
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8)) for size in (SIZE, (40, 56))]
    masks = [rng.integers(0, 3, size, dtype=np.uint8) for size in (SIZE, (40, 56))]
    targets = [target(index, masks[index].shape, mask=masks[index]) for index in range(2)]
    (batch,) = batches_of(images, targets, 2)
    backbone = Averages().eval()
    found = pixel_features(backbone, [batch], all_maps=True, per_image=50)
    with torch.no_grad():
        maps = [F.interpolate(x, size=SIZE, mode="bilinear", align_corners=False) for x in backbone(batch.images)]
    everywhere = torch.cat(maps, dim=1).numpy()  # [2, 6, H, W]
    assert found.features.shape == (100, 6)
    for feature, label, image in zip(found.features, found.labels, found.groups):
        height, width = masks[image].shape
        distances = abs(everywhere[image, :, :height, :width] - feature[:, None, None]).max(axis=0)
        assert label in masks[image][distances < 1e-2]  # one pixel; in the corners several are equal
    last = pixel_features(backbone, [batch], per_image=50)
    assert last.features == pytest.approx(found.features[:, 3:])


def test_shares_by_hand() -> None:
    assert shares(np.array([1000, 0, 1000]), 10) == {0: 5, 2: 5}
    assert shares(np.array([1000, 2, 1000]), 10) == {0: 4, 1: 2, 2: 4}
    assert shares(np.array([900, 2, 1000]), 11) == {0: 5, 1: 2, 2: 4}
    assert shares(np.array([1, 2]), 10) == {0: 1, 1: 2}
    assert shares(np.array([9, 5, 7]), 2) == {1: 1, 2: 1}  # the rarer ones
    assert shares(np.array([0, 0]), 5) == {}


def some_batches(size: int = 2) -> list[Batch]:
    rng = np.random.default_rng(1)
    masks = [(rng.random(SIZE) < 0.02).astype(np.uint8) for _ in range(6)]
    targets = [target(index, SIZE, mask=mask) for index, mask in enumerate(masks)]
    return batches_of([ramp(SIZE, blue=index) for index in range(6)], targets, size)


def test_the_draw_is_balanced_and_the_same_in_any_batches() -> None:
    one = pixel_features(Averages(), some_batches(), per_image=8, seed=3)
    assert np.bincount(one.labels).tolist() == [24, 24]
    assert np.bincount(one.groups).tolist() == [8] * 6
    for other in (
        pixel_features(Averages(), some_batches()[::-1], per_image=8, seed=3),
        pixel_features(Averages(), some_batches(5), per_image=8, seed=3),
    ):
        assert other.groups.tolist() == one.groups.tolist()
        assert other.features == pytest.approx(one.features, abs=1e-4)
    assert pixel_features(Averages(), some_batches(), per_image=8, seed=4).features != pytest.approx(one.features)
    few = pixel_features(Averages(), some_batches(), per_image=8, per_class=10, total=16, seed=3)
    assert np.bincount(few.labels).tolist() == [8, 8]


def test_source_probabilities_are_those_of_the_last_map() -> None:
    backbone = Averages()
    backbone.source_head = small_head(4)
    found = pixel_features(backbone, some_batches())
    with torch.no_grad():
        expected = backbone.source_head(torch.from_numpy(found.features)).softmax(dim=1).numpy()
    assert found.source_probabilities == pytest.approx(expected, abs=1e-5)


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_0.jpg: has no mask"):
        pixel_features(Averages(), batches_of([ramp(SIZE)], [target(0, SIZE)], 1))
    nothing = target(0, SIZE, mask=np.full(SIZE, IGNORED_PIXEL, np.uint8))
    with pytest.raises(UserError, match=r"no pixels to compute features of"):
        pixel_features(Averages(), batches_of([ramp(SIZE)], [nothing], 1))
    with pytest.raises(UserError, match=r"per_image=0"):
        pixel_features(Averages(), some_batches(), per_image=0)
