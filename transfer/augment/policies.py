"""Learned and random policies of colour and geometry, taken from torchvision and timm and made repeatable.

Sources: Cubuk et al. 2018, AutoAugment, arXiv 1805.09501; Cubuk et al. 2019, RandAugment, arXiv 1909.13719; Müller and
Hutter 2021, TrivialAugment, arXiv 2103.10158 (the wide space); Hendrycks et al. 2019, AugMix, arXiv 1912.02781.

torchvision's transforms draw from torch's global generator, timm's from those of Python and numpy. Around each call the
generators in question are seeded from the step's own and put back as they were, so that a sample depends on its request
alone and nobody else's draws move. Only torch's CPU generator is seeded: torch.manual_seed would reseed the GPU's, too.

Images pass through PIL, which is at least as fast here as tensors and what the policies were made on.

Deviations: what a rotation or shear leaves empty is filled with ImageNet's mean colour and not with black, and moved
pixels are interpolated bilinearly (torchvision's own defaults are black and nearest; its training recipes use bilinear,
timm's fill with the mean). AugMix is its image mixing only, without the paper's consistency loss; torchvision cuts the
fraction of its mixed pixels off. timm's posterizing keeps at least one bit, where timm, at its greatest strength, keeps
none: Pillow refuses that by now, once in hours of training, and a black image has nothing to teach. The policies rotate
and shear, so a sample with boxes or a mask is refused.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from transfer.augment.geometry import IMAGENET_MEAN
from transfer.augment.image_crops import refuse_truth
from transfer.types import Request, Sample, UserError, is_number

AUTO_POLICIES = ("imagenet", "cifar10", "svhn")
MAGNITUDE_BINS = 31

_TIMM_SECTION = re.compile(
    r"m\d+|n[1-9]\d*|p(0(\.\d+)?|1(\.0+)?)|mstd\d+(\.\d+)?|mmax[1-9]\d*|inc[01]|t(weights|3a|3aw)", re.ASCII
)


class TorchvisionStep:
    """Runs one torchvision transform of images that draws from torch's generator, and from nothing else."""

    def __init__(self, transform: Callable[[Any], Any], *, name: str = "TorchvisionStep") -> None:
        """Wrap a transform.

        Args:
            transform: from a PIL image to one, of any size.
            name: what errors call it.
        """
        self.transform = transform
        self.name = name

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The transformed sample.

        Raises:
            UserError: when the sample has boxes or a mask, or the transform gave anything but a PIL image in colour.
        """
        with seeded_torch(int(rng.integers(2**63))):
            return _through_pil(sample, self.transform, self.name)


class AutoAugment:
    """Two steps of colour and geometry, by a policy learned for a data set."""

    def __init__(
        self,
        policy: str = "imagenet",
        *,
        interpolation: str = "bilinear",
        fill: tuple[int, int, int] = IMAGENET_MEAN,
    ) -> None:
        """Choose the policy.

        Args:
            policy: imagenet, cifar10 or svhn.
            interpolation: of moved pixels: nearest or bilinear.
            fill: RGB of what is left empty, 0..255.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _drawing_problems(interpolation, fill)
        if policy not in AUTO_POLICIES:
            near = get_close_matches(str(policy), AUTO_POLICIES, n=1, cutoff=0)[0]
            problems.append(f"policy={policy!r} is not one of {', '.join(AUTO_POLICIES)}; the nearest is {near!r}")
        _raise("AutoAugment", problems)
        from torchvision.transforms import v2

        made = v2.AutoAugment(v2.AutoAugmentPolicy(policy), interpolation=_mode(interpolation), fill=list(fill))
        self.step = TorchvisionStep(made, name="AutoAugment")

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        return self.step(sample, request, rng)


class RandAugment:
    """Some steps of colour and geometry, each drawn evenly, all of one strength."""

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        *,
        interpolation: str = "bilinear",
        fill: tuple[int, int, int] = IMAGENET_MEAN,
    ) -> None:
        """Set number and strength; the defaults are torchvision's.

        Args:
            num_ops: steps in turn, at least 1.
            magnitude: strength of each, a whole number in [0, 30].
            interpolation: of moved pixels: nearest or bilinear.
            fill: RGB of what is left empty, 0..255.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _drawing_problems(interpolation, fill)
        if not _is_whole(num_ops) or num_ops < 1:
            problems.append(f"num_ops={num_ops!r} must be a whole number, at least 1")
        if not _is_whole(magnitude) or not 0 <= magnitude < MAGNITUDE_BINS:
            problems.append(f"magnitude={magnitude!r} must be a whole number in [0, {MAGNITUDE_BINS - 1}]")
        _raise("RandAugment", problems)
        from torchvision.transforms import v2

        made = v2.RandAugment(num_ops, magnitude, MAGNITUDE_BINS, interpolation=_mode(interpolation), fill=list(fill))
        self.step = TorchvisionStep(made, name="RandAugment")

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        return self.step(sample, request, rng)


class TrivialAugment:
    """One step of colour or geometry and its strength, both drawn evenly (the wide space)."""

    def __init__(self, *, interpolation: str = "bilinear", fill: tuple[int, int, int] = IMAGENET_MEAN) -> None:
        """Set how pixels move; there is nothing else to tune.

        Args:
            interpolation: of moved pixels: nearest or bilinear.
            fill: RGB of what is left empty, 0..255.

        Raises:
            UserError: with every argument that does not fit.
        """
        _raise("TrivialAugment", _drawing_problems(interpolation, fill))
        from torchvision.transforms import v2

        made = v2.TrivialAugmentWide(MAGNITUDE_BINS, interpolation=_mode(interpolation), fill=list(fill))
        self.step = TorchvisionStep(made, name="TrivialAugment")

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        return self.step(sample, request, rng)


class AugMix:
    """Blends the image with several chains of steps applied to it."""

    def __init__(
        self,
        *,
        severity: int = 3,
        width: int = 3,
        depth: int | None = None,
        alpha: float = 1.0,
        interpolation: str = "bilinear",
        fill: tuple[int, int, int] = IMAGENET_MEAN,
    ) -> None:
        """Set the chains; the defaults are the paper's.

        Args:
            severity: greatest strength of a step, a whole number in [1, 10].
            width: chains, at least 1.
            depth: steps of a chain, at least 1; None: drawn from 1 to 3.
            alpha: the shares are drawn from Dirichlet(alpha, ...) and Beta(alpha, alpha), above 0.
            interpolation: of moved pixels: nearest or bilinear.
            fill: RGB of what is left empty, 0..255.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _drawing_problems(interpolation, fill)
        if not _is_whole(severity) or not 1 <= severity <= 10:
            problems.append(f"severity={severity!r} must be a whole number in [1, 10]")
        if not _is_whole(width) or width < 1:
            problems.append(f"width={width!r} must be a whole number, at least 1")
        if depth is not None and (not _is_whole(depth) or depth < 1):
            problems.append(f"depth={depth!r} must be a whole number, at least 1, or None")
        if not is_number(alpha) or not 0 < alpha < float("inf"):
            problems.append(f"alpha={alpha!r} must be a number above 0")
        _raise("AugMix", problems)
        from torchvision.transforms import v2

        chain = -1 if depth is None else depth
        made = v2.AugMix(severity, width, chain, alpha, interpolation=_mode(interpolation), fill=list(fill))
        self.step = TorchvisionStep(made, name="AugMix")

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The changed sample."""
        return self.step(sample, request, rng)


class TimmRandAugment:
    """timm's form of RandAugment, which varies the strength; set by timm's own text."""

    def __init__(self, config: str = "rand-m9-mstd0.5", *, fill: tuple[int, int, int] = IMAGENET_MEAN) -> None:
        """Read the text.

        Args:
            config: "rand", then sections joined by "-": m and n (strength in [0, 10] and number of steps), p (chance of
                each step), mstd (spread of the strength), mmax, inc1 (every step grows with the strength), tweights,
                t3a or t3aw (other sets of steps).
            fill: RGB of what is left empty, 0..255.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = [] if _is_colour(fill) else [f"fill={fill!r} must be three whole numbers in 0..255"]
        head, *sections = str(config).split("-")
        unknown = [section for section in sections if not _TIMM_SECTION.fullmatch(section)]
        if head != "rand" or unknown:  # timm leaves out in silence what it cannot read
            what = ", ".join(repr(section) for section in unknown) or repr(head)
            problems.append(f"config={config!r}: cannot read {what}; write it as 'rand-m9-n2-mstd0.5-inc1'")
        _raise("TimmRandAugment", problems)
        from timm.data.auto_augment import rand_augment_transform

        self.config = config
        self._transform = rand_augment_transform(config, {"img_mean": tuple(fill)})
        for operation in self._transform.ops:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The changed sample.

        Raises:
            UserError: when the sample has boxes or a mask.
        """
        with _seeded_python(int(rng.integers(2**63)), int(rng.integers(2**32))):
            return _through_pil(sample, self._transform, "TimmRandAugment")


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """Within it, torch's global CPU generator starts at a seed; after it, the generator is as it was before.

    Args:
        seed: in [0, 2**63).
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextmanager
def _seeded_python(seed: int, numpy_seed: int) -> Iterator[None]:
    # The legacy global generators are timm's, not this project's choice.
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(numpy_seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002


def _posterize(image: Image.Image, bits: int, **unused: object) -> Image.Image:
    # In the place of timm's, which may ask for 0 bits. (timm hands every operation the same keywords.)
    return ImageOps.posterize(image, min(max(1, bits), 8))


def _through_pil(sample: Sample, transform: Callable[[Any], Any], step: str) -> Sample:
    refuse_truth(sample, step)
    made = transform(Image.fromarray(sample.image))
    if not isinstance(made, Image.Image) or made.mode != "RGB":
        got = f"a PIL image of mode {made.mode}" if isinstance(made, Image.Image) else f"a {type(made).__name__}"
        raise UserError(
            f"{step}: gave {got}; it must stay a PIL image in RGB: take ToTensor and Normalize out, the backbone "
            "normalises"
        )
    return replace(sample, image=np.array(made))  # a copy: PIL's own memory cannot be written to


def _mode(interpolation: str) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(interpolation)


def _drawing_problems(interpolation: str, fill: object) -> list[str]:
    problems = []
    if interpolation not in ("nearest", "bilinear"):
        problems.append(f"interpolation={interpolation!r} must be 'nearest' or 'bilinear'")
    if not _is_colour(fill):
        problems.append(f"fill={fill!r} must be three whole numbers in 0..255, such as {IMAGENET_MEAN}")
    return problems


def _is_colour(value: object) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        return False
    return all(_is_whole(level) and 0 <= level <= 255 for level in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _raise(step: str, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{step}: " + "; ".join(problems))
