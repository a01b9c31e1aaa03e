"""Decoding: against Pillow's own results, hand-made pixels and files broken on purpose."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from transfer.data.image import BrokenSample, image_header, image_size, read_image
from transfer.types import UserError

HEIGHT, WIDTH = 20, 30


def scene(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture in which no two corners are alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 200 // width], 2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def noise_jpeg(path: Path) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path.read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "jpg" else {}
    path = save(tmp_path / f"a.{suffix}", image, exif=exif, **options)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    decoded = read_image(path)
    assert decoded.shape == expected.shape
    assert image_size(path) == decoded.shape[:2]
    assert np.abs(decoded.astype(int) - expected).max() <= 2
    assert decoded.flags.c_contiguous


def test_the_stated_size_picks_the_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", Image.fromarray(scene()), exif=exif)
    np.testing.assert_array_equal(read_image(path, size=(HEIGHT, WIDTH)), scene())
    # orientation 6: turned a quarter clockwise to be displayed
    np.testing.assert_array_equal(read_image(path, size=(WIDTH, HEIGHT)), np.rot90(scene(), -1))
    with pytest.raises(BrokenSample, match=r"is 20x30 but its annotation says 31x20"):
        read_image(path, size=(HEIGHT, WIDTH + 1))


def test_a_square_image_is_shown_as_displayed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = save(tmp_path / "a.png", Image.fromarray(scene(16, 16)), exif=exif)
    np.testing.assert_array_equal(read_image(path, size=(16, 16)), scene(16, 16)[::-1, ::-1])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_give_the_pixels_back(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(scene()), **options)
    np.testing.assert_array_equal(read_image(path), scene())


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_agrees_with_pillow(tmp_path: Path, mode: str, progressive: bool) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(scene(33, 47)).convert(mode), progressive=progressive, quality=90)
    with Image.open(path) as opened:
        assert opened.mode == mode
        expected = np.asarray(opened.convert("RGB"))
    assert np.abs(read_image(path).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_black_and_white(tmp_path: Path, suffix: str) -> None:
    bits = np.indices((5, 9)).sum(0) % 2 == 0
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(bits))
    np.testing.assert_array_equal(read_image(path), np.repeat(bits[:, :, None] * np.uint8(255), 3, 2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_drops_the_lower_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 511, 65535, 32768]], np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    np.testing.assert_array_equal(read_image(path)[0, :, 0], [0, 0, 1, 1, 255, 128])


def test_sixteen_bit_colour_drops_the_lower_byte(tmp_path: Path) -> None:
    values = np.array([[[0, 511, 65535], [256, 32768, 300]]], np.uint16)  # BGR, as OpenCV writes
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", values)[1].tobytes())
    np.testing.assert_array_equal(read_image(path), [[[255, 1, 0], [1, 128, 1]]])


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    for name in ("a.png", "a.gif", "a.bmp"):
        path = save(tmp_path / name, image)
        np.testing.assert_array_equal(read_image(path), [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])


def test_transparency_shows_white(tmp_path: Path) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    for name in ("a.png", "a.tif"):
        path = save(tmp_path / name, Image.fromarray(rgba))
        # 51 of 255 is a fifth of black over white: 204
        np.testing.assert_array_equal(read_image(path), [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]])
    grey = Image.fromarray(np.array([[[90, 255], [90, 0]]], np.uint8))
    assert grey.mode == "LA"
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", grey))[0, :, 1], [90, 255])


def test_a_transparent_colour_shows_white(tmp_path: Path) -> None:
    for array, transparent in (
        (np.array([[7, 8]], np.uint8), 7),
        (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), (1, 2, 3)),
    ):
        path = save(tmp_path / "a.png", Image.fromarray(array), transparency=transparent)
        decoded = read_image(path)
        assert decoded[0, 0].tolist() == [255, 255, 255]
        assert decoded[0, 1].tolist() == ([8, 8, 8] if array.ndim == 2 else [4, 5, 6])


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert read_image(path)[0, 0].tolist() == [255, 0, 0]


def test_thirty_two_bit_values_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(BrokenSample, match="32 bits"):
        read_image(path)


def test_the_content_decides_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(scene()).save(path, format="PNG")
    assert image_header(path).format == "PNG"
    np.testing.assert_array_equal(read_image(path), scene())


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_a_truncated_file_is_an_error(tmp_path: Path, suffix: str, keep: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", Image.fromarray(pixels))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(BrokenSample, match=rf"cut\.{suffix}.*on_broken"):
        read_image(path)


def test_a_truncated_jpeg_never_reaches_a_decoder_that_is_content_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    data = noise_jpeg(path)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((64, 96, 3), np.uint8))
    assert read_image(path).sum() == 0
    path.write_bytes(data[:-100])
    with pytest.raises(BrokenSample):
        read_image(path)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    data = noise_jpeg(path)
    whole = read_image(path)
    path.write_bytes(data + b"\0" * 100 + b"a camera's notes")
    np.testing.assert_array_equal(read_image(path), whole)


def test_damaged_png_data_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(scene(200, 300)))
    whole = path.read_bytes()
    for position in range(len(whole) // 4, len(whole) * 3 // 4, len(whole) // 16):
        data = bytearray(whole)
        data[position] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(BrokenSample):
            read_image(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "no image in a known format"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "a.jpg"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "a.jpg"),
        (b"P6 2 2 255 " + b"\0" * 12, "no image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image in a known format"),
    ],
)
def test_what_is_no_image(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(BrokenSample, match=reason) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert isinstance(caught.value, UserError)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenSample, match="No such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(BrokenSample, match="not a regular file"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BrokenSample, match="not a regular file"):
        image_size(tmp_path / "pipe.jpg")


def png_of_stated_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [14_000, 60_000, 2_000_000_000])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_stated_size(side, side))
    with pytest.raises(BrokenSample, match=r"bomb\.png"):
        read_image(path)
    with pytest.raises(BrokenSample):
        image_size(path)


def test_the_limit_can_be_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(scene()))
    assert read_image(path, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(BrokenSample, match="30x20, 600 pixels; the limit is 599"):
        read_image(path, max_pixels=HEIGHT * WIDTH - 1)
    monkeypatch.setenv("TRICKSTACK_MAX_PIXELS", "500")
    with pytest.raises(BrokenSample, match="limit is 500"):
        read_image(path)
    monkeypatch.setenv("TRICKSTACK_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="TRICKSTACK_MAX_PIXELS is 'many'"):
        read_image(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(scene()).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_a_png_header_is_read_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(scene()))
    with monkeypatch.context() as patch:
        patch.setattr(PngImageFile, "load", lambda image: pytest.fail("decoded"))
        header = image_header(path)
    assert (header.size, header.orientation) == ((HEIGHT, WIDTH), 1)
    np.testing.assert_array_equal(read_image(path), scene())


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", ["eXIf", "iTXt", "zTXt"])
def test_the_orientation_of_a_png_is_found_before_and_behind_its_pixels(
    tmp_path: Path, kind: str, behind: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    profile = f"\nexif\n{len(block):8d}\n{block.hex()}\n"
    contents = {
        "eXIf": block.removeprefix(b"Exif\0\0"),
        "iTXt": b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>',
        "zTXt": b"Raw profile type exif\0\0" + zlib.compress(profile.encode()),
    }
    path = save(tmp_path / "a.png", Image.fromarray(scene()))
    data = path.read_bytes()
    place = data.index(b"IEND" if behind else b"IDAT") - 4
    other = png_chunk(b"tEXt", b"date\0" + b"x" * 40)
    path.write_bytes(data[:place] + other + png_chunk(kind.encode(), contents[kind]) + data[place:])
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert expected.shape == (WIDTH, HEIGHT, 3)  # Pillow sees it
    assert image_header(path).orientation == 6
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_unknown_orientation_is_upright(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = save(tmp_path / "a.png", Image.fromarray(scene()), exif=exif)
    np.testing.assert_array_equal(read_image(path), scene())


def test_names_with_spaces_and_outside_ascii_symlinks_and_read_only_folders(tmp_path: Path) -> None:
    folder = tmp_path / "mes photos été 写真"
    folder.mkdir()
    path = save(folder / "a b ü.png", Image.fromarray(scene()))
    link = tmp_path / "link.png"
    link.symlink_to(path)
    folder.chmod(0o555)
    try:
        np.testing.assert_array_equal(read_image(path), scene())
        np.testing.assert_array_equal(read_image(str(link)), scene())
    finally:
        folder.chmod(0o755)


def test_a_broken_sample_survives_pickling() -> None:
    error = BrokenSample("a.jpg: is empty", path="a.jpg", reason="is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.path, again.reason) == ("a.jpg: is empty", "a.jpg", "is empty")
    # a loader's worker re-raises with one text only
    assert type(error)("worker 0: a.jpg").reason == "worker 0: a.jpg"


def test_header_sizes_equal_decoded_sizes_for_an_open_file_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, format="JPEG")
    path = tmp_path / "a.jpeg"
    path.write_bytes(buffer.getvalue())
    header = image_header(path)
    assert (header.format, header.mode, header.stored_size, header.orientation) == ("JPEG", "RGB", (HEIGHT, WIDTH), 1)


@pytest.mark.data
def test_real_photographs_agree_with_pillow(shared_data: Path) -> None:
    for path in sorted((shared_data / "voc_mini/VOCdevkit/VOC2007/JPEGImages").glob("*.jpg"))[:12]:
        with Image.open(path) as opened:
            expected = np.asarray(opened.convert("RGB")).astype(int)
        assert np.abs(read_image(path) - expected).max() <= 2
