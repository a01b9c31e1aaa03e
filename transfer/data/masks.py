"""Reads a mask file: every pixel's class as a number, from what the file holds and a table of what that means.

No paper: this is what makes masks of any kind one kind of array. PNG, TIFF, BMP and GIF (first picture) are known, by
content. What a pixel's value is:

- Palette: the index, whatever the palette shows and whatever is transparent in it. With a colour table: its colour.
- Grey of 8, 16 or 32 bits: the value. Grey saved as RGB (three equal channels) counts as grey.
- Black and white (1 bit): 0 and 1; where 1 has no class and 255 has one, white is 255, as a program that shrinks files
  makes it of a mask of 0 and 255.
- RGB: the colour, which needs a colour table. With one, grey v is the colour (v, v, v).
- An alpha channel is taken off where nothing is transparent; otherwise the file is refused: programs differ in the
  colour that they leave below.

Refused, since nothing tells what is meant: grey of 2 or 4 bits (tools read 5 of 15 as 5 or as 85), colours of 16 bits a
channel (Pillow keeps the upper byte alone), floats, and JPEG, whose compression makes values that nobody drew.

The size is bounded before any pixel is decoded, as in image.py; check sums of a PNG are compared. EXIF orientation is
not applied: truth is read as stored, and the photograph is turned to fit it (mask_dataset.py).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

import cv2
import numpy as np
from PIL import Image

from transfer.data.image import BrokenSample, check_file, pixel_limit, read_bytes
from transfer.types import IGNORED_PIXEL, Size, UserError

Colour = tuple[int, int, int]
"""Red, green, blue, each 0..255."""

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
"""Names (in any case) that datasets take for masks; which of two files of one stem is meant follows this order."""

LARGEST_VALUE = 65535
"""Of a pixel that can have a class."""

_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_SHOWN = 8
_PNG_GREY, _PNG_PALETTE = 0, 3
_TIFF_BITS = 258
_REMEDY = (
    "Mend the file or what the data set says of its values (in training, loader.on_broken=skip leaves such files out)"
)


class BrokenMask(BrokenSample):
    """A mask that cannot be used; `path` names its file."""


class UnknownValues(BrokenMask):
    """A mask with values that stand for no class.

    `counts` says how many pixels have which value or colour, most frequent first; `labels` is the mask with these
    pixels ignored.
    """

    def __init__(self, message: str, *, path: str, reason: str, counts: Mapping[int | Colour, int], labels: np.ndarray):
        super().__init__(message, path=path, reason=reason)
        self.counts = dict(counts)
        self.labels = labels


def broken_mask(path: str | Path, reason: str) -> BrokenMask:
    """The error that a mask file cannot be used."""
    return BrokenMask(f"{path}: {reason}. {_REMEDY}", path=str(path), reason=reason)


class MaskCoding(Protocol):
    """What the pixels of a mask file mean."""

    def labels(self, image: Image.Image) -> tuple[np.ndarray, dict[int | Colour, int]]:
        """[H, W] uint8 labels, ignored where a value is unknown, and how many pixels have which unknown value."""
        ...

    def describe(self) -> str:
        """The known values, for messages."""
        ...


class ValueCoding:
    """Numbers stand for classes.

    Args:
        labels: value in the file, 0..65535 -> label, or IGNORED_PIXEL.
    """

    def __init__(self, labels: Mapping[int, int]) -> None:
        self._labels = dict(labels)

    def labels(self, image: Image.Image) -> tuple[np.ndarray, dict[int | Colour, int]]:
        """As `MaskCoding`.

        Raises:
            ValueError: pixels that are no numbers.
        """
        values = _numbers(image)
        if image.mode == "1" and 1 not in self._labels and 255 in self._labels:
            values = values * np.uint8(255)
        if values.dtype != np.uint8:  # brought into the table: what is below or above it has no class
            size = max(self._labels, default=0) + 2
            values = np.where((values < 0) | (values >= size), size - 1, values)
            labels, unknown = (table[values] for table in self._tables(size))
        else:
            labels, unknown = (cv2.LUT(values, table) for table in self._tables(256))
        if not unknown.any():
            return labels, {}
        found, counts = np.unique(_numbers(image)[unknown > 0], return_counts=True)
        return labels, {int(value): int(count) for value, count in zip(found, counts)}

    def _tables(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """[size] uint8 each: the label of a value, and 1 where it has none."""
        labels, unknown = np.full(size, IGNORED_PIXEL, np.uint8), np.ones(size, np.uint8)
        for value, label in self._labels.items():
            if value < size:
                labels[value], unknown[value] = label, 0
        return labels, unknown

    def describe(self) -> str:
        """The known values, for messages."""
        classes = _ranges([value for value, label in self._labels.items() if label != IGNORED_PIXEL])
        ignored = _ranges([value for value, label in self._labels.items() if label == IGNORED_PIXEL])
        return f"known are {classes}" + (f", and to be ignored {ignored}" if ignored else "")


class ColourCoding:
    """Colours stand for classes.

    Args:
        labels: colour -> label, or IGNORED_PIXEL.
    """

    def __init__(self, labels: Mapping[Colour, int]) -> None:
        self._known = dict(labels)
        pairs = sorted((_packed(np.array(colour)), label) for colour, label in labels.items())
        self._keys = np.array([key for key, _ in pairs], np.int32)
        self._labels = np.array([label for _, label in pairs], np.int16)

    def labels(self, image: Image.Image) -> tuple[np.ndarray, dict[int | Colour, int]]:
        """As `MaskCoding`.

        Raises:
            ValueError: pixels that are no colours.
        """
        if image.mode == "P":  # the palette is looked up, not each pixel
            palette = np.array(image.getpalette("RGB") or [], np.int32).reshape(-1, 3)
            keys, pixels = np.full(256, -1, np.int32), np.asarray(image)
            keys[: len(palette)] = _packed(palette)
            labels = self._find(keys)[pixels]
        else:
            pixels = keys = _packed(_colours(image).astype(np.int32))  # [H, W]
            labels = self._find(keys)
        unknown = labels < 0
        if not unknown.any():
            return labels.astype(np.uint8), {}
        wrong = keys[pixels[unknown]] if image.mode == "P" else pixels[unknown]
        if (wrong < 0).any():
            raise ValueError("has indices beyond the end of its palette")
        found, counts = np.unique(wrong, return_counts=True)
        labels[unknown] = IGNORED_PIXEL
        return labels.astype(np.uint8), {_unpacked(int(key)): int(count) for key, count in zip(found, counts)}

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """Packed colours -> int16 labels, -1 where unknown."""
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        return np.where(self._keys[places] == keys, self._labels[places], np.int16(-1))

    def describe(self) -> str:
        """The known values, for messages."""
        shown = ", ".join(map(str, list(self._known)[:_SHOWN]))
        return f"known are {len(self._known)} colours: {shown}{', ...' if len(self._known) > _SHOWN else ''}"


def read_mask(path: str | Path, coding: MaskCoding, *, max_pixels: int | None = None) -> np.ndarray:
    """Decode a mask.

    Args:
        path: the file.
        coding: what its pixels mean.
        max_pixels: refuse more than this; None: as `transfer.data.image.read_image`.

    Returns:
        [H, W] uint8: labels, and IGNORED_PIXEL.

    Raises:
        UnknownValues: pixels that stand for no class.
        BrokenMask: unreadable, empty, truncated, too large, or of a kind that is refused.
    """
    try:
        image = _decode(read_bytes(path), max_pixels)
        labels, unknown = coding.labels(image)
    except BrokenSample as error:
        raise broken_mask(path, error.reason) from None
    except UserError:  # a setting of the environment, no fault of the file
        raise
    except ValueError as error:
        raise broken_mask(path, str(error)) from None
    if unknown:
        counts = dict(sorted(unknown.items(), key=lambda pair: -pair[1]))
        reason = f"has {_in_words(counts)} without a class ({coding.describe()})"
        raise UnknownValues(f"{path}: {reason}. {_REMEDY}", path=str(path), reason=reason, counts=counts, labels=labels)
    return np.ascontiguousarray(labels)


def mask_size(path: str | Path) -> Size:
    """(height, width) as stored, from the header alone.

    Raises:
        BrokenMask: no image of a known format, or too large.
    """
    try:
        check_file(path)
        with open(path, "rb") as file:
            width, height = _open(file, None).size
    except BrokenSample as error:
        raise broken_mask(path, error.reason) from None
    except UserError:
        raise
    except OSError as error:
        raise broken_mask(path, f"cannot be opened: {error.strerror or error}") from None
    except ValueError as error:
        raise broken_mask(path, str(error)) from None
    return height, width


def counted_values(counts: Mapping[int | Colour, int]) -> str:
    """{12: 3, 13: 1} -> "12 (3 pixels), 13 (1 pixel)"; the first eight."""
    shown = [f"{value} ({count:,} pixel{'s' * (count != 1)})" for value, count in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _open(file: IO[bytes], max_pixels: int | None) -> Image.Image:
    """The image, not yet decoded. Raises: ValueError, whose text is the reason."""
    limit = pixel_limit(max_pixels)
    start = file.read(12)
    file.seek(0)
    if start.startswith(b"\xff\xd8") or (start.startswith(b"RIFF") and start.endswith(b"WEBP")):
        raise ValueError("is a JPEG or WebP, whose compression changes values: export the mask as PNG")
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"is too large: {error}") from None
    except Exception as error:  # Pillow's plugins raise anything at all on hostile bytes
        raise ValueError(f"is no mask in a known format ({', '.join(_FORMATS)}): it begins with {start!r}") from error
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"has no pixels: {width}x{height}")
    if width * height > limit:
        raise ValueError(f"is {width}x{height}, {width * height} pixels; the limit is {limit}")
    return image


def _decode(data: bytes, max_pixels: int | None) -> Image.Image:
    """Raises: ValueError, whose text is the reason."""
    image = _open(io.BytesIO(data), max_pixels)
    try:
        _refuse(image, data)
        if image.format == "PNG":
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
    except _Refused:
        raise
    except Exception as error:  # as in _open
        raise ValueError(f"cannot be decoded ({image.format}): {str(error) or type(error).__name__}") from error
    return image


class _Refused(ValueError):
    """The file is of a kind that is not read; the text is the reason."""


def _refuse(image: Image.Image, data: bytes) -> None:
    """Refuse what Pillow would read as other numbers than the file holds."""
    bits, kind = 8, None
    if image.format == "PNG":
        bits, kind = data[24], data[25]  # of IHDR, the first chunk
    elif image.format == "TIFF":
        stated: Sequence[int] = image.tag_v2.get(_TIFF_BITS, (1,))  # type: ignore[attr-defined]
        bits = max(stated)
    if bits in (2, 4) and kind in (None, _PNG_GREY) and image.mode == "L":
        raise _Refused(f"is grey of {bits} bits, which tools read as different numbers: save it with 8 bits")
    if bits == 16 and image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
        raise _Refused("has channels of 16 bits: save it with 8 bits a channel")
    if image.mode == "F":
        raise _Refused("holds floating-point numbers: save its classes as whole numbers of 8 or 16 bits")


def _numbers(image: Image.Image) -> np.ndarray:
    """[H, W] whole numbers."""
    if image.mode in ("1", "L", "P"):
        return np.asarray(image).astype(np.uint8, copy=False)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.int32, copy=False)
    if image.mode == "LA":
        return _opaque(image)[..., 0]
    if image.mode in ("RGB", "RGBA"):
        colours = _colours(image)
        differ = (colours[..., :1] != colours[..., 1:]).any(2)
        if not differ.any():
            return colours[..., 0]
        first = tuple(int(value) for value in colours[differ][0])
        raise ValueError(f"holds colours, such as {first}, not numbers: give the data set colours={{name: {first}}}")
    raise ValueError(f"holds pixels of the kind {image.mode!r}: save it as 8-bit grey or palette PNG")


def _colours(image: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8."""
    if image.mode in ("RGB", "L", "1"):
        return np.asarray(image.convert("RGB"))
    if image.mode == "RGBA":
        return _opaque(image)[..., :3]
    if image.mode == "LA":
        return np.repeat(_opaque(image)[..., :1], 3, axis=2)
    raise ValueError(f"holds pixels of the kind {image.mode!r}, not colours: save it as RGB PNG, or give no colours=")


def _opaque(image: Image.Image) -> np.ndarray:
    """[H, W, channels] with the alpha channel last, which hides nothing."""
    pixels = np.asarray(image)
    transparent = int((pixels[..., -1] != 255).sum())
    if transparent:
        raise ValueError(f"has {transparent:,} transparent pixels, whose class nothing tells: save it without alpha")
    return pixels


def _packed(colours: np.ndarray) -> np.ndarray:
    """[..., 3] -> [...]: red * 65536 + green * 256 + blue."""
    return (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]


def _unpacked(key: int) -> Colour:
    return key >> 16, key >> 8 & 255, key & 255


def _in_words(counts: Mapping[int | Colour, int]) -> str:
    kind = "colour" if isinstance(next(iter(counts)), tuple) else "value"
    return f"{kind}{'s' * (len(counts) > 1)} {counted_values(counts)}"


def _ranges(values: Sequence[int]) -> str:
    """[0, 1, 2, 7] -> "0 to 2, 7"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
