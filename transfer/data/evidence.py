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
_UNREADABLE = "unreadable"

Seen = list[tuple[str, str, str]]
"""(how it was looked at, path, what was seen)."""


class Evidence:
    """Collects what is looked at; `look` comes before the reading, so that a change during it shows the next time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}

    def look(self, how: str, path: str | Path) -> None:
        """Note what a path looks like, unless that was done before.

        Args:
            how: "content": of a short file; "file": its size and times; "names": of what lies in a folder; "xml": the
                names, sizes and times of the XML files in a folder.
            path: the file or folder; what cannot be read is noted as such.
        """
        key = how, str(path)
        if key not in self._seen:
            self._seen[key] = _LOOKS[how](str(path))

    def seen(self) -> Seen:
        """All that was noted, in plain types."""
        return [(how, path, look) for (how, path), look in self._seen.items()]


def still_holds(seen: Iterable[tuple[str, str, str]]) -> bool:
    """Whether everything that was noted looks the same now."""
    return all(_LOOKS[how](path) == look for how, path, look in seen)


def _digest(facts: object) -> str:
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _content(path: str) -> str:
    try:
        return _digest(read_bounded(path, _MAX_READ))
    except OSError:
        return _UNREADABLE


def _file(path: str) -> str:
    try:
        return " ".join(map(str, _facts(os.stat(path))))
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return _UNREADABLE


def _names(path: str) -> str:
    try:
        return _digest(sorted(os.listdir(path)))
    except OSError:
        return _UNREADABLE


def _xml(path: str) -> str:
    try:
        with os.scandir(path) as entries:
            found = [(entry.name, _facts(entry.stat())) for entry in entries if entry.name.lower().endswith(".xml")]
    except OSError:
        return _UNREADABLE
    return _digest(sorted(found))


_LOOKS: dict[str, Callable[[str], str]] = {"content": _content, "file": _file, "names": _names, "xml": _xml}
