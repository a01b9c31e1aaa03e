"""Mosaic: tiles and boxes worked out by hand, what is dropped, who is drawn, and when a run stops joining images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.assemble import build_data
from transfer.augment.box_mixup import BoxMixup
from transfer.augment.mosaic import Mosaic
from transfer.augment.presets import square_train
from transfer.batch.collate import Collate, make_loader
from transfer.batch.mixing import mixed_iterations
from transfer.batch.requests import RequestBatches
from transfer.batch.view import TrainingView
from transfer.engine.distributed import World
from transfer.loading import loader_settings, training_batches
from transfer.types import Batch, Request, Sample, Size, UserError

ALONE = World(0, 1, torch.device("cpu"))
MOSAIC = "transfer.augment.mosaic.Mosaic"
BOX_MIXUP = "transfer.augment.box_mixup.BoxMixup"
GREY = (50, 100, 150, 200)
"""Of the four images of `plain_images`: tells which pixel came from which."""


def make_sample(image: np.ndarray, boxes: Sequence[Sequence[float]], index: int) -> Sample:
    count = len(boxes)
    return Sample(
        image=image,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.arange(count, dtype=np.int64) + 10 * index,
        difficult=np.arange(count) % 2 == 1,
        weights=np.full(count, 1 - index / 8, dtype=np.float32),
        index=index,
        image_id=f"image {index}",
        path=f"{index}.jpg",
        original_size=image.shape[:2],
    )


def plain_images(size: Size, boxes: Sequence[Sequence[float]]) -> list[Sample]:
    return [make_sample(np.full((*size, 3), grey, np.uint8), boxes, index) for index, grey in enumerate(GREY)]


def joined(mosaic: Mosaic, samples: Sequence[Sample], *, seed: int = 0, size: Size | None = None) -> Sample:
    before = copy.deepcopy(list(samples))
    result = mosaic.join(samples, Request(samples[0].index, 0, size), np.random.default_rng(seed))
    for sample, was in zip(samples, before, strict=True):  # a data set may keep its samples
        assert all(np.array_equal(getattr(sample, name), getattr(was, name)) for name in ("image", "boxes", "weights"))
    return result


def order_of(image: np.ndarray) -> list[int]:
    """Which image is in each corner: top left, top right, bottom left, bottom right."""
    return [GREY.index(int(image[row, column, 0])) for row in (0, -1) for column in (0, -1)]


# ---- pixels and boxes ----


def test_a_case_worked_out_by_hand() -> None:
    # margin 0.5 puts the centre into the middle of 40x80, zoom 0.5 shows each 40x80 image whole in its 20x40 tile: each
    # box is halved and moved to its tile. The second box, 6x3, is 3x1.5 there: below 2 px, dropped.
    boxes = [[8, 4, 40, 20], [0, 0, 6, 3], [40, 0, 80, 40]]
    samples = plain_images((40, 80), boxes)
    samples[2].dropped["crop"] = 5
    result = joined(Mosaic(margin=0.5, zoom=(0.5, 0.5)), samples)
    order = order_of(result.image)
    assert sorted(order) == [0, 1, 2, 3]
    corners = [(0, 0), (40, 0), (0, 20), (40, 20)]
    for index, (left, top) in zip(order, corners, strict=True):
        assert (result.image[top : top + 20, left : left + 40] == GREY[index]).all()
    expected = [[left + x, top + y, left + x + w, top + y + h] for left, top in corners for x, y, w, h in
                ((4, 2, 16, 8), (20, 0, 20, 20))]  # fmt: skip
    assert result.boxes.tolist() == expected
    assert result.labels.tolist() == [10 * index + k for index in order for k in (0, 2)]
    assert result.weights.tolist() == [1 - index / 8 for index in order for _ in range(2)]
    assert result.difficult.tolist() == [False] * 8
    assert result.dropped == {"Mosaic": 4, "crop": 5}
    assert (result.index, result.image_id, result.original_size, result.scale) == (0, "image 0", (40, 80), (1.0, 1.0))
    assert result.path == "0.jpg in a mosaic with 1.jpg, 2.jpg, 3.jpg"
    assert [x.dtype for x in (result.boxes, result.labels, result.difficult, result.weights)] == [
        np.float32,
        np.int64,
        np.bool_,
        np.float32,
    ]


def test_a_box_is_cut_to_its_tile_and_goes_where_too_little_is_left() -> None:
    # zoom 1: a tile shows a 20x20 window of the 40x40 image at its own size; the window's place is drawn.
    mosaic = Mosaic(margin=0.5, zoom=(1.0, 1.0), min_share=0.25, min_side=2)
    kept, dropped = 0, 0
    for seed in range(40):
        samples = plain_images((40, 40), [])
        rows, columns = np.mgrid[:40, :40]
        for sample in samples:  # a pixel tells where it was
            sample.image = np.stack([rows, columns, sample.image[..., 2]], axis=2).astype(np.uint8)
            sample.boxes = np.array([[1, 4, 21, 20]], np.float32)
            for name, dtype in (("labels", np.int64), ("difficult", np.bool_)):
                setattr(sample, name, np.zeros(1, dtype))
            sample.weights = np.ones(1, np.float32)
        result = joined(mosaic, samples, seed=seed)
        found = []
        for left, top in ((0, 0), (20, 0), (0, 20), (20, 20)):
            first_row, first_column = (int(value) for value in result.image[top, left, :2])
            cut = np.clip(np.array([1, 4, 21, 20]) - [first_column, first_row] * 2, 0, 20)
            width, height = cut[2] - cut[0], cut[3] - cut[1]
            if width * height >= 0.25 * 20 * 16 and min(width, height) >= 2:
                found.append((cut + [left, top] * 2).tolist())
        assert result.boxes.tolist() == found
        assert result.dropped.get("Mosaic", 0) == 4 - len(found)
        kept, dropped = kept + len(found), dropped + 4 - len(found)
    assert kept > 20
    assert dropped > 20


def test_boxes_follow_their_pixels() -> None:
    """White rectangles on black, at any scale and place: each box is where its tile's white is."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        samples = []
        for index in range(4):
            height, width = (int(side) for side in rng.integers(120, 240, 2))
            image = np.zeros((height, width, 3), np.uint8)
            left, top = int(rng.integers(width // 2)), int(rng.integers(height // 2))
            box = [left, top, left + int(rng.integers(30, width // 2)), top + int(rng.integers(30, height // 2))]
            image[box[1] : box[3], box[0] : box[2]] = 255
            samples.append(make_sample(image, [box], index))
        result = joined(Mosaic(zoom=(0.6, 1.0), min_share=0, min_side=0), samples, seed=seed, size=(200, 300))
        assert result.image.shape == (200, 300, 3)
        white = result.image[..., 0] > 127
        inside = np.zeros_like(white)
        for left, top, right, bottom in np.rint(result.boxes).astype(int):
            inside[top:bottom, left:right] = True
        assert (white != inside).mean() < 0.02  # rounding moves edges by a pixel at the most
        assert len(result.boxes) + result.dropped.get("Mosaic", 0) == 4


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    canvas=st.tuples(st.integers(2, 90), st.integers(2, 90)),
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=4, max_size=4),
    margin=st.floats(0, 0.5),
    share=st.floats(0, 1),
)
def test_every_mosaic_is_whole(seed: int, canvas: Size, sizes: list[Size], margin: float, share: float) -> None:
    rng = np.random.default_rng(seed)
    samples = []
    for index, (height, width) in enumerate(sizes):
        corners = rng.uniform(-5, 95, (3, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        samples.append(make_sample(np.full((height, width, 3), GREY[index], np.uint8), boxes.tolist(), index))
    result = joined(Mosaic(margin=margin, min_share=share), samples, seed=seed, size=canvas)
    assert (result.image.shape, result.image.dtype) == ((*canvas, 3), np.uint8)
    assert set(np.unique(result.image)) <= set(GREY)  # no tile has padding
    assert sorted(order_of(result.image)) == [0, 1, 2, 3]
    assert (result.boxes >= 0).all()
    assert (result.boxes <= np.array([canvas[1], canvas[0]] * 2)).all()
    assert len(result.boxes) == len(result.labels) == len(result.difficult) == len(result.weights)
    assert len(result.boxes) + result.dropped.get("Mosaic", 0) == 12


def test_images_without_boxes() -> None:
    result = joined(Mosaic(), plain_images((30, 40), []))
    assert (result.boxes.shape, result.boxes.dtype) == ((0, 4), np.float32)
    assert (result.labels.dtype, result.difficult.dtype, result.weights.dtype) == (np.int64, np.bool_, np.float32)
    assert result.dropped == {}


def test_the_canvas_is_the_requests_or_the_given_or_the_first_images() -> None:
    samples = plain_images((30, 40), [])
    samples[1].image = np.zeros((90, 20, 3), np.uint8)
    assert joined(Mosaic(), samples).image.shape[:2] == (30, 40)
    assert joined(Mosaic(64), samples).image.shape[:2] == (64, 64)
    assert joined(Mosaic((64, 96)), samples, size=(32, 48)).image.shape[:2] == (32, 48)


def test_an_image_of_one_pixel_cannot_be_divided() -> None:
    samples = [make_sample(np.zeros((1, 9, 3), np.uint8), [], index) for index in range(4)]
    assert joined(Mosaic(), samples) is samples[0]


def test_the_centre_keeps_its_margin_and_reaches_it() -> None:
    # The divide between the tiles, over many draws; of 100 px and a margin of 0.2, from 20 to 80.
    rows, columns = [], []
    for seed in range(400):
        image = joined(Mosaic(margin=0.2), plain_images((100, 100), []), seed=seed).image[..., 0]
        rows.append(int(np.flatnonzero(np.diff(image[:, 0].astype(int)))[0]) + 1)
        columns.append(int(np.flatnonzero(np.diff(image[0].astype(int)))[0]) + 1)
    for cuts in (rows, columns):
        assert 20 <= min(cuts) < 23
        assert 77 < max(cuts) <= 80
        assert np.mean(cuts) == pytest.approx(50, abs=5 * 60 / 12**0.5 / 20)  # evenly drawn: sd 60 / sqrt(12)


# ---- who is drawn ----


@pytest.mark.parametrize("index", [0, 2, 5])
def test_partners_are_any_three_others(index: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [Mosaic().gather(rng, index, 6) for _ in range(2000)]
    assert all(len(set(partners)) == 3 and index not in partners for partners in drawn)
    counts = np.delete(np.bincount(np.ravel(drawn), minlength=6), index)
    assert len(counts) == 5
    assert counts.min() > 1090  # 1200 expected each, sd 22
    assert counts.max() < 1310


def test_small_data_sets_repeat_partners_and_a_single_image_has_none() -> None:
    rng = np.random.default_rng(0)
    assert Mosaic().gather(rng, 0, 2) == (1, 1, 1)
    assert Mosaic().gather(rng, 0, 1) == ()
    assert {len(Mosaic().gather(rng, 1, 3)) for _ in range(20)} == {3}


def test_a_share_of_the_images_becomes_a_mosaic() -> None:
    rng = np.random.default_rng(0)
    counts = [bool(Mosaic(p=0.3).gather(rng, 0, 9)) for _ in range(4000)]
    assert np.mean(counts) == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Mosaic(1), ["size=1", "at least 2 pixels"]),
        (lambda: Mosaic(p=0, margin=0.6), ["p=0 must be above 0", "margin=0.6 must be in [0, 0.5]"]),
        (lambda: Mosaic(zoom=(1.0, 0.5), min_share=1.5), ["zoom=(1.0, 0.5)", "min_share=1.5 must be in [0, 1]"]),
        (lambda: Mosaic(min_side=-1, last_epochs_without="2"), ["min_side=-1", "last_epochs_without='2'"]),
        (lambda: Mosaic(interpolation="linear"), ["interpolation='linear'", "'bilinear'"]),
    ],
)
def test_arguments_are_checked(make: Callable[[], Mosaic], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert all(part in str(error.value) for part in ["Mosaic", *parts])


# ---- in a view ----


class Images:
    """As much of a data set as a view needs: noise, so that no two images are alike."""

    class_names = ("a", "b")
    sizes = ((60, 80), (90, 100), (70, 50), (60, 90), (80, 80))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        height, width = self.sizes[index]
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return make_sample(image, [[2, 3, 30, 40], [10, 10, width - 5, height - 5]][: index % 3], index)


def view(**options: Any) -> TrainingView:
    return TrainingView(Images(), square_train(64), **options)  # type: ignore[arg-type]


def loaded(workers: int, *, start: int = 0, **options: Any) -> list[Batch]:
    requests = RequestBatches(
        5, batch_size=4, seed=5, start=start, iterations=6, gatherer=Mosaic().gather, gather_until=4, **options
    )
    made = view(join=Mosaic().join, combine=BoxMixup().combine)
    return list(make_loader(made, requests, Collate((1, 2, 3)), workers=workers))


def assert_equal_batches(ours: list[Batch], theirs: list[Batch]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.images, b.images)
        assert a.dropped == b.dropped
        for p, q in zip(a.targets, b.targets, strict=True):
            assert p.path == q.path
            assert torch.equal(p.boxes, q.boxes)
            assert torch.equal(p.weights, q.weights)


def test_batches_are_the_same_for_any_number_of_workers_and_start() -> None:
    alone = loaded(0)
    assert_equal_batches(loaded(2), alone)
    assert_equal_batches(loaded(0, start=3), alone[3:])
    in_mosaics = [["in a mosaic with" in target.path for target in batch.targets] for batch in alone]
    assert in_mosaics == [[True] * 4] * 4 + [[False] * 4] * 2


def test_mosaics_come_before_mixup_and_neither_moves_the_others_draws() -> None:
    both = loaded(0, mixer=BoxMixup().draw, mix_until=5)
    assert "in a mosaic with" in both[0].targets[0].path.split(" mixed with ")[0]
    with_mosaics = list(RequestBatches(5, batch_size=4, seed=5, iterations=6, gatherer=Mosaic().gather))
    with_both = RequestBatches(5, batch_size=4, seed=5, iterations=6, gatherer=Mosaic().gather, mixer=BoxMixup().draw)
    with_mixup = list(RequestBatches(5, batch_size=4, seed=5, iterations=6, mixer=BoxMixup().draw))
    plain = list(RequestBatches(5, batch_size=4, seed=5, iterations=6))
    assert [[r._replace(mix=None) for r in batch] for batch in with_both] == with_mosaics
    assert [[r._replace(partners=()) for r in batch] for batch in with_both] == with_mixup
    assert [[r._replace(partners=()) for r in batch] for batch in with_mosaics] == plain


def test_every_image_draws_its_partners_from_a_stream_of_its_own() -> None:
    """What the mixer and the gatherer of each image draw first is never the same number."""
    first: dict[str, list[int]] = {"mixer": [], "gatherer": []}

    def note(which: str, rng: np.random.Generator) -> Any:
        first[which].append(int(rng.integers(2**62)))
        return None if which == "mixer" else ()

    list(
        RequestBatches(
            50,
            batch_size=8,
            seed=5,
            iterations=12,
            mixer=lambda rng, index, length: note("mixer", rng),
            gatherer=lambda rng, index, length: note("gatherer", rng),
        )
    )
    assert len(first["mixer"]) == len(first["gatherer"]) == 96
    assert len({*first["mixer"], *first["gatherer"]}) == 192


def test_a_request_without_partners_is_made_as_ever() -> None:
    request = Request(2, 77)
    plain, ours = view()[request].sample, view(join=Mosaic().join)[request].sample
    assert np.array_equal(plain.image, ours.image)
    assert np.array_equal(plain.boxes, ours.boxes)


def test_a_mosaic_does_not_move_the_augmentations_draws() -> None:
    def mark(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        sample.weights = rng.random(3)
        return sample

    marked = TrainingView(Images(), mark, join=Mosaic().join)  # type: ignore[arg-type]
    requests = Request(1, 5), Request(1, 5, partners=(2, 3, 4))
    assert np.array_equal(*(marked[request].sample.weights for request in requests))


def test_a_view_that_cannot_join_says_so() -> None:
    with pytest.raises(UserError, match=r"0\.jpg: the batches draw mosaics, but TrainingView has join=None"):
        view()[Request(0, 1, partners=(1, 2, 3))]


def test_a_partner_that_cannot_be_read_stops_or_is_replaced_by_name() -> None:
    class Broken(Images):
        def record(self, index: int) -> Any:
            return type("Record", (), {"path": f"{index}.jpg"})()

        def __getitem__(self, index: int) -> Sample:
            if index == 3:
                raise UserError("truncated JPEG")
            return super().__getitem__(index)

    request = Request(0, 1, partners=(1, 3, 4))
    with pytest.raises(UserError, match=r"^3\.jpg: truncated JPEG$"):
        TrainingView(Broken(), square_train(64), join=Mosaic().join)[request]  # type: ignore[arg-type]
    skipping = TrainingView(Broken(), square_train(64), join=Mosaic().join, on_broken="skip")  # type: ignore[arg-type]
    assert skipping[request].skipped == ("3.jpg",)


# ---- from a config ----


class EightImages:
    """Requests are looked at, images are not."""

    def __len__(self) -> int:
        return 8


def sampler_of(config: dict[str, Any], iteration: int = 0) -> list[list[Request]]:
    batches_from, _ = training_batches(config, EightImages(), (0, 0, 0), ALONE)  # type: ignore[arg-type]
    return list(batches_from(iteration).batch_sampler)  # type: ignore[attr-defined]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_config_ends_mosaics_and_mixup_each_at_its_iteration(tiny_config: dict[str, Any], accumulate: int) -> None:
    # 8 images, 2 an optimizer step: 4 steps an epoch, 12 in all.
    tiny_config["loader"]["mosaic"] = {"type": MOSAIC, "last_epochs_without": 2}
    tiny_config["loader"]["mixup"] = {"type": BOX_MIXUP, "last_epochs_without": 1}
    tiny_config["training"].update(epochs=3, accumulate=accumulate)
    batches = sampler_of(tiny_config)
    assert len(batches) == 12 * accumulate
    for number, batch in enumerate(batches):
        assert [bool(request.partners) for request in batch] == [number < 4 * accumulate] * len(batch)
        assert [request.mix is not None for request in batch] == [number < 8 * accumulate] * len(batch)
    assert sampler_of(tiny_config, 5) == batches[5 * accumulate :]


def test_off_is_the_default(tiny_config: dict[str, Any]) -> None:
    assert loader_settings(tiny_config).mosaic is None
    assert all(request.partners == () for batch in sampler_of(tiny_config) for request in batch)


def test_a_configs_batches_carry_the_boxes_of_four_images(tiny_config: dict[str, Any]) -> None:
    tiny_config["loader"]["mosaic"] = {"type": MOSAIC, "min_share": 0.0, "min_side": 0.0}
    data = build_data(tiny_config).train
    loader = training_batches(tiny_config, data, (0, 0, 0), ALONE)[0](0)
    for requests, batch in zip(loader.batch_sampler, loader, strict=True):  # type: ignore[attr-defined]
        truth = sum(len(data.record(index).boxes) for r in requests for index in (r.index, *r.partners))
        assert sum(len(target.boxes) for target in batch.targets) + sum(batch.dropped.values()) == truth
        assert all((target.weights == 1).all() for target in batch.targets)


@pytest.mark.parametrize(("last", "epochs"), [(20, 20), (20, 12), (0.5, 0.25)])
def test_a_run_that_would_never_join_is_refused(last: float, epochs: float) -> None:
    with pytest.raises(UserError) as error:
        mixed_iterations(
            Mosaic(last_epochs_without=last), total=round(epochs * 8), per_epoch=8, images=9, setting="loader.mosaic"
        )
    for part in (
        f"loader.mosaic.last_epochs_without={last:g}",
        f"{epochs:g} epochs",
        "never join",
        "loader.mosaic=None",
    ):
        assert part in str(error.value)


def test_what_does_the_other_thing_is_refused() -> None:
    counts = {"total": 8, "per_epoch": 4, "images": 9}
    with pytest.raises(UserError, match=r"loader\.mosaic=<.*BoxMixup.* cannot join images: .*dict\(type=Mosaic\)"):
        mixed_iterations(BoxMixup(), **counts, setting="loader.mosaic")
    with pytest.raises(UserError, match=r"loader\.mixup=<.*Mosaic.* cannot mix images: .*type=BoxMixup"):
        mixed_iterations(Mosaic(), **counts)
    with pytest.raises(UserError, match=r"loader\.mosaic joins several images, but data\.train has 1"):
        mixed_iterations(Mosaic(), total=8, per_epoch=4, images=1, setting="loader.mosaic")
    assert mixed_iterations(Mosaic(last_epochs_without=1), **counts, setting="loader.mosaic") == 4
