"""Mixing of a batch of classification images with one another: mixup, CutMix, RICAP.

Sources: Zhang et al. 2018, mixup, arXiv 1710.09412, and He et al. 2018, Bag of Tricks, arXiv 1812.01187, section 5.4
(lambda from Beta(0.2, 0.2)); Yun et al. 2019, CutMix, arXiv 1905.04899, section 3.1 (a box with 1 - lambda of the area
and the image's aspect, its centre anywhere, cut off at the edges, lambda then taken from its true area); Takahashi et
al. 2018, RICAP, arXiv 1811.09030, section 3 (four random crops around a boundary point from Beta(0.3, 0.3)).

A mixing is called where samples become a batch, with the batch's own generator: (images, targets, rng) -> the same, new
objects. It knows no number of classes: a target then holds several `classes` with their `shares`, and the loss makes
of them what it will. Partners come from a random permutation of the batch, as in the papers' code; an image that meets
itself stays as it is. Mixed images can be mixed again.

Rounding: images stay uint8. CutMix and RICAP copy pixels; mixup rounds a blended pixel to the nearest grey level, an
error of at most a half (and of float32), where the papers blend after normalisation. A share of zero, or a lambda of 1,
gives the one image itself, exactly, with its own target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol, get_args, runtime_checkable

import cv2
import numpy as np
import torch
from torch import Tensor

from transfer.types import Size, Target, UserError, is_number

Per = Literal["batch", "image"]
"""Whether what is random (lambda, box, boundary) is drawn once a batch, as in the papers, or for each image."""

Part = tuple[Target, np.float32]
"""An image and its share of a mixed one."""


@runtime_checkable
class ImageMixing(Protocol):
    """What every mixing of a batch offers."""

    last_epochs_without: float
    """Epochs at the end of the run in which nothing is mixed."""

    def __call__(self, images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
        """The mixed batch.

        Args:
            images: [B, 3, H, W] uint8, without padding; stays as it is.
            targets: B, with `classes` and `shares`; stay as they are.
            rng: the only source of randomness.

        Returns:
            [B, 3, H, W] uint8 and B targets. `index`, `image_id` and what else is one image's are the first part's,
            `path` names all.

        Raises:
            UserError: when an image is padded, or has no class, or has boxes or a mask.
        """
        ...


class ImageMixup:
    """Blends each image with another one of the batch."""

    def __init__(
        self, alpha: float = 0.2, *, per: Per = "batch", p: float = 1.0, last_epochs_without: float = 0.0
    ) -> None:
        """Set the shares; the defaults are those of Bag of Tricks.

        Args:
            alpha: lambda is drawn from Beta(alpha, alpha), above 0.
            per: "batch": one lambda for all images; "image": one for each.
            p: probability that a batch (or, for each alone, an image) is mixed, in (0, 1].
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more.

        Raises:
            UserError: with every argument that does not fit.
        """
        _raise("ImageMixup", _problems("alpha", alpha, per, p, last_epochs_without))
        self.alpha = alpha
        self.per = per
        self.p = p
        self.last_epochs_without = last_epochs_without

    def __call__(self, images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
        """The blended batch, as in `ImageMixing`; shares are lambda and 1 - lambda."""
        pixels = _pixels("ImageMixup", images, targets)
        draws = _draws(self.per, targets)
        drawn = np.where(rng.random(draws) < self.p, rng.beta(self.alpha, self.alpha, draws), 1.0)
        partners = rng.permutation(len(targets))
        planes = pixels.reshape(len(targets), -1, pixels.shape[-1])  # [B, 3 * H, W]: what cv2 takes for one grey image
        blended, mixed = np.empty_like(planes), []
        for row, (partner, share) in enumerate(zip(partners, np.broadcast_to(drawn, len(targets)))):
            # float32, as shares are kept: a share that is zero there is none.
            first, second = np.float32(share), np.float32(1 - share)
            if partner == row:
                first, second = np.float32(1), np.float32(0)
            if first == 0 or second == 0:
                blended[row] = planes[row if second == 0 else partner]
            else:
                blended[row] = cv2.addWeighted(planes[row], float(share), planes[partner], float(1 - share), 0)
            mixed.append(_joined([(targets[row], first), (targets[partner], second)]))
        return torch.from_numpy(blended.reshape(pixels.shape)), mixed


class ImageCutMix:
    """Pastes a box of another image of the batch, at the same place."""

    def __init__(
        self, alpha: float = 1.0, *, per: Per = "batch", p: float = 1.0, last_epochs_without: float = 0.0
    ) -> None:
        """Set the shares; alpha is the paper's.

        Args:
            alpha: lambda, the first image's share before the box is cut at the edges, is drawn from
                Beta(alpha, alpha), above 0.
            per: "batch": one box for all images; "image": one for each.
            p: probability that a batch (or, for each alone, an image) is mixed, in (0, 1]; 0.5 in the authors' code for
                CIFAR, 1 for ImageNet.
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more.

        Raises:
            UserError: with every argument that does not fit.
        """
        _raise("ImageCutMix", _problems("alpha", alpha, per, p, last_epochs_without))
        self.alpha = alpha
        self.per = per
        self.p = p
        self.last_epochs_without = last_epochs_without

    def __call__(self, images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
        """The batch with boxes pasted in, as in `ImageMixing`; shares are those of the area."""
        pixels = _pixels("ImageCutMix", images, targets)
        height, width = pixels.shape[2:]
        draws = _draws(self.per, targets)
        drawn = np.where(rng.random(draws) < self.p, rng.beta(self.alpha, self.alpha, draws), 1.0)
        boxes = [_box((height, width), share, rng) for share in drawn]
        partners = rng.permutation(len(targets))
        pasted, mixed = pixels.copy(), []
        for row, partner in enumerate(partners):
            rows, columns = boxes[row % draws]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            share = 0.0 if partner == row else area / (height * width)
            pasted[row, :, rows, columns] = pixels[partner, :, rows, columns]
            mixed.append(_joined([(targets[row], np.float32(1 - share)), (targets[partner], np.float32(share))]))
        return torch.from_numpy(pasted), mixed


class RICAP:
    """Puts four crops of four images together around a boundary point (random image cropping and patching)."""

    def __init__(
        self, beta: float = 0.3, *, per: Per = "batch", p: float = 1.0, last_epochs_without: float = 0.0
    ) -> None:
        """Set the shares; beta is the paper's.

        Args:
            beta: both coordinates of the boundary point, in sides of the image, are drawn from Beta(beta, beta), above
                0.
            per: "batch": one boundary and four places to crop at for all images; "image": for each.
            p: probability that a batch (or, for each alone, an image) is mixed, in (0, 1].
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more.

        Raises:
            UserError: with every argument that does not fit.
        """
        _raise("RICAP", _problems("beta", beta, per, p, last_epochs_without))
        self.beta = beta
        self.per = per
        self.p = p
        self.last_epochs_without = last_epochs_without

    def __call__(self, images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
        """The patched batch, as in `ImageMixing`; shares are those of the area.

        Top left is the image itself, top right, bottom left and bottom right are others; a patch without area is left
        out. An image may give several patches, where the permutations meet.
        """
        pixels = _pixels("RICAP", images, targets)
        height, width = pixels.shape[2:]
        count, draws = len(targets), _draws(self.per, targets)
        chosen = rng.random(draws) < self.p
        high, wide = (
            np.rint(rng.beta(self.beta, self.beta, draws) * side).astype(np.int64) for side in (height, width)
        )
        # [draws, 4] in the order of the patches: their rows and columns, and where in their images they are cut out.
        rows = np.stack([high, high, height - high, height - high], axis=1)
        columns = np.stack([wide, width - wide, wide, width - wide], axis=1)
        tops, lefts = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        sources = np.stack([np.arange(count), *(rng.permutation(count) for _ in range(3))], axis=1)  # [B, 4]
        patched, mixed = pixels.copy(), []
        for row in range(count):
            draw = row % draws
            if not chosen[draw]:
                mixed.append(_joined([(targets[row], np.float32(1))]))
                continue
            parts = []
            for patch, source in enumerate(sources[row]):
                y, x = (patch // 2) * high[draw], (patch % 2) * wide[draw]
                down, along = rows[draw, patch], columns[draw, patch]
                top, left = tops[draw, patch], lefts[draw, patch]
                crop = pixels[source, :, top : top + down, left : left + along]
                patched[row, :, y : y + down, x : x + along] = crop
                parts.append((targets[source], np.float32(down * along / (height * width))))
            mixed.append(_joined(parts))
        return torch.from_numpy(patched), mixed


class OneOfMixings:
    """Mixes each batch by one of several mixings."""

    def __init__(
        self,
        mixings: Sequence[ImageMixing],
        *,
        weights: Sequence[float] | None = None,
        last_epochs_without: float = 0.0,
    ) -> None:
        """Set the choice.

        Args:
            mixings: at least one; their own `last_epochs_without` must be 0.
            weights: how often each is chosen, relative to the others, 0 or more; None: all alike.
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _epoch_problems(last_epochs_without)
        if not mixings:
            problems.append("mixings is empty: give at least one, such as ImageMixup()")
        for mixing in mixings:
            if not isinstance(mixing, ImageMixing) or isinstance(mixing, type):
                problems.append(f"{mixing!r} cannot mix a batch: give objects such as ImageMixup() and ImageCutMix()")
            elif mixing.last_epochs_without:
                problems.append(
                    f"{type(mixing).__name__} has last_epochs_without={mixing.last_epochs_without!r}, which nobody "
                    "would heed: give it to OneOfMixings"
                )
        weights = [1.0] * len(mixings) if weights is None else list(weights)
        fit = all(is_number(weight) and 0 <= weight < math.inf for weight in weights)
        if len(weights) != len(mixings) or not fit or (mixings and not any(weights)):
            problems.append(f"weights={weights!r} must be {len(mixings)} numbers, 0 or more, not all of them 0")
        _raise("OneOfMixings", problems)
        self.mixings = tuple(mixings)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self.last_epochs_without = last_epochs_without

    def __call__(self, images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
        """The batch as the chosen mixing makes it."""
        return self.mixings[rng.choice(len(self.mixings), p=self.weights)](images, targets, rng)


def _pixels(step: str, images: Tensor, targets: Sequence[Target]) -> np.ndarray:
    # The images as numpy, [B, 3, H, W] uint8, once their targets are seen to be fit for mixing.
    assert images.dtype == torch.uint8, f"images are {images.dtype}, not uint8"
    assert images.ndim == 4, f"images are {tuple(images.shape)}, not [B, 3, H, W]"
    assert len(images) == len(targets), f"{len(images)} images, {len(targets)} targets"
    size = (images.shape[2], images.shape[3])
    for target in targets:
        if target.classes is None or target.shares is None or len(target.boxes) or target.mask is not None:
            raise UserError(
                f"{step}: {target.path} is not of a classification data set (one class, no boxes, no mask). Detection "
                "mixes with BoxMixup, segmentation with MaskCutMix"
            )
        if tuple(target.size) != size:
            raise UserError(
                f"{step}: {target.path} fills {target.size} of the batch's {size}, the rest is padding, which would be "
                "mixed in: let the augmentation end with RandomResizedCrop(size) or ResizeTo(size)"
            )
    return images.contiguous().numpy()


def _draws(per: Per, targets: Sequence[Target]) -> int:
    return 1 if per == "batch" else len(targets)


def _joined(parts: Sequence[Part]) -> Target:
    # The target of an image made of others, without those that have no share in it; one alone gives its own target.
    parts = [(target, share) for target, share in parts if share > 0]
    if len(parts) == 1:
        return replace(parts[0][0])
    classes, shares = [], []
    for target, share in parts:
        assert target.classes is not None
        assert target.shares is not None
        classes.append(target.classes)
        shares.append(target.shares * float(share))
    path = " mixed with ".join(target.path for target, _ in parts)
    return replace(parts[0][0], classes=torch.cat(classes), shares=torch.cat(shares), path=path)


def _box(size: Size, share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    # Rows and columns of a box with 1 - share of the area before it is cut at the edges; its centre is a pixel.
    slices = []
    for side in size:
        length = int(side * math.sqrt(1 - share) + 0.5)
        start = int(rng.integers(side)) - length // 2
        slices.append(slice(max(0, start), min(side, start + length)))
    return slices[0], slices[1]


def _problems(shape: str, value: float, per: str, p: float, last_epochs_without: float) -> list[str]:
    problems = []
    if not (is_number(value) and 0 < value < math.inf):
        problems.append(f"{shape}={value!r} must be a number above 0")
    if per not in get_args(Per):
        problems.append(f"per={per!r} is neither 'batch' nor 'image'")
    if not (is_number(p) and 0 < p <= 1):
        problems.append(f"p={p!r} must be above 0, up to 1")
    return problems + _epoch_problems(last_epochs_without)


def _epoch_problems(last_epochs_without: float) -> list[str]:
    if is_number(last_epochs_without) and 0 <= last_epochs_without < math.inf:
        return []
    return [f"last_epochs_without={last_epochs_without!r} must be a number of epochs, 0 or more"]


def _raise(step: str, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{step}: " + "; ".join(problems))
