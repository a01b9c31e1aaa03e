"""torchvision v2's transforms in the work of this project's training pipelines, as their users would write them.

The steps and their order are those of torchvision's own training references (detection "ssd", classification,
segmentation), with this project's ranges; images stay uint8 to the end, and resizing averages as it does by default.
Each pipeline is given either tensors (`decode_jpeg`, transforms on uint8 tensors) or Pillow's images, the two ways that
the references have; which is quicker depends on the step, so the benchmark takes the quicker one.

What differs from the pipelines here: torchvision's resizing averages where it shrinks; its crop with boxes draws 40
trials, again and again, until one is valid, where here 50 are drawn once; its colour jitter passes over the image for
each change, by way of HSV for the hue, where here all changes are one matrix; its blur has a fixed kernel of five
pixels, where here it follows from the width. Shapes, ranges and probabilities are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_jpeg, decode_png, read_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from transfer.augment.geometry import IMAGENET_MEAN
from transfer.types import IGNORED_PIXEL

Backend = Literal["tensor", "pillow"]
Truth = dict[str, Any]

JITTER = (0.4, 0.4, 0.4, 0.1)
"""Brightness, contrast, saturation and hue."""


def one_stage(size: int) -> v2.Transform:
    """Colour, zoom out, crop with boxes, resize, flip: the reference's "ssd", its colour step without its own coins."""
    return v2.Compose(
        [
            v2.ColorJitter(*JITTER),
            v2.RandomZoomOut(fill={tv_tensors.Image: list(IMAGENET_MEAN), "others": list(IMAGENET_MEAN)}, p=0.5),
            v2.RandomIoUCrop(),
            v2.Resize((size, size)),
            v2.RandomHorizontalFlip(0.5),
            v2.SanitizeBoundingBoxes(),
        ]
    )


def two_stage(short: int, long_max: int) -> v2.Transform:
    """Flip, then resize by the short side."""
    return v2.Compose([v2.RandomHorizontalFlip(0.5), v2.Resize(short, max_size=long_max)])


def classification(size: int) -> v2.Transform:
    """Random resized crop, flip, colour without hue."""
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(0.5), v2.ColorJitter(*JITTER[:3])])


class RandomLongSide(torch.nn.Module):
    """Resizes the long side to a random length around `base`; torchvision has this for short sides only."""

    def __init__(self, base: int, low: float, high: float) -> None:
        super().__init__()
        self.base, self.low, self.high = base, low, high

    def forward(self, image: Any, mask: tv_tensors.Mask) -> tuple[Any, Any]:
        """Image and mask, resized."""
        height, width = functional.get_size(image)
        ratio = self.base * float(torch.empty(1).uniform_(self.low, self.high)) / max(height, width)
        size = [round(height * ratio), round(width * ratio)]
        return functional.resize(image, size), functional.resize(mask, size)


def segmentation(base: int, crop: int) -> v2.Transform:
    """Scale, crop with padding at the right and bottom, flip, blur, colour."""
    blur = v2.GaussianBlur(5, (0.1, 1.0))
    # `pad_if_needed` would pad both sides, and for a mask with one value of all four: the same cost
    fill = {tv_tensors.Mask: IGNORED_PIXEL, "others": list(IMAGENET_MEAN)}
    return v2.Compose(
        [
            RandomLongSide(base, 0.5, 2.0),
            v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([blur], p=0.5),
            v2.ColorJitter(*JITTER),
        ]
    )


class TorchvisionImages(Dataset[Any]):
    """JPEG files, decoded and transformed."""

    def __init__(
        self, paths: Sequence[str], truths: Sequence[Truth], transform: v2.Transform, backend: Backend
    ) -> None:
        """Keep what is to be read.

        Args:
            paths: of the images.
            truths: of each: "boxes" [N, 4] and "labels" [N], or "label", or "mask" (a path).
            transform: of image and truth.
            backend: what the transforms work on.
        """
        self.paths = paths
        self.truths = truths
        self.transform = transform
        self.backend = backend

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """[3, H, W] uint8 and the truth that moved with it."""
        image, truth = self._image(index), self.truths[index]
        if "boxes" in truth:
            size = functional.get_size(image)
            boxes = tv_tensors.BoundingBoxes(truth["boxes"], format="XYXY", canvas_size=tuple(size))
            moved, target = self.transform(image, {"boxes": boxes, "labels": truth["labels"]})
        elif "mask" in truth:
            mask = tv_tensors.Mask(decode_png(read_file(truth["mask"]), mode=ImageReadMode.UNCHANGED))
            moved, target = self.transform(image, mask)
        else:
            moved, target = self.transform(image), truth["label"]
        return functional.pil_to_tensor(moved) if self.backend == "pillow" else moved.as_subclass(Tensor), target

    def _image(self, index: int) -> Any:
        if self.backend == "tensor":
            return tv_tensors.Image(decode_jpeg(read_file(self.paths[index]), mode=ImageReadMode.RGB))
        from PIL import Image

        return Image.open(self.paths[index]).convert("RGB")


def stacked(items: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, list[Any]]:
    """Images of one shape as [B, 3, H, W]."""
    return torch.stack([image for image, _ in items]), [target for _, target in items]


def padded(items: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, list[Any]]:
    """Images of several shapes in one tensor, sides rounded up to 32, as torchvision's detectors batch them."""
    height, width = (max(image.shape[side] for image, _ in items) for side in (1, 2))
    images = torch.zeros(len(items), 3, -height % 32 + height, -width % 32 + width, dtype=torch.uint8)
    for place, (image, _) in zip(images, items, strict=True):
        place[:, : image.shape[1], : image.shape[2]].copy_(image)
    return images, [target for _, target in items]


def loader(images: TorchvisionImages, collate: Callable[..., Any], batches: list[list[int]]) -> DataLoader[Any]:
    """The batches of an epoch, made in this process."""
    return DataLoader(images, batch_sampler=batches, collate_fn=collate)
