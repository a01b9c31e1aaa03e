"""How long the index of VOC 2007+2012 trainval takes: read for the first time, and from its cache.

    python benchmarks/index_cache.py

A synthetic devkit from a seed, of the size of the real one: 16,551 images, 2.4 objects each, XML files as the kit's,
written to a temporary folder, which also holds the cache. The index does not open images whose XML states their size,
so the images are hard links of one small file. Files are in the system's cache, as after a run on the same machine;
from a cold disk or a network the first reading takes as long as these bring 16,551 small files, and a start from the
cache as long as they tell their sizes and times.

CPU time of `VOCDataset(...)`, all in: split list, listings, XML or cache, table. It is one thread that waits for
nothing, so on a machine that is free it is wall time, too, which is said beside it. Both ways' tables are compared bit
by bit.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from comparison import Result, Row, benchmark_parser, report, versions_of

from transfer.data.voc import VOC_CLASSES, VOCDataset

IMAGES = 16_551
WIDTH, HEIGHT = 500, 375
FIRST_TARGET, CACHED_TARGET = 10.0, 0.5
"""Seconds."""

_OBJECT = """\t<object>
\t\t<name>{}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>{}</truncated>
\t\t<difficult>{}</difficult>
\t\t<bndbox>
\t\t\t<xmin>{}</xmin>
\t\t\t<ymin>{}</ymin>
\t\t\t<xmax>{}</xmax>
\t\t\t<ymax>{}</ymax>
\t\t</bndbox>
\t</object>
"""
_FILE = """<annotation>
\t<folder>VOC2007</folder>
\t<filename>{}.jpg</filename>
\t<source>
\t\t<database>The VOC2007 Database</database>
\t\t<annotation>PASCAL VOC2007</annotation>
\t\t<image>flickr</image>
\t\t<flickrid>{}</flickrid>
\t</source>
\t<size>
\t\t<width>{}</width>
\t\t<height>{}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{}</annotation>
"""


def write_devkit(root: Path, images: int, seed: int = 0) -> None:
    """A devkit with one split, "trainval", below `root`."""
    generator = np.random.default_rng(seed)
    folder = root / "VOCdevkit" / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    photograph = folder / "photograph.jpg"
    cv2.imwrite(str(photograph), np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
    stems = [f"{number:06d}" for number in range(1, images + 1)]
    counts = 1 + generator.poisson(1.4, images)
    for stem, count in zip(stems, counts.tolist(), strict=True):
        size = generator.integers(20, (WIDTH, HEIGHT), (count, 2))
        corner = generator.integers(1, np.array((WIDTH, HEIGHT)) - size + 2)
        names = generator.integers(0, len(VOC_CLASSES), count).tolist()
        flags = generator.random((count, 2)) < 0.15
        objects = "".join(
            _OBJECT.format(VOC_CLASSES[name], int(truncated), int(difficult), *first, *last)
            for name, (truncated, difficult), first, last in zip(
                names, flags.tolist(), corner.tolist(), (corner + size - 1).tolist(), strict=True
            )
        )
        text = _FILE.format(stem, 1000 + int(stem), WIDTH, HEIGHT, objects)
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
        os.link(photograph, folder / "JPEGImages" / f"{stem}.jpg")
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("".join(f"{stem}\n" for stem in stems))


def timed(run: Callable[[], VOCDataset]) -> tuple[float, float, VOCDataset]:
    """(wall seconds, CPU seconds, what came of it)."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = run()
    return time.perf_counter() - wall, time.process_time() - cpu, made


def assert_same(first: VOCDataset, second: VOCDataset) -> None:
    """Raises: AssertionError where two data sets differ in anything."""
    assert first.class_names == second.class_names
    assert (first.counts, first.skipped) == (second.counts, second.skipped)
    assert list(first.table.paths) == list(second.table.paths)
    assert list(first.table.image_ids) == list(second.table.image_ids)
    for name in ("sizes", "starts", "boxes", "labels", "difficult", "crowd", "areas"):
        mine, other = getattr(first.table, name), getattr(second.table, name)
        assert mine.dtype == other.dtype, name
        assert np.array_equal(mine, other), name


def result(*, quick: bool) -> Result:
    """Seconds to the index, without a cache and with one."""
    images = 2_000 if quick else IMAGES
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_devkit(root, images)
        before = {name: os.environ.get(name) for name in ("TRICKSTACK_HOME", "TRICKSTACK_INDEX_CACHE")}
        os.environ.pop("TRICKSTACK_INDEX_CACHE", None)
        os.environ["TRICKSTACK_HOME"] = str(root / "home")
        try:
            first, cached = measure(root, rounds=2 if quick else 3)
            kept = next((root / "home" / "index").iterdir()).stat().st_size
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
    what = f"index of {images:,} VOC XML files"
    shown = f"the cache holds {kept / 2**20:.1f} MiB; files in the system's cache"
    return Result(
        [
            _row("index_first", f"{what}, for the first time", first, FIRST_TARGET, "time to keep the index included"),
            _row("index_cached", f"{what}, from the cache", cached, CACHED_TARGET, shown),
        ],
        versions_of("numpy", "defusedxml"),
    )


def measure(root: Path, rounds: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(wall, CPU) seconds of each round, for the first time and from the cache."""

    def read() -> VOCDataset:
        return VOCDataset(root, "trainval")

    first, cached = [], []
    for _ in range(rounds):
        for entry in (root / "home" / "index").glob("*"):
            entry.unlink()
        *seconds, made = timed(read)
        first.append((seconds[0], seconds[1]))
        *seconds, again = timed(read)
        cached.append((seconds[0], seconds[1]))
        assert_same(made, again)
    return first, cached


def _row(key: str, what: str, seconds: list[tuple[float, float]], target: float, note: str) -> Row:
    """`ratio` is CPU time over the target."""
    walls, cpus = ([each[place] for each in seconds] for place in (0, 1))
    cpu = statistics.median(cpus)
    return Row(
        key=key,
        what=what,
        ours=f"{cpu:.2f} s",
        beside=f"aimed at: {target:g} s",
        ratio=cpu / target,
        spread=(min(cpus) / target, max(cpus) / target),
        target=1.0,
        wanted="at most",
        note=f"wall time {statistics.median(walls):.2f} s; {note}",
    )


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
