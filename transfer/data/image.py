"""Reads a photograph as RGB bytes, bounded and checked before any pixel is decoded.

No paper: this is what makes files of any kind one kind of array. The rules:

- The content decides the format, not the file's name; JPEG, PNG, WebP, BMP, TIFF and GIF (first frame) are known.
- The size is read from the header and refused above `MAX_PIXELS` (a decompression bomb) before memory is taken.
- EXIF orientation is applied: the image comes as a viewer displays it. Truth drawn on the stored, unrotated pixels
  gives itself away by its size: with `size=` the orientation is the one that has this size (the displayed one if both
  have it), so boxes never need turning. Any other size is an error: boxes of another image.
- Within `transfer.ops.reduced_scale` a large JPEG is decoded at a half, a quarter or an eighth of its scale.
- Grey becomes three equal channels; 16 bits become 8 by dropping the lower byte; CMYK is converted without a colour
  profile; transparency shows white, as on a page. Values of 32 bits have no agreed range and are refused.
- A truncated file is an error. OpenCV decodes JPEG in less than half of Pillow's time (1.1 against 2.6 ms for 381x500,
  one AVX2 core), but some of its versions decode a truncated one to a partly grey image, in silence: only a JPEG that
  ends with its end mark goes to OpenCV. All else goes to Pillow, which notices. A PNG's check sums are compared, which
  neither does for the last part.

Paths are opened by Python and only bytes handed on, so spaces and names outside ASCII work on every platform.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import Image

from transfer.ops.reduced_scale import Reduction, factor_for, note
from transfer.types import Size, UserError

MAX_PIXELS = 178_000_000
"""Default limit, about Pillow's own; the environment's TRICKSTACK_MAX_PIXELS lowers it."""

MAX_BYTES = 1 << 30
"""Largest file that is read."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Names (in any case) that datasets take for images; which of two files of one stem is meant follows this order."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_JPEG_END = b"\xff\xd9"
_ORIENTATION_TAG = 0x0112
_MIRRORED, _UPSIDE_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF's orientations whose displayed columns, or rows, are the stored ones backwards."""
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""OpenCV's flags by factor: with that of colour they ask for colour."""
_PNG_START = b"\x89PNG\r\n\x1a\n"
_EXIF_KEYWORDS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Of text chunks that Pillow takes the orientation from."""
_LONGEST_KEYWORD = max(map(len, _EXIF_KEYWORDS))
_MOST_CHUNKS = 100_000


class BrokenSample(UserError):
    """One image or annotation that cannot be used; `path` names the file. Training may skip it (on_broken="skip")."""

    def __init__(self, message: str, *, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason or message


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file says of itself."""

    format: str
    mode: str
    """Pillow's name of the pixel type, such as "RGB"."""
    stored_size: Size
    orientation: int
    """EXIF's value, 1..8; 1 is upright. Always 1 for TIFF, which Pillow turns by itself."""

    @property
    def size(self) -> Size:
        """Of the image as displayed: after EXIF rotation."""
        height, width = self.stored_size
        return (width, height) if self.orientation >= 5 else (height, width)


def read_image(path: str | Path, *, size: Size | None = None, max_pixels: int | None = None) -> np.ndarray:
    """Decode an image.

    Args:
        path: the file.
        size: (height, width) its annotation states; picks between displayed and stored orientation. None: as displayed.
        max_pixels: refuse more than this; None: `MAX_PIXELS`.

    Returns:
        [H, W, 3] uint8, RGB, contiguous; smaller than the photograph only within `reduced_scale`.

    Raises:
        BrokenSample: unreadable, empty, truncated, too large, of another kind, or not of the stated size.
    """
    data = read_bytes(path)
    image, header = _open(path, io.BytesIO(data), max_pixels)
    orientation = header.orientation
    if size is not None and size != header.size:
        if size != header.stored_size:
            raise _broken(path, f"is {_by(header.size)} but its annotation says {_by(size)} (width x height)")
        orientation = 1
    factor = factor_for(header.stored_size)
    pixels = _decode_jpeg(data, header, factor)
    if pixels is None:
        factor, pixels = 1, _decode_with_pillow(path, data, image)
    turned = _turn(pixels, orientation)
    note(_reduction(turned, header.stored_size, factor, orientation))
    return np.ascontiguousarray(turned)


def image_header(path: str | Path, *, max_pixels: int | None = None) -> ImageHeader:
    """Read size, format and orientation without decoding.

    Raises:
        BrokenSample: no image of a known format, or too large.
    """
    check_file(path)
    try:
        with open(path, "rb") as file:
            return _open(path, file, max_pixels)[1]
    except OSError as error:
        raise _broken(path, f"cannot be opened: {error.strerror or error}") from None


def image_size(path: str | Path) -> Size:
    """(height, width) as displayed, after EXIF rotation, from the header alone.

    Raises:
        BrokenSample: as `image_header`.
    """
    return image_header(path).size


def _broken(path: str | Path, reason: str) -> BrokenSample:
    message = f"{path}: {reason}. Mend or remove the file (in training, loader.on_broken=skip leaves such files out)"
    return BrokenSample(message, path=str(path), reason=reason)


def _by(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def pixel_limit(max_pixels: int | None) -> int:
    """The given limit, else that of $TRICKSTACK_MAX_PIXELS, else `MAX_PIXELS`. Raises: UserError for a bad variable."""
    if max_pixels is not None:
        return max_pixels
    text = os.environ.get("TRICKSTACK_MAX_PIXELS")
    if text is None:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"TRICKSTACK_MAX_PIXELS is {text!r}: write a number of pixels, such as {MAX_PIXELS}")
    return int(text)


def check_file(path: str | Path) -> None:
    """Raises: BrokenSample for what `open` would hang on or what cannot hold an image."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise _broken(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise _broken(path, "is not a regular file")
    if status.st_size == 0:
        raise _broken(path, "is empty (0 bytes)")
    if status.st_size > MAX_BYTES:
        raise _broken(path, f"has {status.st_size} bytes; the limit is {MAX_BYTES}")


def read_bytes(path: str | Path) -> bytes:
    """The whole of a file that may hold an image. Raises: BrokenSample."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror or error}") from None


def _open(path: str | Path, file: IO[bytes], max_pixels: int | None) -> tuple[Image.Image, ImageHeader]:
    limit = pixel_limit(max_pixels)
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _broken(path, f"is too large: {error}") from None
    except Exception as error:  # Pillow's plugins raise anything at all on hostile bytes
        file.seek(0)
        reason = f"is no image in a known format ({', '.join(_FORMATS)}): it begins with {file.read(8)!r}"
        raise _broken(path, reason) from error
    width, height = image.size
    if width < 1 or height < 1:
        raise _broken(path, f"has no pixels: {width}x{height}")
    if width * height > limit:
        raise _broken(path, f"is {width}x{height}, {width * height} pixels; the limit is {limit}")
    return image, ImageHeader(image.format or "", image.mode, (height, width), _orientation(image, file))


def _orientation(image: Image.Image, file: IO[bytes]) -> int:
    if image.format == "TIFF":
        return 1
    try:
        # Of a PNG without any, Pillow decodes all pixels, since EXIF may stand behind them.
        if image.format == "PNG" and not _has_exif(file):
            return 1
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block says nothing; the pixels may be sound
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_exif(file: IO[bytes]) -> bool:
    """Whether a PNG has a chunk of EXIF or XMP; the others are skipped, not read (PNG, third edition, section 5.3)."""
    position = file.tell()
    try:
        file.seek(len(_PNG_START))
        for _ in range(_MOST_CHUNKS):
            start = file.read(8)
            if len(start) < 8 or start[4:] == b"IEND":
                return False
            length = int.from_bytes(start[:4], "big")
            keyword = file.read(min(length, _LONGEST_KEYWORD))
            if start[4:] == b"eXIf" or keyword.startswith(_EXIF_KEYWORDS):
                return True
            file.seek(length - len(keyword) + 4, os.SEEK_CUR)  # what is left of it, and its check sum
        return True  # too many to tell
    finally:
        file.seek(position)  # where Pillow goes on


def _decode_jpeg(data: bytes, header: ImageHeader, factor: int) -> np.ndarray | None:
    """OpenCV's decoder for grey or RGB JPEG that ends as it should; None: not that, or it failed.

    Args:
        data: of the file.
        header: its own.
        factor: pixels of the original a pixel.
    """
    if header.format != "JPEG" or header.mode not in ("RGB", "L") or not data.endswith(_JPEG_END):
        return None
    try:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[factor]
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if decoded is None or decoded.shape != (*(-(-side // factor) for side in header.stored_size), 3):
        return None
    return decoded


def _reduction(turned: np.ndarray, stored: Size, factor: int, orientation: int) -> Reduction:
    """How a photograph was read, for who asked for less."""
    size = int(turned.shape[0]), int(turned.shape[1])
    height, width = stored if orientation < 5 else stored[::-1]
    beyond = (
        size[1] - width / factor,
        size[0] - height / factor,
    )  # of the last stored pixel, which `_turn` may put first
    shift = beyond[0] * (orientation in _MIRRORED), beyond[1] * (orientation in _UPSIDE_DOWN)
    return Reduction(factor, size, shift)


def _decode_with_pillow(path: str | Path, data: bytes, image: Image.Image) -> np.ndarray:
    try:
        if image.format == "PNG":
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        return _to_rgb(path, image)
    except BrokenSample:
        raise
    except Exception as error:  # as in _open
        raise _broken(path, f"cannot be decoded ({image.format}): {str(error) or type(error).__name__}") from error


def _to_rgb(path: str | Path, image: Image.Image) -> np.ndarray:
    """Any Pillow mode -> [H, W, 3] uint8."""
    # Pillow before 11 opens a 16-bit PNG as 32-bit "I"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise _broken(path, "holds values of 32 bits, which have no agreed range; save it with 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        page = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(page, rgba).convert("RGB"))
    return np.array(image.convert("RGB"))


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels -> displayed pixels by EXIF's orientation (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:  # the stored rows are the displayed columns
        pixels = pixels.transpose(1, 0, 2)
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    return pixels
