"""Box-aware mixup: pixels and boxes worked out by hand, lambda's distribution, lambda 1 and 0 as no mixup at all."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from transfer.augment.box_mixup import BoxMixup
from transfer.augment.presets import square_train
from transfer.batch.collate import Collate
from transfer.batch.view import TrainingView
from transfer.heads.box_head import BoxCriterion
from transfer.heads.faster_rcnn import FasterRCNNCriterion
from transfer.heads.rpn import RPNCriterion
from transfer.types import Batch, Mix, Request, Sample, UserError


def make_sample(image: np.ndarray, boxes: list[list[float]], index: int, **changes: object) -> Sample:
    count = len(boxes)
    sample = Sample(
        image=image,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.arange(count, dtype=np.int64) % 3,
        difficult=np.arange(count) % 2 == 1,
        weights=np.ones(count, dtype=np.float32),
        index=index,
        image_id=f"image {index}",
        path=f"{index}.jpg",
        original_size=image.shape[:2],
    )
    for name, value in changes.items():
        setattr(sample, name, value)
    return sample


def noise_sample(index: int, height: int, width: int, boxes: list[list[float]]) -> Sample:
    return make_sample(np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8), boxes, index)


def mixed(first: Sample, second: Sample, weight: float) -> Sample:
    rng = np.random.default_rng(0)
    before = copy.deepcopy((first, second)), copy.deepcopy(rng.bit_generator.state)
    result = BoxMixup().combine(first, second, Request(first.index, 0, None, Mix(second.index, weight)), rng)
    for sample, was in zip((first, second), before[0], strict=True):
        assert_equal_samples(sample, was)  # a data set may keep its samples
    assert rng.bit_generator.state == before[1]
    return result


def assert_equal_samples(ours: Sample, theirs: Sample) -> None:
    for name in ("image", "boxes", "labels", "difficult", "weights"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.array_equal(a, b)
    for name in ("index", "image_id", "path", "original_size", "scale", "dropped"):
        assert getattr(ours, name) == getattr(theirs, name)


# ---- pixels and boxes ----


def test_a_case_worked_out_by_hand() -> None:
    # 2 rows of 3 pixels, and 4 rows of 2; lambda 0.25. Channels in turn: plain, rounded down, rounded up.
    first = np.broadcast_to(np.array([100, 101, 103], dtype=np.uint8), (2, 3, 3))
    second = np.broadcast_to(np.array([40, 40, 40], dtype=np.uint8), (4, 2, 3))
    result = mixed(
        make_sample(first, [[0, 0, 2, 2], [1, 0, 3, 1]], 4, labels=np.array([7, 2]), dropped={"crop": 2, "cut": 1}),
        make_sample(second, [[0, 1, 2, 4]], 9, labels=np.array([5]), dropped={"crop": 1}, difficult=np.array([True])),
        0.25,
    )
    both, only_first, only_second, neither = [55, 55, 56], [25, 25, 26], [30, 30, 30], [0, 0, 0]
    assert result.image.dtype == np.uint8
    assert result.image.tolist() == [
        [both, both, only_first],
        [both, both, only_first],
        [only_second, only_second, neither],
        [only_second, only_second, neither],
    ]
    assert result.boxes.tolist() == [[0, 0, 2, 2], [1, 0, 3, 1], [0, 1, 2, 4]]
    assert result.labels.tolist() == [7, 2, 5]
    assert result.difficult.tolist() == [False, True, True]
    assert result.weights.tolist() == [0.25, 0.25, 0.75]
    assert [result.boxes.dtype, result.labels.dtype, result.difficult.dtype, result.weights.dtype] == [
        np.float32,
        np.int64,
        np.bool_,
        np.float32,
    ]
    assert (result.index, result.image_id, result.path) == (4, "image 4", "4.jpg mixed with 9.jpg")
    assert (result.original_size, result.scale) == ((4, 3), (1.0, 1.0))
    assert result.dropped == {"crop": 3, "cut": 1}


def test_weights_multiply_those_a_sample_has() -> None:
    first, second = noise_sample(0, 8, 8, [[0, 0, 4, 4]]), noise_sample(1, 8, 8, [[1, 1, 5, 5]])
    first.weights[:] = 0.5
    assert mixed(first, second, 0.75).weights.tolist() == [0.375, 0.25]


@pytest.mark.parametrize("weight", [0.02, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [((20, 31), (20, 31)), ((20, 31), (35, 12)), ((35, 31), (20, 12))])
def test_pixels_are_those_of_pillow(weight: float, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    samples = [noise_sample(index, *size, []) for index, size in enumerate(sizes)]
    canvas = (max(size[1] for size in sizes), max(size[0] for size in sizes))
    # crop() beyond the image pads with zero at the right and bottom
    padded = [Image.fromarray(sample.image).crop((0, 0, *canvas)) for sample in samples]
    theirs = np.asarray(Image.blend(padded[1], padded[0], weight)).astype(int)
    ours = mixed(samples[0], samples[1], weight).image.astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1  # Pillow cuts the fraction off
    exact = weight * np.asarray(padded[0], dtype=np.float64) + (1 - weight) * np.asarray(padded[1], dtype=np.float64)
    assert np.abs(ours - exact).max() <= 0.5 + 1e-4


def test_exchanging_the_images_and_their_shares_gives_the_same_picture() -> None:
    a, b = noise_sample(0, 20, 30, [[1, 2, 9, 9]]), noise_sample(1, 31, 17, [[0, 0, 5, 8], [3, 3, 17, 30]])
    one, other = mixed(a, b, 0.25), mixed(b, a, 0.75)
    assert np.array_equal(one.image, other.image)
    assert one.boxes.tolist() == other.boxes[[2, 0, 1]].tolist()
    assert one.weights.tolist() == other.weights[[2, 0, 1]].tolist()


@pytest.mark.parametrize("boxes", [([], [[0, 0, 4, 4]]), ([[0, 0, 4, 4]], []), ([], [])])
def test_images_without_boxes(boxes: tuple[list[list[float]], list[list[float]]]) -> None:
    result = mixed(noise_sample(0, 8, 9, boxes[0]), noise_sample(1, 9, 8, boxes[1]), 0.25)
    count = len(boxes[0]) + len(boxes[1])
    assert (result.boxes.shape, result.boxes.dtype) == ((count, 4), np.float32)
    assert (result.labels.shape, result.labels.dtype) == ((count,), np.int64)
    assert (result.difficult.shape, result.difficult.dtype) == ((count,), np.bool_)
    assert result.weights.tolist() == [0.25] * len(boxes[0]) + [0.75] * len(boxes[1])


# ---- nothing to mix ----


@pytest.mark.parametrize("weight", [1.0, 0.0, 1 - 2.0**-200, 1e-60])
def test_no_share_is_no_mixing(weight: float) -> None:
    first, second = noise_sample(0, 20, 30, [[1, 2, 9, 9]]), noise_sample(1, 40, 17, [[0, 0, 5, 8]])
    assert mixed(first, second, weight) is (first if weight > 0.5 else second)


def test_an_image_mixed_with_itself_is_itself() -> None:
    sample = noise_sample(3, 20, 30, [[1, 2, 9, 9]])
    assert mixed(sample, copy.deepcopy(sample), 0.3) is sample


@pytest.fixture
def builders(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The helpers of the tests of the heads."""
    monkeypatch.syspath_prepend(str(repository / "tests" / "heads"))
    return importlib.import_module("detector_builders")


class FourImages:
    """As much of a data set as a view needs."""

    class_names = ("a", "b", "c")
    boxes = ([[5, 6, 40, 50]], [[10, 10, 60, 60], [30, 2, 90, 70]], [], [[0, 0, 30, 20], [40, 30, 80, 58]])
    sizes = ((60, 80), (90, 100), (70, 50), (60, 90))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        return noise_sample(index, *self.sizes[index], self.boxes[index])


def losses_and_gradients(builders: ModuleType, batch: Batch) -> tuple[dict[str, float], list[torch.Tensor]]:
    model = builders.tiny_detector()
    criterion = FasterRCNNCriterion(rpn=RPNCriterion(count=64), box=BoxCriterion())
    output = model(batch.images, [target.size for target in batch.targets], batch.targets)
    losses = criterion(output, batch.targets)
    sum(losses.values()).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return {name: loss.item() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_lambda_1_and_0_train_as_without_mixup(builders: ModuleType, weight: float) -> None:
    view = TrainingView(FourImages(), square_train(96, flip=0.5), combine=BoxMixup().combine)  # type: ignore[arg-type]

    def batch(pairs: list[tuple[int, int]], weight: float | None) -> Batch:
        requests = [
            Request(index, 10 + slot, None, None if weight is None else Mix(partner, weight))
            for slot, (index, partner) in enumerate(pairs)
        ]
        return Collate((0, 0, 0))([view[request] for request in requests])

    pairs = [(0, 1), (1, 2), (2, 3), (3, 0)]
    ours = batch(pairs, weight)
    plain = batch(pairs if weight == 1 else [(partner, index) for index, partner in pairs], None)
    assert torch.equal(ours.images, plain.images)
    for a, b in zip(ours.targets, plain.targets, strict=True):
        for name in ("boxes", "labels", "difficult", "weights"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        for name in ("size", "index", "image_id", "path", "original_size", "scale", "seed"):
            assert getattr(a, name) == getattr(b, name)
        assert a.weights.eq(1).all()
    our_losses, our_gradients = losses_and_gradients(builders, ours)
    losses, gradients = losses_and_gradients(builders, plain)
    assert our_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(our_gradients, gradients, strict=True))
    # The comparison means something: a real mixture has other losses.
    assert losses_and_gradients(builders, batch(pairs, 0.5))[0] != losses


# ---- the draw ----


@pytest.mark.parametrize("alpha", [1.5, 0.2, 8.0])
def test_lambda_has_the_mean_and_variance_of_beta(alpha: float) -> None:
    rng = np.random.default_rng(0)
    mixup = BoxMixup(alpha)
    weights = np.array([mixup.draw(rng, 0, 5).weight for _ in range(20000)])  # type: ignore[union-attr]
    variance = 1 / (4 * (2 * alpha + 1))
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.mean() == pytest.approx(0.5, abs=5 * np.sqrt(variance / 20000))
    # (x - 1/2)^2 is in [0, 1/4], so its own variance is at most variance / 4.
    assert weights.var() == pytest.approx(variance, abs=5 * np.sqrt(variance / 4 / 20000))


@pytest.mark.parametrize("alpha", [1.5, None])
def test_even_is_a_half_whatever_alpha(alpha: float | None) -> None:
    rng = np.random.default_rng(0)
    assert {BoxMixup(alpha, even=True).draw(rng, 1, 4).weight for _ in range(50)} == {0.5}  # type: ignore[union-attr]


@pytest.mark.parametrize("mixup", [BoxMixup(), BoxMixup(even=True)])
@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_partner_is_any_other_image(mixup: BoxMixup, index: int) -> None:
    rng = np.random.default_rng(0)
    partners = np.bincount([mixup.draw(rng, index, 5).index for _ in range(4000)], minlength=5)  # type: ignore[union-attr]
    assert len(partners) == 5
    assert partners[index] == 0
    others = np.delete(partners, index)  # binomial: 1000 expected, standard deviation 27
    assert others.min() > 860
    assert others.max() < 1140


def test_one_image_has_no_partner() -> None:
    assert BoxMixup().draw(np.random.default_rng(0), 0, 1) is None
    assert BoxMixup().draw(np.random.default_rng(0), 1, 2).index == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: BoxMixup(0), ["alpha=0", "above 0", "1.5"]),
        (lambda: BoxMixup(None), ["alpha=None", "even=True"]),
        (lambda: BoxMixup("1.5x", last_epochs_without=-1), ["alpha='1.5x'", "last_epochs_without=-1"]),
        (lambda: BoxMixup(float("inf")), ["alpha=inf"]),
        (lambda: BoxMixup(even=1), ["even=1", "True or False"]),
        (lambda: BoxMixup(last_epochs_without="20"), ["last_epochs_without='20'", "0 or more"]),
    ],
)
def test_arguments_are_checked(make: Callable[[], BoxMixup], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert all(part in str(error.value) for part in ["BoxMixup", *parts])
