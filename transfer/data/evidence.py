"""What files and folders looked like when they were read, and whether they still do.

A file is taken for the same while its size, the time it was changed and the time its entry was changed are the same.
The third moves where a file is replaced by one with an old date. Only what is short is read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from transfer.data.strangers import read_bounded

_MAX_READ = 1 << 28
_ABSENT = "absent"
_UNREADABLE = "unreadable"
"""It may hold anything, so it is never taken for the same."""

Seen = list[tuple[str, str, str]]
"""(how it was looked at, path, what was seen)."""


class Evidence:
    """Collects what is looked at; `look` comes before the reading, so that a change during it shows the next time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}

    def look(self, how: str, path: str | Path) -> None:
        """Note what a path looks like, unless that was done before.

        Args:
            how: "content": of a short file; "file": its size and times; "names": of what lies in a folder; "files":
                names, sizes and times of the files in a folder, and names of its folders; "xml": of its XML files.
            path: the file or folder; what cannot be read is noted as such.
        """
        key = how, str(path)
        if key not in self._seen:
            self._seen[key] = _look(_LOOKS[how], str(path))

    def seen(self) -> Seen:
        """All that was noted, in plain types."""
        return [(how, path, look) for (how, path), look in self._seen.items()]


def still_holds(seen: Iterable[tuple[str, str, str]]) -> bool:
    """Whether everything that was noted could be looked at and looks the same now."""
    return all(look != _UNREADABLE and _look(_LOOKS[how], path) == look for how, path, look in seen)


def _digest(facts: object) -> str:
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _content(path: str) -> str:
    return _digest(read_bounded(path, _MAX_READ))


def _file(path: str) -> str:
    return " ".join(map(str, _facts(os.stat(path))))


def _names(path: str) -> str:
    return _digest(sorted(os.listdir(path)))


def _files(path: str) -> str:
    with os.scandir(path) as entries:
        return _digest(sorted((each.name, "" if each.is_dir() else _look(_file, each.path)) for each in entries))


def _xml(path: str) -> str:
    with os.scandir(path) as entries:
        found = (each for each in entries if each.name.lower().endswith(".xml"))
        return _digest(sorted((each.name, _look(_file, each.path)) for each in found))


def _look(look: Callable[[str], str], path: str) -> str:
    try:
        return look(path)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return _UNREADABLE


_LOOKS: dict[str, Callable[[str], str]] = {
    "content": _content,
    "file": _file,
    "names": _names,
    "files": _files,
    "xml": _xml,
}
