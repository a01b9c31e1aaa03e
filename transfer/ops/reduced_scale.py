"""Photographs read at a half, a quarter or an eighth of their scale, where training needs no more pixels.

A JPEG keeps blocks of 8x8 pixels as frequencies, of which the low ones alone give 4x4, 2x2 or 1x1 pixels, about the
means of those they stand for (libjpeg's scaled inverse transform): half the time and a quarter of the memory or less.
Who reads samples opens `reduced_scale`, `read_image` asks it, and `fit` brings boxes and mask to the smaller image.
Data sets need not know of it, as long as a sample is one photograph with its truth in original pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import numpy as np

from transfer.types import Sample, Size, UserError

LEAST = 32
"""Smallest short side that may be asked for, pixels."""
_FACTORS = (8, 4, 2)


@dataclass(frozen=True)
class Reduction:
    """How a photograph was read."""

    factor: int
    """Pixels of the original a pixel, along each side; 1: as it is."""
    size: Size
    """(height, width) of what was read, as displayed."""
    shift: tuple[float, float] = (0.0, 0.0)
    """(x, y): where the original's corner lies in it, pixels. A side that is no multiple of the factor ends in a pixel
    that reaches beyond the stored original; turned by EXIF, that pixel may be the first."""


@dataclass
class Readings:
    """The photographs that were read within `reduced_scale`."""

    at_least: int
    """Their short side keeps so many pixels."""
    done: list[Reduction] = field(default_factory=list)

    def fit(self, sample: Sample) -> Sample:
        """The sample with boxes and mask of the image as it was read.

        Args:
            sample: with truth in original pixels.
        Raises:
            UserError: it was made of several photographs, or of one that was changed.
        """
        if all(each.factor == 1 for each in self.done):
            return sample
        reduction = self.done[0]
        if len(self.done) > 1 or sample.image.shape[:2] != reduction.size:
            raise UserError(
                f"{sample.path}: loader.decode_at_least is for data sets whose samples are one photograph each, as it "
                "was read: leave it out"
            )
        factor, (x, y) = reduction.factor, reduction.shift
        boxes = (sample.boxes.astype(np.float64) / factor + (x, y, x, y)).astype(np.float32)
        mask = sample.mask
        if mask is not None:
            rows, columns = (
                np.clip(((np.arange(side) + 0.5 - moved) * factor).astype(np.int64), 0, length - 1)
                for side, moved, length in zip(reduction.size, (y, x), mask.shape, strict=True)
            )
            mask = mask[np.ix_(rows, columns)]
        scale = (sample.scale[0] / factor, sample.scale[1] / factor)
        return replace(sample, boxes=boxes, mask=mask, scale=scale)


_READINGS: ContextVar[Readings | None] = ContextVar("photographs read at a reduced scale", default=None)


@contextmanager
def reduced_scale(at_least: int) -> Iterator[Readings]:
    """Let photographs be read smaller.

    Args:
        at_least: pixels that their short side keeps.
    """
    readings = Readings(at_least)
    token = _READINGS.set(readings)
    try:
        yield readings
    finally:
        _READINGS.reset(token)


def factor_for(size: Size) -> int:
    """Pixels of the original a pixel: 1, 2, 4 or 8; 1 outside `reduced_scale`.

    Args:
        size: (height, width) of the original.
    """
    readings = _READINGS.get()
    if readings is None:
        return 1
    return next((factor for factor in _FACTORS if min(size) // factor >= readings.at_least), 1)


def note(reduction: Reduction) -> None:
    """Tell who opened `reduced_scale` how a photograph was read."""
    readings = _READINGS.get()
    if readings is not None:
        readings.done.append(reduction)
