"""The augmentations of classification recipes, as pipelines.

Source: He et al. 2018, Bag of Tricks, arXiv 1812.01187, section 2.1 (train: random resized crop, flip, colour, PCA
noise; test: short side 256, centre crop 224).

Deviations: the paper scales hue, saturation and brightness by factors from U[0.6, 1.4]; its authors' script changes
brightness, contrast and saturation by those factors and leaves the hue alone, and so do the defaults here (a factor on
the hue would turn blue further than red; `hue` is a shift). The random steps after the crop see the crop's pixels, not
the original's. In testing the long side is rounded (torchvision cuts its fraction off), and an image more than four
times as long as wide is first trimmed to that, of which the centre crop sees nothing.
"""

from __future__ import annotations

import math
import sys
from difflib import get_close_matches

from transfer.augment.color_jitter import ColorJitter
from transfer.augment.erasing import Cutout, RandomErasing
from transfer.augment.geometry import HorizontalFlip
from transfer.augment.image_crops import CenterCrop, RandomResizedCrop, TrimLongSide
from transfer.augment.pca_noise import PCANoise
from transfer.augment.pipeline import Augment, Pipeline
from transfer.augment.policies import AugMix, AutoAugment, RandAugment, TimmRandAugment, TrivialAugment
from transfer.augment.resizing import ResizeShortSide
from transfer.types import Size, UserError, is_number

POLICIES = {
    "autoaugment": AutoAugment,
    "randaugment": RandAugment,
    "trivialaugment": TrivialAugment,
    "augmix": AugMix,
}
"""What `policy` may be called, each with its defaults."""


def classification_train(
    size: int | Size | None = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    policy: str | Augment | None = None,
    colour: float = 0.4,
    hue: float = 0.0,
    pca_noise: float = 0.1,
    erasing: float = 0.0,
    cutout: float = 0.0,
    interpolation: str = "bilinear",
) -> Pipeline:
    """Crop, resize, flip, policy, colour, PCA noise and erasing; each part is switched off by its own argument.

    Args:
        size: side of a square or (height, width), pixels, where the batches have no shape of their own.
        scale: range of the crop's area in areas of the image, in (0, 1].
        ratio: range of the crop's width to height.
        flip: probability of the mirrored image; 0: none.
        policy: autoaugment, randaugment, trivialaugment, augmix, timm's text such as "rand-m9-mstd0.5", or any step;
            None: none. It has colour steps of its own: recipes that use one set `colour` and `pca_noise` to 0.
        colour: brightness, contrast and saturation are each multiplied by a factor from [1 - colour, 1 + colour], in
            [0, 1]; 0: none.
        hue: shift of the hue, from [-hue, hue] turns of the colour circle, in [0, 0.5]; 0: none.
        pca_noise: standard deviation of the noise's coefficients; 0: none.
        erasing: probability of an erased rectangle; 0: none.
        cutout: side of an erased square, in short sides of the image; 0: none.
        interpolation: nearest, bilinear, bicubic, area (for photographs much larger than `size`) or lanczos.

    Raises:
        UserError: for an argument that does not fit.
    """
    problems = [
        f"{name}={value!r} must be a number in [0, {limit}]"
        for name, value, limit in (("flip", flip, 1), ("colour", colour, 1), ("hue", hue, 0.5), ("erasing", erasing, 1))
        if not (is_number(value) and 0 <= value <= limit)
    ]
    if problems:
        raise UserError("classification_train: " + "; ".join(problems))
    steps: list[Augment] = [RandomResizedCrop(size, scale=scale, ratio=ratio, interpolation=interpolation)]
    if flip:
        steps.append(HorizontalFlip(flip))
    if policy is not None:
        steps.append(_policy(policy))
    if colour or hue:
        steps.append(ColorJitter(brightness=colour, contrast=colour, saturation=colour, hue=hue))
    if pca_noise:
        steps.append(PCANoise(pca_noise))
    if erasing:
        steps.append(RandomErasing(p=erasing))
    if cutout:
        steps.append(Cutout(cutout))
    return Pipeline(steps)


def classification_test(
    size: int | Size = 224,
    *,
    crop_share: float = 0.875,
    short: int | None = None,
    interpolation: str = "bilinear",
) -> Pipeline:
    """Resize by the short side and cut the middle out.

    Args:
        size: side of a square or (height, width), pixels; 224, or 299 for Inception-V3. The request's shape is not
            looked at.
        crop_share: side of the crop (the longer one) in short sides of the resized image, in (0, 1]; 0.875 makes of 224
            a short side of 256, of 299 one of 342 (rounded up).
        short: length of the short side, pixels, instead of `crop_share`.
        interpolation: nearest, bilinear, bicubic, area (for photographs much larger than `size`) or lanczos.

    Raises:
        UserError: for an argument that does not fit.
    """
    crop = CenterCrop(size)
    if not (is_number(crop_share) and 0 < crop_share <= 1):
        raise UserError(f"classification_test: crop_share={crop_share!r} must be a number in (0, 1]")
    longest = max(crop.size)
    if short is None:
        short = math.ceil(round(longest / crop_share, 6))  # 7 / 0.7 must not become 11
    if short < longest:
        raise UserError(f"classification_test: short={short!r} must be at least {longest}, the side of size={size!r}")
    return Pipeline([TrimLongSide(), ResizeShortSide(short, sys.maxsize, interpolation=interpolation), crop])


def _policy(policy: str | Augment) -> Augment:
    if not isinstance(policy, str):
        if not callable(policy) or isinstance(policy, type):
            raise UserError(
                f"classification_train: policy={policy!r} is neither a name nor a step, such as RandAugment()"
            )
        return policy
    if policy.startswith("rand-"):
        return TimmRandAugment(policy)
    if policy not in POLICIES:
        near = get_close_matches(policy, POLICIES, n=1, cutoff=0)[0]
        raise UserError(
            f"classification_train: policy={policy!r} is not one of {', '.join(POLICIES)}, nor timm's 'rand-...'; the "
            f"nearest is {near!r}"
        )
    return POLICIES[policy]()
