"""The view: the request's seed is the only source of randomness; broken files stop or are replaced, by name."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from transfer.batch.collate import Collate, make_loader
from transfer.batch.requests import RequestBatches, evaluation_batches
from transfer.batch.shapes import RandomShapes
from transfer.batch.view import TrainingView
from transfer.types import Batch, Mix, Request, Sample, UserError


def noisy_resize(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
    """Draws a flip and noise, and resizes where the request has a size."""
    image = sample.image[:, ::-1] if rng.random() < 0.5 else sample.image
    image = image ^ rng.integers(0, 256, image.shape, dtype=np.uint8)
    if request.size is not None:
        image = cv2.resize(image, request.size[::-1])
    return replace(sample, image=image)


def identity(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
    return sample


def fail_on_two(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
    if sample.index == 2:
        raise KeyError("corner")
    return sample


def refuse_all(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
    raise UserError("no size: give one")


def batches_of(loader: torch.utils.data.DataLoader) -> list[Batch]:
    try:
        return list(loader)
    finally:
        # Only for speed: after an error the garbage collector would take five seconds to end the workers.
        if loader.num_workers and loader._iterator is not None:
            loader._iterator._shutdown_workers()


def assert_equal_batches(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.images.equal(b.images)
        assert (a.dropped, a.skipped) == (b.dropped, b.skipped)
        for p, q in zip(a.targets, b.targets, strict=True):
            for name in ("boxes", "labels", "difficult", "weights"):
                assert getattr(p, name).equal(getattr(q, name))
            for name in ("size", "index", "image_id", "path", "original_size", "scale", "seed"):
                assert getattr(p, name) == getattr(q, name)


def test_batches_are_bit_equal_for_any_number_of_workers_start_and_global_seed(memory_dataset) -> None:
    view = TrainingView(memory_dataset(13, broken=frozenset({4})), noisy_resize, on_broken="skip")

    def loaded(workers: int, start: int = 0) -> list[Batch]:
        shapes = RandomShapes(32, 96, every=2)
        requests = RequestBatches(13, batch_size=4, seed=5, shapes=shapes, start=start, iterations=7)
        return batches_of(make_loader(view, requests, Collate((1, 2, 3)), workers=workers))

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    alone = loaded(0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert_equal_batches(loaded(2), alone)
    assert_equal_batches(loaded(1, start=4), alone[4:])
    assert any(batch.skipped == ["folder/image_004.jpg"] for batch in alone)
    assert len({tuple(batch.images.shape) for batch in alone}) > 1


def test_nothing_global_is_drawn_from(memory_dataset) -> None:
    view = TrainingView(memory_dataset(8), noisy_resize)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    requests = RequestBatches(8, batch_size=4, seed=5, shapes=RandomShapes(32, 96), iterations=2)
    batches_of(make_loader(view, requests, Collate((0, 0, 0))))
    assert torch.get_rng_state().equal(before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_the_seed_decides_and_the_data_set_is_left_alone(memory_dataset) -> None:
    dataset = memory_dataset(8)
    view = TrainingView(dataset, noisy_resize)
    first, again, other = (view[Request(3, seed)].sample.image for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert view[Request(3, 1)].request == Request(3, 1)
    assert len(view) == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_stops_by_name_and_without_traceback(memory_dataset, workers: int) -> None:
    view = TrainingView(memory_dataset(8, broken=frozenset({6})), identity)
    loader = make_loader(view, evaluation_batches(8, 4), Collate((0, 0, 0)), workers=workers)
    with pytest.raises(UserError) as error:
        batches_of(loader)
    assert str(error.value) == "folder/image_006.jpg: truncated JPEG"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_shows_the_file(memory_dataset, workers: int) -> None:
    loader = make_loader(
        TrainingView(memory_dataset(4), fail_on_two), evaluation_batches(4, 4), Collate((0, 0, 0)), workers=workers
    )
    with pytest.raises(RuntimeError, match=r"folder/image_002.jpg: KeyError: 'corner'.*index=2"):
        batches_of(loader)


def test_a_users_mistake_in_the_augmentation_shows_the_file(memory_dataset) -> None:
    with pytest.raises(UserError, match=r"^folder/image_003.jpg: no size: give one$"):
        TrainingView(memory_dataset(4), refuse_all)[Request(3, 0)]


def test_skipping_replaces_by_the_seed_and_counts_the_file(memory_dataset) -> None:
    broken = frozenset({0, 1, 2})
    view = TrainingView(memory_dataset(10, broken=broken), identity, on_broken="skip")
    made = [view[Request(0, seed)] for seed in range(40)]
    assert {viewed.sample.index for viewed in made} == set(range(3, 10))
    assert all(viewed.skipped[0] == "folder/image_000.jpg" for viewed in made)
    assert any(len(viewed.skipped) > 1 for viewed in made)
    for seed, viewed in enumerate(made):
        again = view[Request(0, seed)]
        assert (again.sample.index, again.skipped) == (viewed.sample.index, viewed.skipped)
    assert view[Request(5, 0)].skipped == ()
    batch = Collate((0, 0, 0))([view[Request(0, 1)], view[Request(5, 1)]])
    assert batch.skipped == list(made[1].skipped)


def test_a_replacement_does_not_move_the_augmentations_draws(memory_dataset) -> None:
    def draw(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        return replace(sample, weights=rng.random(1))

    broken = TrainingView(memory_dataset(9, broken=frozenset({0})), draw, on_broken="skip")
    sound = TrainingView(memory_dataset(9), draw)
    assert broken[Request(0, 11)].sample.weights == sound[Request(0, 11)].sample.weights


def test_a_data_set_of_broken_files_ends(memory_dataset) -> None:
    view = TrainingView(memory_dataset(3, broken=frozenset(range(3))), identity, on_broken="skip")
    with pytest.raises(UserError, match=r"11 images .*image_001.*image_00\d.jpg: truncated JPEG"):
        view[Request(1, 0)]
    with pytest.raises(UserError, match="on_broken='ignore'"):
        TrainingView(memory_dataset(3), identity, on_broken="ignore")  # type: ignore[arg-type]


def test_mixed_pairs_are_combined_before_the_augmentation(memory_dataset) -> None:
    def combine(first: Sample, second: Sample, request: Request, rng: np.random.Generator) -> Sample:
        assert request.mix is not None
        return replace(first, image_id=f"{first.index}+{second.index}*{request.mix.weight}")

    def mark(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        return replace(sample, path=f"augmented {sample.image_id}")

    request = Request(2, 0, None, Mix(5, 0.25))
    assert TrainingView(memory_dataset(8), mark, combine=combine)[request].sample.path == "augmented 2+5*0.25"
    with pytest.raises(UserError, match="combine=None"):
        TrainingView(memory_dataset(8), mark)[request]


def test_loader_arguments_are_checked(memory_dataset) -> None:
    view = TrainingView(memory_dataset(4), identity)
    with pytest.raises(UserError, match="workers=-1"):
        make_loader(view, evaluation_batches(4, 2), Collate((0, 0, 0)), workers=-1)
