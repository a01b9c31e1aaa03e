"""The index of a large data set, kept from one start to the next.

Reading 16,551 annotation files takes seconds, each time anew, on every process of a run. What was read is therefore
kept in `cache_home()/index`, never beside the data, which may be read-only or shared. An entry belongs to one data set,
one set of options and one place that relative paths begin at. It is used only while everything it was made from looks
as it did (evidence.py) and the code that reads data is the same; otherwise the files are read again, as they are where
the entry is damaged. A data set that ends in an error leaves no entry, so it ends in the same error every time; what
was left out by on_broken="skip" and all that was said in the log is kept with the index.

Entries are numpy's .npz: arrays and one JSON text, nothing that could be run. They appear under their name when they
are complete, so processes that write at the same time do not disturb each other. Where all of them take more than
`MOST_BYTES`, those not used for longest are deleted. TRICKSTACK_INDEX_CACHE=0 turns all of this off; the folder may be
deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import tempfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from transfer.data.class_names import check_class_names, check_rename
from transfer.data.evidence import Seen, still_holds
from transfer.data.home import cache_home
from transfer.data.image import pixel_limit
from transfer.data.table import DetectionTable
from transfer.data.table_builder import TableBuilder, is_recording
from transfer.data.texts import Texts
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)

FEWEST = 1000
"""Images from which on an index is kept: fewer are read in a third of a second."""
MOST_BYTES = 1 << 30
"""All entries together; a million images of five boxes take 0.24 GB."""
_OFF = ("0", "off", "no", "false")
_ROWS = {"sizes": np.int64, "starts": np.int64, "boxes": np.float32, "labels": np.int64, "difficult": np.bool_,
         "crowd": np.bool_, "areas": np.float32}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Index:
    """What reading a data set gives."""

    table: DetectionTable
    class_names: tuple[str, ...]
    counts: dict[str, int]
    """Boxes dropped or changed, by reason."""
    skipped: list[str]
    """Images left out, one line each."""
    told: list[tuple[int, str]]
    """(level, line) of the log."""
    seen: Seen
    """What it was read from."""
    category_ids: list[int] | None = None
    """COCO: the id of each label."""

    @classmethod
    def of(cls, builder: TableBuilder, category_ids: Callable[[tuple[str, ...]], list[int]] | None = None) -> Index:
        """What a filled builder makes.

        Args:
            builder: holds all images.
            category_ids: from the class names to their ids; None: the data have none.

        Raises:
            UserError: as `TableBuilder.finish`.
        """
        table, names, counts = builder.finish()
        ids = None if category_ids is None else category_ids(names)
        return cls(table, names, counts, builder.problems, builder.told, builder.evidence.seen(), ids)


def cached_index(
    root: str | Path,
    options: Mapping[str, object],
    read: Callable[[], Index],
    *,
    class_names: Sequence[str] | None,
    rename: Mapping[str, str | None] | None,
) -> Index:
    """The index from the cache, where it is there and up to date, else read and, if it is large, kept.

    Args:
        root: where the data are, as the config says; paths in the index begin with it.
        options: everything else that decides what is read, by name; told apart by their `repr`.
        read: reads the files.
        class_names, rename: as of a data set.

    Raises:
        UserError: what `read` raises, or names that no data set takes.
    """
    if is_recording() or os.environ.get("TRICKSTACK_INDEX_CACHE", "").lower() in _OFF:
        return read()
    names = check_class_names(class_names)
    facts = {**options, "class_names": names, "rename": check_rename(rename, names), "pixels": pixel_limit(None)}
    key = repr((os.path.abspath(root), str(root), sorted(facts.items())))
    try:
        path = cache_home() / "index" / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.npz"
    except UserError:
        return read()
    found = _load(path)
    if found is not None:
        for level, line in found.told:
            _LOGGER.log(level, "%s", line)
        _LOGGER.info("%s: index of %d images from the cache, %s", root, len(found.table.paths), path)
        return found
    index = read()
    if len(index.table.paths) >= FEWEST:
        _store(path, index)
    return index


def _load(path: Path) -> Index | None:
    """What the file holds, or None where it is not there, out of date or damaged."""
    try:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            if facts["code"] != _code() or not still_holds(facts["seen"]):
                return None
            arrays = {name: stored[name] for name in stored.files}
        with suppress(OSError):
            os.utime(path)  # used: not to be deleted next
        return _index_of(facts, arrays)
    except Exception as error:  # whatever is wrong with it: the files are there to be read
        _LOGGER.info("%s: a damaged index in the cache (%s: %s); reading the files", path, type(error).__name__, error)
        return None


def _index_of(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Index:
    """Raises: ValueError, KeyError and the like where the parts do not fit together."""
    ids = array("q", arrays["ids"].tobytes()) if "ids" in arrays else _texts(arrays, "id")
    table = DetectionTable(paths=_texts(arrays, "path"), image_ids=ids, **{name: arrays[name] for name in _ROWS})
    images, boxes, classes = len(table.paths), len(table.boxes), len(facts["class_names"])
    shapes = {"sizes": (images, 2), "starts": (images + 1,), "boxes": (boxes, 4)}
    for name, dtype in _ROWS.items():
        found, shape = arrays[name], shapes.get(name, (boxes,))
        if found.dtype != dtype or found.shape != shape:
            raise ValueError(f"{name} is {found.dtype} {found.shape}, not {np.dtype(dtype)} {shape}")
    starts = table.starts
    if len(ids) != images or starts[0] != 0 or starts[-1] != boxes or (np.diff(starts) < 0).any():
        raise ValueError("its images and boxes do not fit together")
    if boxes and not 0 <= table.labels.min() <= table.labels.max() < classes:
        raise ValueError(f"labels outside 0..{classes - 1}")
    return Index(
        table=table,
        class_names=tuple(facts["class_names"]),
        counts=dict(facts["counts"]),
        skipped=list(facts["skipped"]),
        told=[(int(level), str(line)) for level, line in facts["told"]],
        seen=facts["seen"],
        category_ids=facts["category_ids"],
    )


def _texts(arrays: Mapping[str, np.ndarray], name: str) -> Texts:
    return Texts.of_block(arrays[f"{name}_block"].tobytes(), arrays[f"{name}_ends"])


def _store(path: Path, index: Index) -> None:
    """Write the file, whole or not at all; a full disk or a read-only home is no error."""
    if not isinstance(index.table.image_ids, (Texts, array)):
        return
    facts = {each.name: getattr(index, each.name) for each in fields(index) if each.name != "table"}
    arrays: dict[str, np.ndarray] = {"facts": np.frombuffer(json.dumps({**facts, "code": _code()}).encode(), np.uint8)}
    arrays |= {name: getattr(index.table, name) for name in _ROWS}
    for name, texts in (("path", index.table.paths), ("id", index.table.image_ids)):
        if isinstance(texts, Texts):
            arrays |= {f"{name}_block": np.frombuffer(texts.block, np.uint8), f"{name}_ends": texts.ends}
        else:
            arrays["ids"] = np.array(texts, np.int64)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)  # type: ignore[arg-type]  # taken for its option allow_pickle
        os.replace(temporary, path)
        _delete_oldest(path)
    except OSError as error:
        _LOGGER.info("%s: the index cannot be kept: %s", path, error.strerror or error)
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def _delete_oldest(kept: Path) -> None:
    """Bring the folder of an entry, which stays, to `MOST_BYTES`; another process may delete there, too."""
    entries = []
    for entry in os.scandir(kept.parent):
        with suppress(OSError):
            status = entry.stat()
            entries.append((entry.name != kept.name, -status.st_mtime_ns, status.st_size, entry.path))
    total = 0
    for _, _, size, path in sorted(entries):
        total += size
        if total > MOST_BYTES and path != str(kept):
            with suppress(OSError):
                os.unlink(path)


@functools.cache
def _code() -> str:
    """A digest of the code that reads data sets: an index of another version is not used."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
