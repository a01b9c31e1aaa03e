"""What reading a stranger's file needs: bytes that are bounded before they are read, and values that are safe to print.

A data set that was unpacked from an archive may hold a named pipe (opening it waits for ever), a link to /dev/zero (it
never ends), or a few lines of JSON or YAML whose `repr` is gigabytes long or nested deeper than Python can follow.
"""

from __future__ import annotations

import errno
import os
import reprlib
import stat
import unicodedata
from pathlib import Path

_SHOWN = 80

_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8
_REPR.maxstring = _REPR.maxother = _SHOWN
_REPR.maxlong = 40


def read_bounded(path: str | Path, limit: int) -> bytes:
    """The whole of a regular file.

    Args:
        path: the file.
        limit: bytes; a larger file is not read.

    Raises:
        OSError: it cannot be read, is something else than a file, or is larger; `strerror` is the reason.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes; the limit is {limit}", str(path))
    with open(path, "rb") as file:
        return file.read(min(limit, status.st_size + 1))  # read(limit) would take the memory of all of it


def short(value: object) -> str:
    """The beginning of a value's `repr`, at most 80 characters, however large or nested the value is."""
    try:
        return _REPR.repr(value)[:_SHOWN]
    except ValueError:  # an integer of more digits than Python turns into text
        return f"a very long {type(value).__name__}"


def whole_number(text: str) -> int | None:
    """The number that decimal digits state, with or without a sign; None: there are too many of them for any use."""
    return int(text) if len(text) <= 18 else None


def printable(text: str) -> str:
    """The text with control characters and halves of characters as escapes: what a terminal or a file can be given."""
    if not any(unprintable(line) for line in text.split("\n")):
        return text
    return "".join(each if each == "\n" or not unprintable(each) else ascii(each)[1:-1] for each in text)


def unprintable(name: str) -> bool:
    """Whether a name holds what no file and no terminal should be given: control characters or half of a character."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
