"""Features of boxes where the features are the pixels' coordinates, so that a box's feature is its centre."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_features import Averages, batches_of, ramp, small_head, target

from transfer.ops.boxes import decode_boxes, pairwise_iou
from transfer.ranking.box_features import SCALE, SHIFT, BoxFeatures, box_features, jittered
from transfer.ranking.forecast import forecast
from transfer.types import Batch, UserError

SIZE = (96, 128)
BOXES = [[20.0, 24.0, 60.0, 50.0], [70.0, 30.0, 100.0, 70.0], [33.0, 41.0, 52.0, 77.0]]


def some_batches(images: int = 6, size: int = 2) -> list[Batch]:
    """Each image has a box of class 0 and two of class 1, at places of its own."""
    targets = [
        target(index, SIZE, boxes=np.array(BOXES) + index * np.array([1, 2, 1, 2]), labels=[0, 1, 1])
        for index in range(images)
    ]
    return batches_of([ramp(SIZE, blue=index) for index in range(images)], targets, size)


class OwnPooling(Averages):
    """Does something of its own behind the last map."""

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        return self(images)[-1].amax(dim=(2, 3))


def centers(boxes: np.ndarray) -> np.ndarray:
    """What `ramp` makes of boxes: red and green."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5


@pytest.mark.parametrize("max_stride", [4, 7, 8, 16, None])
def test_the_feature_of_a_box_is_the_mean_over_it(max_stride: int | None) -> None:
    found = box_features(Averages(), some_batches(1), max_stride=max_stride)
    assert found.labels.tolist() == [0, 1, 1]
    expected = centers(np.array(BOXES))
    by_x = np.argsort(found.features[:, 0])  # those of a class come in random order
    assert found.features[by_x][:, :2] == pytest.approx(expected[np.argsort(expected[:, 0])], abs=1e-3)
    assert found.groups.tolist() == [0, 0, 0]
    assert found.source_probabilities is None


def test_the_map_that_is_read() -> None:
    # A checkerboard of 4 px cells: the finer map sees it, in the coarser one it is grey.
    y, x = np.mgrid[:64, :64]
    image = torch.from_numpy(np.broadcast_to((x // 4 + y // 4) % 2 * 200, (3, 64, 64)).astype(np.uint8).copy())
    # Eight sample points along 8 px, of which those in the middle of white cells count most.
    boxes = [[17.0, 17.0, 19.0, 19.0], [21.0, 17.0, 23.0, 19.0]]
    batches = batches_of([image], [target(0, (64, 64), boxes=boxes, labels=[0, 1])], 1)
    finer = box_features(Averages(), batches, max_stride=4)
    coarser = box_features(Averages(), batches, max_stride=8)
    assert coarser.features == pytest.approx(np.full((2, 3), 100.0))
    assert finer.features[1].mean() > finer.features[0].mean() + 100


def test_the_deltas_lead_from_the_box_looked_at_to_the_truth() -> None:
    found = box_features(Averages(), some_batches(), cells=2)
    assert found.near.shape == (18, 12)
    quadrants = found.near.reshape(18, 3, 2, 2)  # colour, top or bottom, left or right
    left, right = (quadrants[:, 0, :, side].mean(axis=1) + 0.5 for side in (0, 1))
    top, bottom = (quadrants[:, 1, side].mean(axis=1) + 0.5 for side in (0, 1))
    width, height = 2 * (right - left), 2 * (bottom - top)  # the quadrants' centres are half a side apart
    x, y = (left + right) / 2, (top + bottom) / 2
    near = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    truth = decode_boxes(torch.from_numpy(found.deltas), torch.from_numpy(near).float(), (1.0,) * 4).numpy()
    assert centers(truth) == pytest.approx(found.features[:, :2], abs=0.02)
    sides = truth[:, 2:] - truth[:, :2]
    assert sorted(map(tuple, sides.round().tolist())) == sorted([(40.0, 26.0), (30.0, 40.0), (19.0, 36.0)] * 6)
    assert np.ptp(found.deltas, axis=0).min() > 0.1  # each is another jitter
    assert abs(found.deltas[:, 2:]).max() <= np.log(SCALE) + 1e-5


def test_jittered_boxes_still_overlap() -> None:
    boxes = torch.tensor([[10.0, 20.0, 50.0, 30.0]]).expand(16, 4)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    moved = jittered(boxes, corners)
    assert (pairwise_iou(boxes[:1], moved) > 0.53).all()
    assert jittered(boxes, torch.zeros(16, 4)).tolist() == boxes.tolist()
    last = moved[-1]  # right and down by SHIFT, larger by SCALE
    assert last.tolist() == pytest.approx(
        [middle + side * (SHIFT + half) for half in (-SCALE / 2, SCALE / 2) for middle, side in ((30, 40), (25, 10))]
    )


def test_boxes_that_do_not_count() -> None:
    boxes = [BOXES[0], BOXES[1], [5.0, 5.0, 5.5, 40.0], [150.0, 10.0, 180.0, 30.0]]  # too narrow; outside
    batches = batches_of(
        [ramp(SIZE), ramp(SIZE)],
        [
            target(0, SIZE, boxes=boxes, labels=[0, 1, 2, 3], difficult=[False, True, False, False]),
            target(1, SIZE),
        ],
        1,
    )
    backbone = Averages()
    assert box_features(backbone, batches).labels.tolist() == [0]
    assert backbone.runs == 1  # an image without boxes is not looked at
    with pytest.raises(UserError, match="averages: there are no boxes"):
        box_features(backbone, batches[1:])


def test_boxes_of_padded_images_end_with_the_image() -> None:
    small = target(0, (40, 60), boxes=[[40.0, 20.0, 70.0, 36.0]], labels=[0])
    big = target(1, SIZE, boxes=[BOXES[0]], labels=[1])
    found = box_features(Averages(), batches_of([ramp((40, 60)), ramp(SIZE)], [small, big], 2), max_stride=4)
    # The last half cell mixes with the black padding; of the whole box, a third would be black.
    assert found.features[0, :2] == pytest.approx([49.5, 27.5], abs=2)


def test_the_draw_is_the_same_in_any_batches() -> None:
    batches = some_batches(8)
    one = box_features(Averages(), batches, per_class=4, total=7, seed=3)
    assert one.labels.tolist() == [0, 0, 0, 1, 1, 1, 1] or one.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    for other in (
        box_features(Averages(), batches[::-1], per_class=4, total=7, seed=3),
        box_features(Averages(), some_batches(8, 5), per_class=4, total=7, seed=3),
    ):
        assert other.labels.tolist() == one.labels.tolist()
        assert other.groups.tolist() == one.groups.tolist()
        for name in ("features", "near", "deltas"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-4)
    again = box_features(Averages(), batches, per_class=4, total=7, seed=4)
    assert again.groups.tolist() != one.groups.tolist()


def test_mode_and_gradients_are_left_as_they_were() -> None:
    backbone = Averages().train()
    box_features(backbone, some_batches(1))
    assert backbone.training
    assert backbone.dropout.training
    backbone.eval()
    box_features(backbone, some_batches(1))
    assert not backbone.training


def test_source_probabilities_are_those_of_the_box() -> None:
    backbone = Averages()
    backbone.source_head = small_head(4)
    batches = some_batches(2)
    batches[0].images = torch.randint(
        0, 256, batches[0].images.shape, generator=torch.Generator().manual_seed(0)
    ).byte()
    last = box_features(backbone, batches, max_stride=8)
    with torch.no_grad():
        expected = backbone.source_head(torch.from_numpy(last.features)).softmax(dim=1).numpy()
    assert last.source_probabilities == pytest.approx(expected, abs=1e-5)
    finer = box_features(backbone, batches, max_stride=4)
    assert abs(finer.features - last.features).max() > 1
    assert finer.source_probabilities == pytest.approx(expected, abs=1e-5)  # the head reads the last map all the same
    own = OwnPooling()
    own.source_head = small_head(4)  # it does not read the mean of the last map
    assert box_features(own, batches).source_probabilities is None


def test_maps_that_are_not_there() -> None:
    with pytest.raises(UserError, match=r"max_stride=2: the maps of averages have strides 4, 8: give 4 or more"):
        box_features(Averages(), some_batches(1), max_stride=2)
    with pytest.raises(UserError, match=r"cells=0"):
        box_features(Averages(), some_batches(1), cells=0)
    tokens = Averages()
    tokens.has_map = False
    with pytest.raises(UserError, match="averages gives tokens"):
        box_features(tokens, some_batches(1))


def test_where_a_box_is_can_be_told_from_coordinates() -> None:
    """The quadrants' coordinates give the box looked at, but only the truth's size is missing: on equal sizes, all."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(10, 50, (40, 2))
    targets = [
        target(index, SIZE, boxes=[[*corner, *(corner + 24)]], labels=[index % 2])
        for index, corner in enumerate(corners)
    ]
    found = box_features(Averages(), batches_of([ramp(SIZE)] * 40, targets, 8))
    scores = forecast(found)
    assert list(scores) == ["LogME", "H-score", "k-NN", "linear probe", "LogME, boxes", "linear probe, boxes"]
    blind = BoxFeatures(found.features, found.labels, found.groups, None, found.near[::-1].copy(), found.deltas)
    assert scores["linear probe, boxes"] > 0.4 > forecast(blind)["linear probe, boxes"]  # the width: two of four deltas
    assert scores["LogME, boxes"] > forecast(blind)["LogME, boxes"]
