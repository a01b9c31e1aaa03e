"""Where this project keeps what it can make again: the embedded sample, and the indexes of large data sets."""

from __future__ import annotations

import os
from pathlib import Path

from transfer.types import UserError


def cache_home() -> Path:
    """$TRICKSTACK_HOME, or the folder `trickstack` of $XDG_CACHE_HOME, which without it is ~/.cache.

    Raises:
        UserError: nothing says where that is: this user has no home folder.
    """
    try:
        return _cache_home()
    except RuntimeError as error:
        raise UserError(f"{error}: set TRICKSTACK_HOME to a folder that things may be kept in") from None


def _cache_home() -> Path:
    home = os.environ.get("TRICKSTACK_HOME")
    if home:
        return Path(home).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME", "")
    # its specification: a relative path is invalid and to be ignored
    return (Path(caches) if os.path.isabs(caches) else Path.home() / ".cache") / "trickstack"
