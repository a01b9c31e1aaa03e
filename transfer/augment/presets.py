"""The augmentations of the published recipes, as pipelines.

Sources: Faster R-CNN (Ren et al. 2015, section 3.3; GluonCV's VOC recipe: short side 600, long side at most 1000, flip
only); YOLOv3 in the form of Zhang et al. 2019, Bag of Freebies, arXiv 1902.04103 (colour, expand, crop, resize, flip);
FCN on ADE20K as in He et al. 2018, Bag of Tricks, arXiv 1812.01187, section 6.2, and GluonCV (scale, crop, flip, blur;
no colour).

Deviation: one_stage_train keeps the one interpolation it is given, where GluonCV draws one at random. Test presets drop
and clip no box, and set `sample.scale`, so boxes / (scale_x, scale_y) are boxes of the original image.
segmentation_test leaves the mask as it is: predictions are measured in original pixels.
"""

from __future__ import annotations

import sys

from transfer.augment.albumentations_step import GaussianBlur
from transfer.augment.color_jitter import ColorJitter
from transfer.augment.geometry import IMAGENET_MEAN, CropWithBoxes, Expand, HorizontalFlip
from transfer.augment.mask_geometry import RandomCropWithMask, RandomScale
from transfer.augment.pipeline import Augment, Pipeline
from transfer.augment.placing import FilterBoxes
from transfer.augment.resizing import LetterboxTo, ResizeBy, ResizeShortSide, ResizeTo
from transfer.types import Size, UserError


def two_stage_train(
    short: int = 600, long_max: int = 1000, *, flip: float = 0.5, interpolation: str = "bilinear"
) -> Pipeline:
    """Flip and resize by the short side, in this order: at the usual sizes there are fewer pixels to flip before.

    Args:
        short: length of the short side, pixels.
        long_max: greatest length of the long side, pixels.
        flip: probability of the mirrored image.
        interpolation: nearest, bilinear, bicubic, area or lanczos.
    """
    return Pipeline([HorizontalFlip(flip), ResizeShortSide(short, long_max, interpolation=interpolation)])


def two_stage_test(short: int = 600, long_max: int = 1000, *, interpolation: str = "bilinear") -> Pipeline:
    """Resize by the short side.

    Args:
        short: length of the short side, pixels.
        long_max: greatest length of the long side, pixels.
        interpolation: nearest, bilinear, bicubic, area or lanczos.
    """
    return Pipeline([ResizeShortSide(short, long_max, interpolation=interpolation, min_side=None)])


def square_train(
    size: int | Size | None = None, *, flip: float = 0.5, keep_aspect: bool = False, interpolation: str = "bilinear"
) -> Pipeline:
    """Resize to one shape and flip.

    Args:
        size: side of a square or (height, width), pixels, where the batches have no shape of their own.
        flip: probability of the mirrored image.
        keep_aspect: fit the image into the shape and let collate pad the rest; otherwise squash it.
        interpolation: nearest, bilinear, bicubic, area or lanczos.
    """
    resize = LetterboxTo if keep_aspect else ResizeTo
    return Pipeline([resize(size, interpolation=interpolation), HorizontalFlip(flip)])


def one_stage_train(
    size: int | Size | None = 416,
    *,
    colour: bool = True,
    expand: float = 0.5,
    expand_ratio: float = 4.0,
    crop: float = 1.0,
    flip: float = 0.5,
    fill: tuple[int, int, int] = IMAGENET_MEAN,
    interpolation: str = "bilinear",
) -> Pipeline:
    """Colour, expand, crop, resize to one shape (squashed) and flip; each part can be switched off by its own argument.

    Args:
        size: side of a square or (height, width), pixels, where the batches have no shape of their own.
        colour: jitter brightness, contrast, saturation and hue.
        expand: probability of a larger canvas.
        expand_ratio: greatest side of the canvas in sides of the image.
        crop: probability of the random crop.
        flip: probability of the mirrored image.
        fill: RGB of the larger canvas, 0..255; ImageNet's mean by default.
        interpolation: nearest, bilinear, bicubic, area or lanczos.
    """
    steps: list[Augment] = [FilterBoxes()]  # first: a box without area must not steer the crop
    if colour:
        steps.append(ColorJitter())
    if expand:
        steps.append(Expand(expand_ratio, fill=fill, p=expand))
    if crop:
        steps.append(CropWithBoxes(p=crop))
    steps += [ResizeTo(size, interpolation=interpolation), HorizontalFlip(flip)]
    return Pipeline(steps)


def square_test(
    size: int | Size | None = None, *, keep_aspect: bool = False, interpolation: str = "bilinear"
) -> Pipeline:
    """Resize to one shape.

    Args:
        size: side of a square or (height, width), pixels, where the batches have no shape of their own.
        keep_aspect: fit the image into the shape and let collate pad the rest; otherwise squash it.
        interpolation: nearest, bilinear, bicubic, area or lanczos.
    """
    resize = LetterboxTo if keep_aspect else ResizeTo
    return Pipeline([resize(size, interpolation=interpolation, min_side=None)])


def segmentation_train(
    base: int = 520,
    crop: int | Size | None = 480,
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
    blur: float = 0.5,
    colour: bool = False,
    category_max_ratio: float | None = None,
    fill: tuple[int, int, int] = IMAGENET_MEAN,
    interpolation: str = "bilinear",
) -> Pipeline:
    """Scale, crop to one shape, flip, blur and colour; each part can be switched off by its own argument.

    Args:
        base: length of the long side at scale 1, pixels.
        crop: side of a square or (height, width), pixels, where the batches have no shape of their own. A smaller image
            is padded at the right and bottom, by `fill` and ignored pixels.
        scale: range of the factor on `base`; (1, 1) for none.
        flip: probability of the mirrored image.
        blur: probability of a Gaussian blur.
        colour: jitter brightness, contrast, saturation and hue.
        category_max_ratio: greatest share of one class in a crop, in (0, 1]; None: any crop will do.
        fill: RGB of the padding, 0..255; ImageNet's mean by default.
        interpolation: of the image: nearest, bilinear, bicubic, area or lanczos.
    """
    steps: list[Augment] = [
        RandomScale(base, scale, interpolation=interpolation),
        RandomCropWithMask(crop, category_max_ratio=category_max_ratio, fill=fill),
        HorizontalFlip(flip),
    ]
    if blur:
        steps.append(GaussianBlur(blur))
    if colour:
        steps.append(ColorJitter())
    return Pipeline(steps)


def segmentation_test(
    size: int | Size | None = None,
    *,
    short: int | None = None,
    long: int | None = None,
    factor: float = 1.0,
    interpolation: str = "bilinear",
) -> Pipeline:
    """The whole image, at its own size or resized; collate pads it as the network needs.

    Args:
        size: side of a square or (height, width), pixels: squash the image to it.
        short: length of the short side, pixels, keeping the aspect.
        long: length of the long side, pixels, keeping the aspect; with `short`, the long side's greatest length.
        factor: of both sides, where no length is given: what testing at several scales sets.
        interpolation: nearest, bilinear, bicubic, area or lanczos.

    Raises:
        UserError: when `size` is given together with a side, or a length with a factor.
    """
    if size is not None and (short is not None or long is not None):
        raise UserError(f"segmentation_test: size={size!r} squashes the image; give it without short and long")
    if factor != 1 and (size, short, long) != (None, None, None):
        raise UserError(f"segmentation_test: factor={factor!r} is of the image's own size: give it without a length")
    if size is not None:
        return Pipeline([ResizeTo(size, interpolation=interpolation, min_side=None, mask="keep")])
    if short is None and long is None and factor == 1:
        return Pipeline([])
    if short is None and long is None:
        return Pipeline([ResizeBy(factor, interpolation=interpolation, min_side=None, mask="keep")])
    greatest = sys.maxsize if long is None else long
    shortest = greatest if short is None else short  # both sides at most `long`: the long one gets there first
    return Pipeline([ResizeShortSide(shortest, greatest, interpolation=interpolation, min_side=None, mask="keep")])
