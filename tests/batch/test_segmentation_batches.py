"""Masks through view and collate: random shapes, mixing, determinism from the request, and masks that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from transfer.augment.mask_mixing import ClassMix, MaskCutMix
from transfer.augment.presets import segmentation_test, segmentation_train
from transfer.batch.collate import Collate, make_loader
from transfer.batch.requests import RequestBatches, evaluation_batches
from transfer.batch.shapes import RandomShapes
from transfer.batch.view import TrainingView, ViewedSample
from transfer.types import Request, Sample, UserError

PAD = (9, 8, 7)
COLOURS = np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)
FILL = tuple(int(value) for value in COLOURS[255])
CODES = COLOURS[[0, 1, 2, 3, 255]].astype(np.int64) @ [65536, 256, 1]


class MaskDataset:
    """Images of different sizes, painted from masks of large squares."""

    class_names = ("a", "b", "c", "d")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        size = (40 + 9 * index, 80 - 7 * index)
        coarse = np.random.default_rng(index).choice(np.array([0, 1, 2, 3, 255], np.uint8), (4, 4))
        mask = coarse.repeat(-(-size[0] // 4), axis=0).repeat(-(-size[1] // 4), axis=1)[: size[0], : size[1]].copy()
        none = np.empty(0)
        return Sample(
            image=COLOURS[mask],
            boxes=none.astype(np.float32).reshape(0, 4),
            labels=none.astype(np.int64),
            difficult=none.astype(np.bool_),
            weights=none.astype(np.float32),
            index=index,
            image_id=f"{index}",
            path=f"{index}.png",
            original_size=size,
            mask=mask,
        )


def view(augment, combine=None) -> TrainingView:
    return TrainingView(MaskDataset(), augment, combine=combine)  # type: ignore[arg-type]


@pytest.mark.parametrize("mixing", [None, MaskCutMix(p=1.0), ClassMix(p=1.0)])
def test_random_shapes_come_out_with_masks_that_fit(mixing: MaskCutMix | ClassMix | None) -> None:
    shapes = RandomShapes(32, 96, every=1, rectangular=True)
    mixer, combine = (None, None) if mixing is None else (mixing.draw, mixing.combine)
    batches = RequestBatches(6, batch_size=3, seed=5, shapes=shapes, iterations=6, mixer=mixer)
    seen = view(segmentation_train(60, None, blur=0.0, fill=FILL), combine)
    sizes = set()
    for batch in make_loader(seen, batches, Collate(PAD)):
        height, width = batch.images.shape[2:]
        sizes.add((height, width))
        for image, target in zip(batch.images, batch.targets):
            assert target.size == (height, width)
            assert target.mask is not None
            assert target.mask.dtype == torch.uint8
            assert target.mask.shape == (height, width)
            pixels = image.permute(1, 2, 0).numpy()
            pure = np.isin(pixels.astype(np.int64) @ [65536, 256, 1], CODES)
            assert np.array_equal(pixels[pure], COLOURS[target.mask.numpy()[pure]])
            assert pure.mean() > 0.4
    assert len(sizes) > 3
    assert all(side % 32 == 0 for size in sizes for side in size)


def test_a_request_alone_decides() -> None:
    mixing = ClassMix(p=1.0)
    batches = list(RequestBatches(6, batch_size=2, seed=3, iterations=4, mixer=mixing.draw))
    make = lambda: view(segmentation_train(60, 48, colour=True), mixing.combine)  # noqa: E731
    forward = {request: make()[request].sample for batch in batches for request in batch}
    backward = make()
    for request in reversed(list(forward)):
        again = backward[request].sample
        assert np.array_equal(again.image, forward[request].image)
        assert again.mask is not None
        assert np.array_equal(again.mask, forward[request].mask)
    assert len({sample.image.tobytes() for sample in forward.values()}) == len(forward)


def test_in_testing_the_mask_stays_of_the_original_size() -> None:
    loader = make_loader(view(segmentation_test(long=48)), evaluation_batches(6, 2), Collate(PAD))
    seen = 0
    for batch in loader:
        assert max(batch.images.shape[2:]) == 64  # 48 up to a multiple of 32
        for target in batch.targets:
            truth = MaskDataset()[target.index]
            assert max(target.size) == 48
            assert target.original_size == truth.original_size
            assert target.mask is not None
            assert truth.mask is not None
            assert np.array_equal(target.mask.numpy(), truth.mask)
            assert target.scale == pytest.approx((48 / max(truth.original_size),) * 2, abs=0.02)
            seen += 1
    assert seen == 6
    whole = next(iter(make_loader(view(segmentation_test()), evaluation_batches(6, 1), Collate(PAD))))
    assert whole.targets[0].size == (40, 80)
    assert whole.images.shape == (1, 3, 64, 96)
    assert (whole.images[0, :, 40:] == torch.tensor(PAD, dtype=torch.uint8)[:, None, None]).all()


def item(sample: Sample) -> ViewedSample:
    return ViewedSample(sample, Request(0, 0))


def test_a_targets_mask_is_a_copy_that_travels() -> None:
    sample = MaskDataset()[0]
    target = Collate(PAD)([item(sample)]).targets[0]
    assert target.mask is not None
    target.mask.zero_()
    assert sample.mask is not None
    assert sample.mask.any()
    moved = target.to("meta").mask
    assert moved is not None
    assert moved.is_meta
    mirrored = replace(sample, mask=sample.mask[:, ::-1])  # a view that torch could not take as it is
    assert np.array_equal(np.asarray(Collate(PAD)([item(mirrored)]).targets[0].mask), mirrored.mask)
    assert Collate(PAD)([item(replace(sample, mask=None))]).targets[0].mask is None


def test_masks_that_do_not_fit_are_named() -> None:
    sample = MaskDataset()[0]
    assert sample.mask is not None
    wrong = [
        (
            replace(sample, mask=sample.mask[:30]),
            r"0.png: the mask is \(30, 80\), the image \(40, 80\) and the original",
        ),
        (replace(sample, mask=sample.mask.astype(np.int64)), r"0.png: the mask is \(40, 80\), int64.*uint8"),
        (replace(sample, mask=sample.mask[..., None]), r"0.png: the mask is \(40, 80, 1\)"),
    ]
    for bad, message in wrong:
        with pytest.raises(UserError, match=message):
            Collate(PAD)([item(bad)])
    Collate(PAD)([item(replace(sample, image=sample.image[:16]))])  # resized image, mask of the original size: testing
