"""Segmentation in several views: windows that cover everything, and averages that a pointwise network cannot notice."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transfer.build import build
from transfer.engine.segmentation_views import SegmentationTestTime, SegmentationViewsTask, SlidingWindows, starts
from transfer.engine.task import SegmentationTask
from transfer.engine.views import scaled_pipeline, views_of
from transfer.heads.segmentation import SegmentationOutput, SegmentationPostprocess
from transfer.types import Batch, Request, Sample, Size, Target, UserError


class Pointwise(nn.Module):
    """Logits that follow from each pixel alone; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Size] = []

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Any = None) -> SegmentationOutput:
        self.seen.append((int(images.shape[2]), int(images.shape[3])))
        return SegmentationOutput(images.float() / 32, None, self.seen[-1])


class LeftOnly(nn.Module):
    """Says class 1 in the left half of whatever it is shown, class 0 in the right."""

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Any = None) -> SegmentationOutput:
        height, width = int(images.shape[2]), int(images.shape[3])
        logits = torch.zeros(len(images), 2, height, width)
        logits[:, 1, :, : width // 2] = 2.0
        logits[:, 1, :, width // 2 :] = -1.0
        return SegmentationOutput(logits, None, (height, width))


def batch_of(*sizes: Size, pad: Size = (64, 96)) -> Batch:
    images = torch.randint(0, 256, (len(sizes), 3, *pad), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(0)
    targets = [
        Target(nothing.view(0, 4), nothing.long(), nothing.bool(), nothing, size, index, str(index), "", size, (1, 1))
        for index, size in enumerate(sizes)
    ]
    return Batch(images, targets)


def task_of(model: nn.Module, **views: Any) -> SegmentationViewsTask:
    return SegmentationViewsTask(
        SegmentationTask(model, lambda *_: {}, SegmentationPostprocess()), SegmentationTestTime(**views)
    )


@pytest.mark.parametrize("length", [1, 64, 65, 100, 480, 481, 1000])
@pytest.mark.parametrize("overlap", [0.0, 1 / 3, 0.9])
def test_windows_cover_a_side_and_overlap_as_asked(length: int, overlap: float) -> None:
    window = 64
    found = starts(length, window, overlap)
    assert found[0] == 0
    assert found[-1] == max(0, length - window)
    assert all(0 < b - a <= max(1, int(window * (1 - overlap))) for a, b in zip(found, found[1:]))


def test_a_pointwise_network_cannot_tell_windows_from_the_whole() -> None:
    batch, model = batch_of((50, 90), (64, 96)), Pointwise()
    whole = model(batch.images, [])
    windows = SlidingWindows(model, 32, overlap=1 / 3)(batch.images, [])
    assert windows.logits == pytest.approx(whole.logits, abs=1e-5)
    assert windows.size == (64, 96)
    assert set(model.seen[1:]) == {(32, 32)}
    assert len(model.seen[1:]) == 3 * 5  # strides of at most 21 px over 32 and 64 px


def test_a_window_larger_than_the_image_is_the_image() -> None:
    batch, model = batch_of((64, 96)), Pointwise()
    SlidingWindows(model, 480, overlap=0.5)(batch.images, [])
    assert model.seen == [(64, 96)]


def test_overlapping_windows_are_averaged() -> None:
    """Two windows of 64 px on 96: columns 32 to 63 are in the right half of the first and the left of the second."""
    windows = SlidingWindows(LeftOnly(), 64, overlap=0.5)(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), [])
    row = windows.logits[0, 1, 0]
    assert row.tolist() == [2.0] * 32 + [0.5] * 32 + [-1.0] * 32


@pytest.mark.parametrize("window", [None, 32])
def test_views_of_a_pointwise_network_change_nothing(window: int | None) -> None:
    batch, model = batch_of((50, 90), (64, 70)), Pointwise()
    plain = SegmentationTask(model, lambda *_: {}, SegmentationPostprocess()).predict(model, batch)
    viewed = task_of(model, flip=True, window=window).predict(model, batch)
    assert [v.labels.shape for v in viewed] == [(50, 90), (64, 70)]
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(plain, viewed, strict=True))


def test_the_mirrored_view_is_mirrored_back_within_the_image() -> None:
    """A network that likes the left gives, with its mirror image, the same probabilities on both sides: class 1."""
    batch = batch_of((64, 96))
    plain = SegmentationTask(LeftOnly(), lambda *_: {}, SegmentationPostprocess()).predict(LeftOnly(), batch)
    assert plain[0].labels[0].tolist() == [1] * 48 + [0] * 48
    (label_map,) = task_of(LeftOnly(), flip=True).predict(LeftOnly(), batch)
    # softmax: (0.88 + 0.27) / 2 for class 1 everywhere
    assert label_map.labels.unique().tolist() == [1]


def test_scales_are_averaged_as_probabilities_in_original_pixels() -> None:
    """Two views of constant logits: 3 against 0 once, 0 against 2 once; probabilities 0.95 + 0.12 > 0.05 + 0.88."""

    class BySize(nn.Module):
        def forward(self, images: Tensor, sizes: Sequence[Size]) -> SegmentationOutput:
            size = (int(images.shape[2]), int(images.shape[3]))
            first, second = (3.0, 0.0) if size[0] == 64 else (0.0, 2.0)
            logits = torch.stack([torch.full(size, first), torch.full(size, second)])
            return SegmentationOutput(logits.expand(len(images), -1, -1, -1), None, size)

    small, large = batch_of((64, 96)), batch_of((128, 192), pad=(128, 192))
    large.targets = [dataclasses.replace(large.targets[0], original_size=(64, 96))]
    task = task_of(BySize(), flip=False, scales=[1.0, 2.0])
    (label_map,) = task.predict(BySize(), views_of([small, large]))
    assert label_map.labels.shape == (64, 96)
    assert label_map.labels.unique().tolist() == [0]
    (alone,) = task.predict(BySize(), large)
    assert alone.labels.unique().tolist() == [1]


def test_settings_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        SegmentationTestTime(scales=[], flip="yes", window=8, overlap=1.0)  # type: ignore[arg-type]
    for name in ("loader.test_time", "scales=[]", "flip='yes'", "window=8", "overlap=1.0"):
        assert name in str(error.value)


def test_whole_images_are_scaled_by_a_factor_others_by_their_length() -> None:
    preset = "transfer.augment.presets.segmentation_test"
    assert scaled_pipeline({"type": preset}, 0.5) == {"type": preset, "factor": 0.5}
    assert scaled_pipeline({"type": preset, "long": 520}, 0.5) == {"type": preset, "long": 260}
    sample = Sample(
        np.zeros((40, 61, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool),
        np.zeros(0, np.float32), 0, "", "", (40, 61), mask=np.ones((40, 61), np.uint8),
    )  # fmt: skip
    half = build(scaled_pipeline({"type": preset}, 0.5))(sample, Request(0, 0), np.random.default_rng(0))
    assert half.image.shape == (20, 31, 3)
    assert half.mask is not None
    assert half.mask.shape == (40, 61)  # of the original: what is measured
