"""Where a check leaves its files: a new numbered folder, or one that the user names; each file whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

from transfer.types import UserError


def new_folder(root: Path) -> Path:
    """Make the next numbered folder below `root`: 001, 002, ...

    Raises:
        UserError: it cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in root.iterdir() if re.fullmatch(r"\d{3,}", path.name)), default=0)
        while True:  # another process may take the number first: mkdir decides
            number += 1
            try:
                (root / f"{number:03d}").mkdir()
            except FileExistsError:
                continue
            return root / f"{number:03d}"
    except OSError as error:
        raise UserError(f"cannot make a folder in {str(root)!r}: {error}; give another --output") from error


def check_output(folder: Path, *, numbered: bool) -> None:
    """Ask before the work whether its result can be written.

    Args:
        folder: for the report; or, numbered, for the folders of all reports.
        numbered: other files in it do no harm.

    Raises:
        UserError: the folder holds something, or cannot be made or written to.
    """
    if folder.is_dir() and any(folder.iterdir()) and not numbered:
        raise UserError(f"--output {str(folder)!r} is there and not empty: give a new folder")
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"cannot write to {str(folder)!r}, as {existing} is no folder to write to: give another --output"
        )


def named_folder(folder: Path) -> Path:
    """Make the folder.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {str(folder)!r}: cannot be made: {error.strerror or error}") from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none: to a temporary name in the same folder, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no text
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
