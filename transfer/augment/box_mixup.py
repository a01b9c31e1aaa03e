"""Mixup that keeps geometry: two images blended on one canvas, the boxes of both kept with their image's share.

Source: Zhang et al. 2019, Bag of Freebies, arXiv 1902.04103 (visually coherent mixup; Beta(1.5, 1.5) was best for
YOLOv3), with the canvas of GluonCV: as high and as wide as the larger image, both images in the top-left
corner, nothing resized, zero where neither reaches. Pixels are lambda * first + (1 - lambda) * second; a box's weight
is lambda or 1 - lambda, and the heads multiply the losses of its positives by it. It comes before every other step of
the augmentation, and is off for the last epochs, so that training ends on images as they are in testing.

Deviations: GluonCV cuts a blended pixel's fraction off, which darkens; here it is rounded. GluonCV's Faster R-CNN mixes
evenly (lambda 0.5), ignores the boxes' weights and halves the loss; here the heads use the weights. A share of zero, or
an image drawn with itself, gives the one image as it is: no larger canvas, no boxes without a weight.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from transfer.augment.placing import refuse_mask
from transfer.types import Mix, Request, Sample, UserError, is_number


class BoxMixup:
    """Draws the second image and lambda for a request, and mixes the two decoded samples."""

    def __init__(self, alpha: float | None = 1.5, *, even: bool = False, last_epochs_without: float = 0.0) -> None:
        """Set the shares.

        Args:
            alpha: lambda is drawn from Beta(alpha, alpha), above 0; None needs `even`.
            even: lambda is always 0.5, whatever `alpha` is.
            last_epochs_without: epochs at the end of the run in which nothing is mixed, 0 or more. A run that is not
                longer than that is refused.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = []
        if not isinstance(even, bool):
            problems.append(f"even={even!r} must be True or False")
        if not (is_number(alpha) and 0 < alpha < math.inf) and not (alpha is None and even):  # type: ignore[operator]
            problems.append(f"alpha={alpha!r} must be a number above 0 (1.5 in the paper), or give even=True")
        if not (is_number(last_epochs_without) and 0 <= last_epochs_without < math.inf):
            problems.append(f"last_epochs_without={last_epochs_without!r} must be a number of epochs, 0 or more")
        if problems:
            raise UserError("BoxMixup: " + "; ".join(problems))
        self.alpha = alpha
        self.even = even
        self.last_epochs_without = last_epochs_without

    def draw(self, rng: np.random.Generator, index: int, length: int) -> Mix | None:
        """The second image of a pair: any other one, each as likely.

        Args:
            rng: the only source of randomness.
            index: the first image, in [0, length).
            length: images in the data set.

        Returns:
            Partner and lambda; None where there is no other image.
        """
        if length < 2:
            return None
        partner = int(rng.integers(length - 1))
        partner += partner >= index  # skips the image itself
        if self.even or self.alpha is None:
            return Mix(partner, 0.5)
        return Mix(partner, float(rng.beta(self.alpha, self.alpha)))

    def combine(self, first: Sample, second: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The mixed sample; draws nothing, so mixing does not move the augmentation's draws.

        Args:
            first: the request's image; stays as it is.
            second: its partner; stays as it is.
            request: its `mix.weight` is lambda, the share of `first`, in [0, 1].
            rng: not used.

        Returns:
            The first image's boxes, then the second's. `index` and `image_id` are the first one's, `path` names both,
            and `original_size` is the canvas. Where one has no share: the other sample, as it is.

        Raises:
            UserError: when a sample has a mask: the blend of two classes is no class.
        """
        for sample in (first, second):
            refuse_mask(sample, "BoxMixup")
        assert request.mix is not None, "the batches drew no pair"
        # float32, as weights are kept: a share that is zero there is none.
        shares = np.float32(request.mix.weight), np.float32(1 - request.mix.weight)
        assert min(shares) >= 0, f"lambda {request.mix.weight} is outside [0, 1]"
        # An image meets itself where a partner that cannot be read was replaced by it.
        if shares[1] == 0 or first.index == second.index:
            return first
        if shares[0] == 0:
            return second
        image = _blend(first.image, second.image, shares)
        return replace(
            first,
            image=image,
            boxes=np.concatenate([first.boxes, second.boxes]),
            labels=np.concatenate([first.labels, second.labels]),
            difficult=np.concatenate([first.difficult, second.difficult]),
            weights=np.concatenate([first.weights * shares[0], second.weights * shares[1]]),
            path=f"{first.path} mixed with {second.path}",
            original_size=image.shape[:2],
            dropped=dict(Counter(first.dropped) + Counter(second.dropped)),
        )


def _blend(first: np.ndarray, second: np.ndarray, shares: tuple[np.float32, np.float32]) -> np.ndarray:
    # Both [h, w, 3] uint8 -> [max h, max w, 3] uint8
    height, width = (max(sides) for sides in zip(first.shape[:2], second.shape[:2]))
    canvas = np.zeros((height, width, 3), dtype=np.float32)
    for image, share in zip((first, second), shares, strict=True):
        canvas[: image.shape[0], : image.shape[1]] += np.multiply(image, share, dtype=np.float32)
    return np.rint(canvas, out=canvas).astype(np.uint8)
