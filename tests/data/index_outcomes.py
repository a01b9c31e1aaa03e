"""What a data set gives, with the cache of indexes and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transfer.data.home import cache_home
from transfer.data.table import TableDataset
from transfer.types import UserError

Outcome = dict[str, Any] | str
"""All that a data set holds, or the text of its error."""


def write_image(path: Path, width: int = 50) -> None:
    Image.new("RGB", (width, 40)).save(path)


def content(read: Callable[[], TableDataset]) -> Outcome:
    try:
        dataset = read()
    except UserError as error:
        return str(error)
    table = dataset.table
    arrays = {name: getattr(table, name) for name in ("sizes", "starts", "boxes", "labels", "difficult", "areas")}
    return {
        **{name: (each.dtype.str, each.tolist()) for name, each in arrays.items()},
        "paths": list(table.paths),
        "ids": [(type(each), each) for each in table.image_ids],
        "names": dataset.class_names,
        "rest": (dataset.skipped, dataset.counts, list(dataset.category_ids())),
    }


def uncached(monkeypatch: pytest.MonkeyPatch, read: Callable[[], Outcome]) -> Outcome:
    with monkeypatch.context() as patch:
        patch.setenv("TRICKSTACK_INDEX_CACHE", "0")
        return read()


def entries() -> list[Path]:
    folder = cache_home() / "index"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def check_noticed(read: Callable[[], Outcome], change: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes the data changes what is read, to what is read without the cache, and so it stays."""
    before = read()
    assert read() == before
    change()
    after = read()
    assert after != before
    expected = uncached(monkeypatch, read)
    assert after == expected
    assert read() == expected, "and the next time"
