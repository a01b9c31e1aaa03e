"""The policies: torchvision's and timm's own results, a function of the given generator, and no trace left behind."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from transfer.augment.policies import (
    AugMix,
    AutoAugment,
    RandAugment,
    TimmRandAugment,
    TorchvisionStep,
    TrivialAugment,
    seeded_torch,
)
from transfer.types import Request, Sample, UserError

ANY = Request(0, 0)
FILL = [124, 117, 104]
MAKERS = {
    "AutoAugment": AutoAugment,
    "AutoAugmentCifar": lambda: AutoAugment("cifar10", interpolation="nearest"),
    "AutoAugmentSvhn": lambda: AutoAugment("svhn", fill=(1, 2, 3)),
    "RandAugment": RandAugment,
    "RandAugmentStrong": lambda: RandAugment(4, 30),
    "TrivialAugment": TrivialAugment,
    "AugMix": AugMix,
    "TimmRandAugment": TimmRandAugment,
    "TimmRandAugmentLong": lambda: TimmRandAugment("rand-m7-n3-p0.8-mstd1-mmax10-inc1-t3aw"),
}
every_policy = pytest.mark.parametrize("name", MAKERS)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def global_states() -> tuple[bytes, object, str]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(numpy_state)


def smooth(height: int = 40, width: int = 48) -> Sample:
    rows, columns = np.indices((height, width))
    image = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=2).astype(np.uint8)
    image.setflags(write=False)
    return Sample(
        image=image,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, np.bool_),
        weights=np.zeros(0, np.float32),
        index=3,
        image_id="three",
        path="three.jpg",
        original_size=(height, width),
        label=6,
    )


@every_policy
def test_only_the_given_generator_counts_and_nothing_global_moves(name) -> None:
    step, sample = MAKERS[name](), smooth()
    made = []
    for globally in (1, 2):
        torch.manual_seed(globally)
        random.seed(globally)
        np.random.seed(globally)  # noqa: NPY002
        random.gauss(0, 1)  # leaves a second number behind in the generator
        before = global_states()
        generators = [rng(seed) for seed in range(12)]
        made.append([step(sample, ANY, generator).image for generator in generators])
        assert global_states() == before
    for first, again in zip(*made, strict=True):
        assert np.array_equal(first, again)
    assert len({image.tobytes() for image in made[0]}) > 4
    once_more = pickle.loads(pickle.dumps(step))  # what a worker gets where processes are spawned
    assert np.array_equal(once_more(sample, ANY, rng(5)).image, made[0][5])
    result = step(sample, ANY, rng(0))
    assert result.image.flags.writeable
    assert (result.label, result.index, result.boxes.shape) == (6, 3, (0, 4))


@pytest.mark.parametrize(
    ("step", "theirs", "arguments"),
    [
        (AutoAugment(), "AutoAugment", {}),
        (RandAugment(3, 17), "RandAugment", {"num_ops": 3, "magnitude": 17}),
        (TrivialAugment(), "TrivialAugmentWide", {}),
        (AugMix(severity=5, width=2, depth=2, alpha=0.5), "AugMix", None),
    ],
)
def test_the_pixels_are_torchvisions(step, theirs, arguments) -> None:
    from torchvision.transforms import InterpolationMode, v2

    if arguments is None:
        arguments = {"severity": 5, "mixture_width": 2, "chain_depth": 2, "alpha": 0.5}
    transform = getattr(v2, theirs)(**arguments, interpolation=InterpolationMode.BILINEAR, fill=FILL)
    sample = smooth()
    for seed in range(10):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng(seed).integers(2**63)))
            expected = np.array(transform(Image.fromarray(sample.image)))
        assert np.array_equal(step(sample, ANY, rng(seed)).image, expected)


def test_the_pixels_are_timms() -> None:
    from timm.data.auto_augment import rand_augment_transform

    text = "rand-m5-n3-mstd0.5-inc1"  # weaker than where timm's posterizing fails
    transform, sample = rand_augment_transform(text, {"img_mean": tuple(FILL)}), smooth()
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    for seed in range(10):
        draws = rng(seed)
        random.seed(int(draws.integers(2**63)))
        np.random.seed(int(draws.integers(2**32)))  # noqa: NPY002
        expected = np.array(transform(Image.fromarray(sample.image)))
        assert np.array_equal(TimmRandAugment(text)(sample, ANY, rng(seed)).image, expected)
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


@pytest.mark.parametrize("text", ["rand-m10-n6-p1-inc1", "rand-m0-n6-p1", "rand-m20-n6-p1-mstd101-mmax30-inc1"])
def test_timms_extremes_neither_fail_nor_blacken(text) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
    step, sample = TimmRandAugment(text, fill=(90, 90, 90)), replace(smooth(), image=ramp)
    posterizing = [operation for operation in step._transform.ops if operation.name.startswith("Posterize")]
    assert len(posterizing) == 1
    step._transform.ops = [*step._transform.ops, *posterizing * 5]  # often
    for seed in range(60):
        step(sample, ANY, rng(seed))
    step._transform.ops = posterizing
    for seed in range(5):
        levels = np.unique(step(sample, ANY, rng(seed)).image)
        assert 128 in levels  # the first bit of the upper half of the ramp


@every_policy
@pytest.mark.parametrize("size", [(5, 5), (1, 1), (5, 300), (300, 2)])
def test_tiny_elongated_and_grey_images_keep_their_size(name, size) -> None:
    sample = smooth(*size)
    grey = replace(sample, image=np.repeat(sample.image[:, :, :1], 3, axis=2))
    step = MAKERS[name]()
    for seed in range(8):
        for given in (sample, grey):
            made = step(given, ANY, rng(seed)).image
            assert made.shape == (*size, 3)
            assert made.dtype == np.uint8


def test_what_a_rotation_leaves_empty_has_the_given_colour() -> None:
    flat = replace(smooth(), image=np.full((40, 48, 3), 200, np.uint8))
    for step in (
        TrivialAugment(interpolation="nearest", fill=(9, 8, 7)),
        RandAugment(1, 20, interpolation="nearest", fill=(9, 8, 7)),
        TimmRandAugment("rand-m9-n1-p1", fill=(9, 8, 7)),
    ):
        colours = [
            {tuple(pixel) for pixel in step(flat, ANY, rng(seed)).image.reshape(-1, 3).tolist()} for seed in range(40)
        ]
        assert {(9, 8, 7), (200, 200, 200)} in colours
        assert not any((0, 0, 0) in found for found in colours)


@every_policy
def test_boxes_and_masks_are_refused(name, noise) -> None:
    step = MAKERS[name]()
    before = global_states()
    for sample, kind in (
        (noise(9, 9, [[1, 1, 4, 4]]), "boxes"),
        (replace(noise(9, 9), mask=np.zeros((9, 9), np.uint8)), "a mask"),
    ):
        with pytest.raises(UserError, match=f"three.jpg has {kind}, which would not follow"):
            step(sample, ANY, rng(0))
    assert global_states() == before


def test_the_state_comes_back_after_an_error_too() -> None:
    def fails(image: Image.Image) -> Image.Image:
        torch.rand(3)
        raise ZeroDivisionError

    before = global_states()
    with pytest.raises(ZeroDivisionError):
        TorchvisionStep(fails)(smooth(), ANY, rng(0))
    assert global_states() == before


def test_any_transform_that_keeps_a_picture_will_do() -> None:
    from torchvision.transforms import v2

    step = TorchvisionStep(v2.RandomVerticalFlip(p=1.0))
    assert np.array_equal(step(smooth(), ANY, rng(0)).image, smooth().image[::-1])
    with pytest.raises(UserError, match="Mine: gave a Image; it must stay a PIL image in RGB"):
        TorchvisionStep(v2.ToImage(), name="Mine")(smooth(), ANY, rng(0))
    with pytest.raises(UserError, match="gave a PIL image of mode L"):
        TorchvisionStep(v2.Grayscale(1))(smooth(), ANY, rng(0))


def test_a_seed_rules_torchs_generator_within_the_block_only() -> None:
    drawn = []
    for _ in range(2):
        with seeded_torch(2**63 - 1):
            drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], torch.rand(4, generator=torch.Generator().manual_seed(2**63 - 1)))


def test_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"interpolation='bicubic'.*fill=\(0, 0\).*policy='imagnet'.*'imagenet'"):
        AutoAugment("imagnet", interpolation="bicubic", fill=(0, 0))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"num_ops=0 .*magnitude=31 "):
        RandAugment(0, 31)
    with pytest.raises(UserError, match=r"num_ops=True .*magnitude=9\.0 "):
        RandAugment(True, 9.0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"fill=\(0, 0, 256\)"):
        TrivialAugment(fill=(0, 0, 256))
    with pytest.raises(UserError, match=r"severity=11 .*width=0 .*depth=0 .*alpha=0 "):
        AugMix(severity=11, width=0, depth=0, alpha=0)
    for text, unread in (
        ("rand-m9-x3", "'x3'"),
        ("rand-mstd", "'mstd'"),  # timm would leave it out in silence
        ("rand-mstdinf", "'mstdinf'"),
        ("rand-tweight", "'tweight'"),
        ("m9-mstd0.5", "'m9'"),
        ("rand--m9", "''"),
    ):
        with pytest.raises(UserError, match=f"cannot read .*{unread}"):
            TimmRandAugment(text)
