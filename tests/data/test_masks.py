"""Mask files of every kind against numbers that are known, and everything that must be refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hand_made_png import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, png_bytes, write_png
from PIL import Image

from transfer.data.image import BrokenSample
from transfer.data.masks import ColourCoding, UnknownValues, ValueCoding, mask_size, read_mask
from transfer.types import UserError

VALUES = np.array([[0, 1, 2, 3, 1], [3, 3, 0, 1, 2], [2, 0, 0, 3, 1]], np.uint8)
CODING = ValueCoding({0: 255, 1: 0, 2: 7, 3: 1})
LABELS = np.array([[255, 0, 7, 1, 0], [1, 1, 255, 0, 7], [7, 255, 255, 1, 0]], np.uint8)
"""`VALUES` by `CODING`, by hand."""
COLOURS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
BY_COLOUR = ColourCoding({(0, 0, 0): 255, (128, 0, 0): 0, (0, 128, 0): 7, (128, 128, 0): 1})
NONSENSE = [(9, 9, 9), (9, 9, 9), (250, 0, 3), (1, 2, 3)]
"""A palette that shows other things than its indices say, with one colour twice."""


def grey_as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def with_alpha(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_3d(values), np.full((*values.shape[:2], 1), 255)], axis=2)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_bytes(VALUES, GREY, 8), id="grey of 8 bits"),
        pytest.param(png_bytes(VALUES, GREY, 16), id="grey of 16 bits"),
        pytest.param(png_bytes(VALUES, PALETTE, 8, palette=NONSENSE), id="palette of 8 bits"),
        pytest.param(png_bytes(VALUES, PALETTE, 4, palette=NONSENSE), id="palette of 4 bits"),
        pytest.param(png_bytes(VALUES, PALETTE, 2, palette=NONSENSE), id="palette of 2 bits"),
        pytest.param(png_bytes(VALUES, PALETTE, 8, palette=NONSENSE, alpha=[0, 255, 3]), id="palette, transparent"),
        pytest.param(png_bytes(grey_as_rgb(VALUES), RGB, 8), id="grey as RGB"),
        pytest.param(png_bytes(with_alpha(VALUES), GREY_ALPHA, 8), id="grey, opaque"),
        pytest.param(png_bytes(with_alpha(grey_as_rgb(VALUES)), RGBA, 8), id="grey as RGBA, opaque"),
    ],
)
def test_values_of_every_kind_of_png(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    labels = read_mask(path, CODING)
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    np.testing.assert_array_equal(labels, LABELS)
    assert mask_size(path) == (3, 5)


@pytest.mark.parametrize("name", ["mask.tif", "mask.bmp", "mask.gif", "mask.jpg"])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_other_formats_by_content(tmp_path: Path, name: str, mode: str) -> None:
    image = Image.fromarray(VALUES)
    if mode == "P":
        image = Image.frombytes("P", image.size, VALUES.tobytes())
        image.putpalette([channel for colour in NONSENSE for channel in colour])
    image.save(tmp_path / name, {".jpg": "PNG"}.get(Path(name).suffix))  # the name may lie
    np.testing.assert_array_equal(read_mask(tmp_path / name, CODING), LABELS)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_values_above_a_byte(tmp_path: Path, dtype: type) -> None:
    values = np.array([[1000, 65535, 7], [7, 1000, 65535]])
    Image.fromarray(values.astype(dtype)).save(tmp_path / "mask.tif")
    write_png(tmp_path / "mask.png", values, GREY, 16)
    coding = ValueCoding({7: 0, 1000: 1, 65535: 255})
    for name in ("mask.tif", "mask.png"):
        assert read_mask(tmp_path / name, coding).tolist() == [[1, 255, 0], [0, 1, 255]]
    with pytest.raises(UnknownValues) as caught:  # the same low byte as 1000 is another value
        read_mask(tmp_path / "mask.png", ValueCoding({7: 0, 1000 % 256: 1, 65535: 255}))
    assert caught.value.counts == {1000: 2}


def test_negative_values_have_no_class(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1, 0], [70000, 0]], np.int32)).save(tmp_path / "mask.tif")
    with pytest.raises(UnknownValues) as caught:
        read_mask(tmp_path / "mask.tif", ValueCoding({0: 4, 255: 255}))
    assert caught.value.counts == {-1: 1, 70000: 1}
    assert caught.value.labels.tolist() == [[255, 4], [255, 4]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({0: 0, 1: 1}, [[0, 1, 1]]), ({0: 0, 255: 1}, [[0, 1, 1]]), ({0: 0, 1: 1, 255: 255}, [[0, 1, 1]])],
)
@pytest.mark.parametrize("kind", [GREY, PALETTE])
def test_black_and_white(tmp_path: Path, labels: dict[int, int], expected: list[list[int]], kind: int) -> None:
    palette = NONSENSE[:2] if kind == PALETTE else ()
    path = write_png(tmp_path / "mask.png", np.array([[0, 1, 1]]), kind, 1, palette=palette)
    if kind == PALETTE and 1 not in labels:  # an index is an index
        with pytest.raises(UnknownValues):
            read_mask(path, ValueCoding(labels))
        return
    assert read_mask(path, ValueCoding(labels)).tolist() == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_bytes(np.array(COLOURS)[VALUES], RGB, 8), id="RGB"),
        pytest.param(png_bytes(with_alpha(np.array(COLOURS)[VALUES]), RGBA, 8), id="RGBA, opaque"),
        pytest.param(png_bytes(VALUES, PALETTE, 8, palette=COLOURS), id="palette"),
        pytest.param(png_bytes(VALUES, PALETTE, 2, palette=COLOURS, alpha=[0]), id="palette, transparent"),
        pytest.param(
            png_bytes(np.array([3, 1, 0, 2])[VALUES], PALETTE, 8, palette=[COLOURS[i] for i in (2, 1, 3, 0)]),
            id="palette in another order",
        ),
    ],
)
def test_colours_of_every_kind(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mask.png").write_bytes(data)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", BY_COLOUR), LABELS)


def test_grey_by_a_colour_table(tmp_path: Path) -> None:
    path = write_png(tmp_path / "mask.png", np.array([[0, 255]]))
    assert read_mask(path, ColourCoding({(0, 0, 0): 3, (255, 255, 255): 5})).tolist() == [[3, 5]]
    assert read_mask(
        write_png(tmp_path / "bit.png", np.array([[0, 1]]), GREY, 1),
        ColourCoding({(0, 0, 0): 3, (255, 255, 255): 5}),
    ).tolist() == [[3, 5]]


def test_random_colours_against_a_dictionary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {tuple(map(int, colour)): label for label, colour in enumerate(rng.integers(0, 256, (200, 3)))}
    names = list(table)
    picked = rng.integers(0, len(names), (40, 50))
    path = write_png(tmp_path / "mask.png", np.array(names)[picked], RGB)
    expected = [[table[names[number]] for number in row] for row in picked]
    assert read_mask(path, ColourCoding(table)).tolist() == expected  # type: ignore[arg-type]


def test_unknown_values_are_listed(tmp_path: Path) -> None:
    path = write_png(tmp_path / "mask.png", np.array([[0, 1, 9], [9, 200, 9]]))
    with pytest.raises(UnknownValues) as caught:
        read_mask(path, ValueCoding({0: 0, 1: 1, 2: 2, 5: 3, 255: 255}))
    error = caught.value
    assert list(error.counts.items()) == [(9, 3), (200, 1)]
    assert error.labels.tolist() == [[0, 1, 255], [255, 255, 255]]
    assert error.path == str(path)
    assert error.reason == (
        "has values 9 (3 pixels), 200 (1 pixel) without a class (known are 0 to 2, 5, and to be ignored 255)"
    )
    assert str(path) in str(error)
    assert "Mend the file or what the data set says of its values" in str(error)
    assert isinstance(error, BrokenSample)  # training may skip it


def test_unknown_colours_are_listed(tmp_path: Path) -> None:
    colours = np.array([[(0, 0, 0), (1, 2, 3)], [(1, 2, 3), (255, 0, 0)]])
    for path in (
        write_png(tmp_path / "rgb.png", colours, RGB),
        write_png(tmp_path / "p.png", np.array([[0, 2], [2, 1]]), PALETTE, palette=[(0, 0, 0), (255, 0, 0), (1, 2, 3)]),
    ):
        with pytest.raises(
            UnknownValues, match=r"has colours \(1, 2, 3\) \(2 pixels\), \(255, 0, 0\) \(1 pixel\)"
        ) as e:
            read_mask(path, BY_COLOUR)
        assert e.value.counts == {(1, 2, 3): 2, (255, 0, 0): 1}
        assert (e.value.labels == 255).all()


def replaced(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 255]) + data[position + 1 :]


def noise_png() -> bytes:
    return png_bytes(np.random.default_rng(0).integers(0, 4, (60, 60)), GREY, 8)


def huge_png() -> bytes:
    data = bytearray(png_bytes(VALUES, GREY, 8))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    body = bytes(data[12:29])
    data[29:33] = struct.pack(">I", zlib.crc32(body))
    return bytes(data)


def half_transparent() -> bytes:
    pixels = with_alpha(np.array(COLOURS)[VALUES])
    pixels[0, 0, 3] = 0
    pixels[1, 1, 3] = 254
    return png_bytes(pixels, RGBA, 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: png_bytes(VALUES, GREY, 2), "grey of 2 bits, which tools read as different numbers: save it with 8"),
        (lambda: png_bytes(VALUES, GREY, 4), "grey of 4 bits"),
        (lambda: png_bytes(grey_as_rgb(VALUES), RGB, 16), "channels of 16 bits"),
        (lambda: png_bytes(with_alpha(VALUES), GREY_ALPHA, 16), "channels of 16 bits"),
        (lambda: noise_png()[:-700], r"cannot be decoded \(PNG\)"),
        (lambda: replaced(noise_png(), len(noise_png()) - 14), r"cannot be decoded \(PNG\)"),  # the pixels' check sum
        (huge_png, "30000x30000, 900000000 pixels; the limit is 178000000|is too large"),
        (lambda: b"", r"is empty \(0 bytes\)"),
        (lambda: b"<html></html>", "is no mask in a known format"),
        (half_transparent, "has 2 transparent pixels, whose class nothing tells: save it without alpha"),
        (lambda: png_bytes(np.array(COLOURS)[VALUES], RGB, 8), r"holds colours, such as \(128, 0, 0\), not numbers"),
    ],
)
def test_refused(tmp_path: Path, data: Callable[[], bytes], reason: str) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(data())
    with pytest.raises(BrokenSample, match=reason) as caught:
        read_mask(path, CODING)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.path == str(path)
    assert not isinstance(caught.value, UnknownValues)


def test_lossy_formats_and_floats_are_refused(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "a.png", "JPEG")
    Image.fromarray(VALUES).save(tmp_path / "b.png", "WEBP")
    Image.fromarray(VALUES.astype(np.float32)).save(tmp_path / "c.tif")
    for name, reason in (("a.png", "changes values"), ("b.png", "changes values"), ("c.tif", "floating-point")):
        with pytest.raises(BrokenSample, match=reason):
            read_mask(tmp_path / name, CODING)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.png", "cannot be opened: No such file"), (tmp_path, "not a regular file")):
        for read in (lambda path: read_mask(path, CODING), mask_size):
            with pytest.raises(BrokenSample, match=reason):
                read(path)


def test_the_limit_comes_before_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_png(tmp_path / "mask.png", VALUES)
    with pytest.raises(BrokenSample, match="15 pixels; the limit is 14"):
        read_mask(path, CODING, max_pixels=14)
    np.testing.assert_array_equal(read_mask(path, CODING, max_pixels=15), LABELS)
    monkeypatch.setenv("TRICKSTACK_MAX_PIXELS", "14")
    for read in (lambda: read_mask(path, CODING), lambda: mask_size(path)):
        with pytest.raises(BrokenSample, match="the limit is 14"):
            read()
    monkeypatch.setenv("TRICKSTACK_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="write a number of pixels") as caught:
        read_mask(path, CODING)
    assert not isinstance(caught.value, BrokenSample)  # on_broken="skip" would leave out every file


@pytest.mark.data
def test_ade20k_file_by_pillow(shared_data: Path) -> None:
    path = next((shared_data / "ade_mini/ADEChallengeData2016/annotations/validation").glob("*.png"))
    values = np.asarray(Image.open(path))
    labels = read_mask(path, ValueCoding({0: 255, **{value: value - 1 for value in range(1, 151)}}))
    np.testing.assert_array_equal(labels, np.where(values == 0, 255, values - 1))
