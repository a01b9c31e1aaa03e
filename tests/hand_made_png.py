"""PNG files of every kind, written byte by byte: what a mask file holds is then known without any library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png_bytes(
    rows: np.ndarray,
    kind: int,
    bits: int,
    *,
    palette: Sequence[tuple[int, int, int]] = (),
    alpha: Sequence[int] = (),
) -> bytes:
    """A PNG of samples.

    Args:
        rows: [H, W] or [H, W, channels] whole numbers below 2 ** bits.
        kind: the format's colour type.
        bits: of a sample, 1 to 16.
        palette: of kind 3.
        alpha: transparency of the palette's first entries.
    """
    height, width = rows.shape[:2]
    lines = b"".join(b"\0" + _line(row.reshape(-1), bits) for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    if palette:
        chunks.append((b"PLTE", bytes(channel for colour in palette for channel in colour)))
    if alpha:
        chunks.append((b"tRNS", bytes(alpha)))
    chunks += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def write_png(path: Path, rows: np.ndarray, kind: int = GREY, bits: int = 8, **options: Sequence) -> Path:  # type: ignore[type-arg]
    """`png_bytes` in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(np.asarray(rows), kind, bits, **options))
    return path


def _line(samples: np.ndarray, bits: int) -> bytes:
    if bits == 16:
        return samples.astype(">u2").tobytes()
    if bits == 8:
        return samples.astype(np.uint8).tobytes()
    text = "".join(format(int(sample), f"0{bits}b") for sample in samples)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
