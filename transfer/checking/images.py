"""Opens and decodes every image as training would, and keeps what tells files apart: sizes and check sums.

Threads, not processes: OpenCV, Pillow and hashlib let go of Python's lock while they work. At any time only a few
images are in memory, however large the data set.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from transfer.checking.findings import ERROR, WARNING, Finding
from transfer.data.image import BrokenSample, image_header, read_image
from transfer.types import Size

In = TypeVar("In")
Out = TypeVar("Out")

_DIGEST_BYTES = 16
_TOO_LARGE = re.compile(r"is too large|the limit is")
_REMEDIES = {
    "image-missing": "copy it there, or remove its annotation",
    "image-unreadable": "save it again as JPEG or PNG, or remove it with its annotation",
    "image-truncated": "copy it again from its source, or remove it with its annotation",
    "image-too-large": "make it smaller (and its boxes), or remove it with its annotation",
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What decoding one file showed."""

    path: str
    code: str | None
    """What is wrong, such as "image-truncated"; None: nothing, and all below is there."""
    reason: str = ""
    size: Size = (0, 0)
    """As displayed, after EXIF rotation."""
    stored_size: Size = (0, 0)
    orientation: int = 1
    """EXIF's value; 1 is upright."""
    file_digest: bytes = b""
    pixel_digest: bytes = b""
    """Of the decoded pixels and their shape: equal for the same picture in two lossless encodings."""
    mode: str = ""
    """Pillow's name of the pixel type as stored, such as "RGB", "L" or "CMYK"."""


def inspect_image(path: str) -> ImageFacts:
    """Decode one file."""
    try:
        header = image_header(path)
    except BrokenSample as error:
        if _TOO_LARGE.search(error.reason):
            return ImageFacts(path, "image-too-large", error.reason)
        return ImageFacts(path, "image-unreadable" if os.path.exists(path) else "image-missing", error.reason)
    try:
        pixels = read_image(path)
    except BrokenSample as error:
        damaged = "cannot be decoded" in error.reason
        return ImageFacts(path, "image-truncated" if damaged else "image-unreadable", error.reason)
    summed = hashlib.blake2b(pixels.data, digest_size=_DIGEST_BYTES)
    summed.update(repr(pixels.shape).encode())
    with open(path, "rb") as file:
        file_digest = hashlib.blake2b(file.read(), digest_size=_DIGEST_BYTES).digest()
    turned = (header.size, header.stored_size, header.orientation)
    return ImageFacts(path, None, "", *turned, file_digest, summed.digest(), header.mode)


def inspect_images(paths: Iterable[str], *, workers: int) -> Iterator[ImageFacts]:
    """Decode all files, in no particular order.

    Args:
        paths: of the images.
        workers: threads, >= 1.
    """
    yield from in_threads(inspect_image, paths, workers=workers)


def in_threads(inspect: Callable[[In], Out], items: Iterable[In], *, workers: int) -> Iterator[Out]:
    """What `inspect` gives of each item, in no particular order; of the items only a few are taken ahead."""
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, without a file's name
        rest = iter(items)
        running: set[Future[Out]] = set()
        try:
            # a short queue: one future an image would be memory without bound
            for item in rest:
                running.add(pool.submit(inspect, item))
                running |= {pool.submit(inspect, more) for more in islice(rest, 4 * workers - len(running))}
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            for future in running:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def image_finding(facts: ImageFacts, part: str, *, skipped: bool) -> Finding | None:
    """What is wrong with the file, if anything.

    Args:
        facts: of the file.
        part: where it is used.
        skipped: the config lets training go on without it.
    """
    if facts.code is None:
        return None
    severity = WARNING if skipped else ERROR
    return Finding(severity, facts.code, part, facts.path, facts.reason, _REMEDIES[facts.code], fixable=True)
