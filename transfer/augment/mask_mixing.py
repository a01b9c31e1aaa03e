"""CutMix and ClassMix for segmentation: a part of a second image pasted into the first, pixels and classes together.

Sources: Yun et al. 2019, CutMix, arXiv 1905.04899, section 3.1 (lambda from Beta(1, 1), a box with 1 - lambda of the
area and the image's aspect, its centre anywhere, what hangs over the edge cut off); Olsson et al. 2020, ClassMix,
arXiv 2007.07936, section 3.1 (half of the second image's classes, as masks). No pixel is blended, so every pixel keeps
the one class it had: a mask stays true where mixup's would not.

Images of different sizes: the result has the first one's size. The second one is scaled, its aspect kept, until it just
covers the first, and what is too much is cut off evenly at both ends: then both show their scene at about the same
scale, every pixel of the first has a counterpart, and of images of one size the second is used as it is, as in the
papers. Pairs are mixed before every other step of the augmentation.

Deviations: in classification CutMix shares the label by area; here each pixel has its own. ClassMix was made for
unlabelled images and takes the classes that a teacher predicts; here they are those of the truth. Half of n classes is
n // 2, as in its authors' code, so a second image with a single class gives nothing. Ignored pixels of the second image
are pasted with CutMix's box, as ignored, and never with ClassMix. Mixing half of the images (p) is a choice and not a
measurement.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from transfer.augment.placing import fitting_mask
from transfer.augment.resizing import interpolation_problems, resize_sample
from transfer.types import IGNORED_PIXEL, Mix, Request, Sample, Size, UserError, is_number


class MaskCutMix:
    """Pastes a box of the second image, with its mask, at the same place of the first."""

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        p: float = 0.5,
        interpolation: str = "bilinear",
        last_epochs_without: float = 0.0,
    ) -> None:
        """Set the shares.

        Args:
            alpha: the first image's share is drawn from Beta(alpha, alpha), above 0.
            p: share of the images that are mixed, in (0, 1].
            interpolation: of a second image of another size: nearest, bilinear, bicubic, area or lanczos.
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more. A run that is not
                longer than that is refused.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = [] if is_number(alpha) and 0 < alpha < math.inf else [f"alpha={alpha!r} must be a number above 0"]
        problems += _problems(p, interpolation, last_epochs_without)
        if problems:
            raise UserError("MaskCutMix: " + "; ".join(problems))
        self.alpha = alpha
        self.p = p
        self.interpolation = interpolation
        self.last_epochs_without = last_epochs_without

    def draw(self, rng: np.random.Generator, index: int, length: int) -> Mix | None:
        """The second image of a pair: any other one, each as likely.

        Args:
            rng: the only source of randomness.
            index: the first image, in [0, length).
            length: images in the data set.

        Returns:
            Partner and lambda; None where the image stays alone.
        """
        partner = _partner(rng, index, length, self.p)
        return None if partner is None else Mix(partner, float(rng.beta(self.alpha, self.alpha)))

    def combine(self, first: Sample, second: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The first image with a box of the second.

        Args:
            first: the request's image; stays as it is.
            second: its partner; stays as it is.
            request: its `mix.weight` is lambda: the box has 1 - lambda of the area, before it is cut at the edges.
            rng: draws the box's centre.

        Returns:
            A sample of the first one's size. `path` names both.

        Raises:
            UserError: when a sample has no mask, or has boxes.
        """
        assert request.mix is not None, "the batches drew no pair"
        _check("MaskCutMix", first, second)
        if first.index == second.index:  # a partner that cannot be read was replaced by the image itself
            return first
        height, width = first.image.shape[:2]
        box = _box((height, width), request.mix.weight, rng)
        chosen = np.zeros((height, width), dtype=np.bool_)
        chosen[box] = True
        return _paste(first, _covering(second, (height, width), "MaskCutMix", self.interpolation), chosen)


class ClassMix:
    """Pastes half of the classes of the second image, pixel by pixel, where they are."""

    def __init__(self, *, p: float = 0.5, interpolation: str = "bilinear", last_epochs_without: float = 0.0) -> None:
        """Set how often.

        Args:
            p: share of the images that are mixed, in (0, 1].
            interpolation: of a second image of another size: nearest, bilinear, bicubic, area or lanczos.
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more. A run that is not
                longer than that is refused.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _problems(p, interpolation, last_epochs_without)
        if problems:
            raise UserError("ClassMix: " + "; ".join(problems))
        self.p = p
        self.interpolation = interpolation
        self.last_epochs_without = last_epochs_without

    def draw(self, rng: np.random.Generator, index: int, length: int) -> Mix | None:
        """The second image of a pair: any other one, each as likely.

        Args:
            rng: the only source of randomness.
            index: the first image, in [0, length).
            length: images in the data set.

        Returns:
            Partner, with the weight 0.5, which nobody uses; None where the image stays alone.
        """
        partner = _partner(rng, index, length, self.p)
        return None if partner is None else Mix(partner, 0.5)

    def combine(self, first: Sample, second: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The first image with half of the second one's classes.

        Args:
            first: the request's image; stays as it is.
            second: its partner; stays as it is.
            request: not used.
            rng: draws the classes, from those that the second image shows within the first one's size.

        Returns:
            A sample of the first one's size. `path` names both.

        Raises:
            UserError: when a sample has no mask, or has boxes.
        """
        _check("ClassMix", first, second)
        if first.index == second.index:
            return first
        second = _covering(second, first.image.shape[:2], "ClassMix", self.interpolation)
        assert second.mask is not None
        present = np.flatnonzero(np.bincount(second.mask.ravel(), minlength=IGNORED_PIXEL + 1)[:IGNORED_PIXEL])
        pasted = np.zeros(IGNORED_PIXEL + 1, dtype=np.bool_)
        pasted[rng.choice(present, size=len(present) // 2, replace=False)] = True
        return _paste(first, second, pasted[second.mask])


def _paste(first: Sample, second: Sample, chosen: np.ndarray) -> Sample:
    # The first sample, the second one's pixels where `chosen` [H, W] bool is True; the three of one size.
    assert first.mask is not None
    assert second.mask is not None
    if not chosen.any():
        return first
    return replace(
        first,
        image=np.where(chosen[:, :, None], second.image, first.image),
        mask=np.where(chosen, second.mask, first.mask),
        path=f"{first.path} mixed with {second.path}",
    )


def _box(size: Size, share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    # Rows and columns of a box with 1 - share of the area; its centre is a pixel of the image.
    assert 0 <= share <= 1, f"lambda {share} is outside [0, 1]"
    slices = []
    for side in size:
        length = int(side * math.sqrt(1 - share) + 0.5)
        start = int(rng.integers(side)) - length // 2
        slices.append(slice(max(0, start), min(side, start + length)))
    return slices[0], slices[1]


def _covering(sample: Sample, size: Size, step: str, interpolation: str) -> Sample:
    # The middle of the sample, as large as a window of the wanted size's aspect can be, brought to that size.
    height, width = sample.image.shape[:2]
    ratio = max(size[0] / height, size[1] / width)
    rows, columns = (max(1, min(side, round(wanted / ratio))) for side, wanted in zip((height, width), size))
    top, left = (height - rows) // 2, (width - columns) // 2
    assert sample.mask is not None
    window = replace(
        sample,
        image=sample.image[top : top + rows, left : left + columns],
        mask=sample.mask[top : top + rows, left : left + columns],
    )
    return resize_sample(window, size, step, interpolation=interpolation)


def _partner(rng: np.random.Generator, index: int, length: int, p: float) -> int | None:
    if length < 2 or rng.random() >= p:
        return None
    partner = int(rng.integers(length - 1))
    return partner + (partner >= index)  # skips the image itself


def _check(step: str, first: Sample, second: Sample) -> None:
    for sample in (first, second):
        if fitting_mask(sample, step) is None:
            raise UserError(f"{step}: {sample.path} has no mask: for detection mix with BoxMixup")
        if len(sample.boxes):
            raise UserError(f"{step}: {sample.path} has boxes, which would not be true any more: give only masks")


def _problems(p: float, interpolation: str, last_epochs_without: float) -> list[str]:
    problems = interpolation_problems(interpolation)
    if not (is_number(p) and 0 < p <= 1):
        problems.append(f"p={p!r} must be above 0, up to 1")
    if not (is_number(last_epochs_without) and 0 <= last_epochs_without < math.inf):
        problems.append(f"last_epochs_without={last_epochs_without!r} must be a number of epochs, 0 or more")
    return problems
