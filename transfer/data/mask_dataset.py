"""A segmentation dataset: photographs, and for each a mask that a source gives (mask files, polygons).

The formats' classes differ only in how they find the files and in the source. Blocks of text and flat arrays, not one
object per image: see texts.py.

A photograph that EXIF turns is decoded to the orientation whose size is the mask's, as image.py describes; the mask is
never turned. Where both orientations have that size (a square, or a half turn), the displayed one is taken.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from transfer.data.image import BrokenSample, image_header, read_image
from transfer.data.masks import BrokenMask, MaskCoding, mask_size, read_mask
from transfer.data.texts import Texts, packed_ids
from transfer.types import MaskRecord, Sample, Size, UserError

MOST_CLASSES = 255
"""Labels are uint8, and 255 is the ignored pixel."""


class MaskSource(Protocol):
    """Where the masks of a data set come from, by position."""

    def path(self, index: int) -> str | None:
        """The mask's file, or None where it is drawn."""
        ...

    def size(self, index: int) -> Size:
        """Of the mask, without decoding it. Raises: BrokenMask."""
        ...

    def read(self, index: int) -> np.ndarray:
        """[H, W] uint8. Raises: BrokenMask."""
        ...


class MaskFiles:
    """One mask file for each image.

    Args:
        paths: of the files.
        coding: what their pixels mean.
    """

    def __init__(self, paths: Sequence[str], coding: MaskCoding) -> None:
        self.paths = Texts(paths)
        self.coding = coding

    def path(self, index: int) -> str:
        """The mask's file."""
        return self.paths[index]

    def size(self, index: int) -> Size:
        """As stored, from the file's header. Raises: BrokenMask."""
        return mask_size(self.paths[index])

    def read(self, index: int) -> np.ndarray:
        """[H, W] uint8. Raises: BrokenMask."""
        return read_mask(self.paths[index], self.coding)


class MaskDataset:
    """Images with a class for each pixel."""

    def __init__(
        self,
        paths: Sequence[str],
        image_ids: Sequence[int | str],
        source: MaskSource,
        class_names: Sequence[str],
        *,
        skipped: Sequence[str] = (),
    ) -> None:
        """Keep what the format found.

        Args:
            paths: of the photographs.
            image_ids: of each, unique.
            source: of the masks, in the same order.
            class_names: of the labels, at most 255.
            skipped: what was left out because on_broken="skip", one line each.

        Raises:
            UserError: too many classes.
        """
        if len(class_names) > MOST_CLASSES:
            raise UserError(f"{len(class_names)} classes: a mask has room for {MOST_CLASSES}")
        self.paths = Texts(paths)
        self.image_ids = packed_ids(image_ids)
        self.source = source
        self.class_names = tuple(class_names)
        self.skipped = list(skipped)

    def __len__(self) -> int:
        return len(self.paths)

    def record(self, index: int) -> MaskRecord:
        """Path and size without decoding pixels; the size is that of the mask, which the image is turned to fit.

        Raises:
            BrokenSample: neither the mask's header nor the image's can be read.
            IndexError: no such image.
        """
        index = self._position(index)
        try:
            size = self.source.size(index)
        except BrokenMask:  # the image may still be sound: its path is wanted to name the fault
            size = image_header(self.paths[index]).size
        return MaskRecord(self.paths[index], self.image_ids[index], size, self.source.path(index))

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8: 0..K-1 or IGNORED_PIXEL. The image is not opened.

        Raises:
            BrokenMask: the mask cannot be read, or has values that stand for no class.
            IndexError: no such image.
        """
        return self.source.read(self._position(index))

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its `mask`, and no boxes.

        Raises:
            BrokenSample: the image or the mask cannot be decoded, or their sizes differ.
            IndexError: no such image.
        """
        index = self._position(index)
        mask = self.source.read(index)
        height, width = mask.shape
        return Sample(
            image=self._image(index, (height, width)),
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            difficult=np.zeros(0, bool),
            weights=np.zeros(0, np.float32),
            index=index,
            image_id=self.image_ids[index],
            path=self.paths[index],
            original_size=(height, width),
            mask=mask,
        )

    def _image(self, index: int, size: Size) -> np.ndarray:
        """The photograph in the orientation that has the mask's size."""
        path = self.paths[index]
        try:
            return read_image(path, size=size)
        except BrokenSample:
            header = image_header(path)  # says itself what is wrong, if it is the file
            if size in (header.size, header.stored_size):
                raise
            raise other_size(path, header.size, self.source.path(index), size) from None

    def _position(self, index: int) -> int:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a dataset of {len(self)}")
        return index % len(self)


def other_size(path: str, size: Size, mask_path: str | None, mask_size: Size) -> BrokenSample:
    """The error that an image and its mask do not fit.

    Args:
        path: of the image.
        size: of the image as displayed.
        mask_path: of the mask, None where it is drawn.
        mask_size: of the mask.
    """
    mask = f"its mask {mask_path}" if mask_path else "its annotation"
    reason = f"is {size[1]}x{size[0]}, but {mask} is {mask_size[1]}x{mask_size[0]} (width x height)"
    remedy = "Export the mask in the image's size, without smoothing (in training, loader.on_broken=skip leaves it out)"
    return BrokenSample(f"{path}: {reason}. {remedy}", path=path, reason=reason)
