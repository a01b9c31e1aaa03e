"""Where a run leaves what it made: a new numbered directory each start, never one that is there already."""

from __future__ import annotations

import os
import re
from pathlib import Path

from transfer.types import UserError


def new_run_directory(root: Path, *, option: str = "--work-dir") -> Path:
    """Make the next numbered directory below `root`: 001, 002, ...

    Args:
        root: where.
        option: of the command, that the user can give another place with.
    Raises:
        UserError: `root` cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = max((int(p.name) for p in root.iterdir() if re.fullmatch(r"\d{3,}", p.name)), default=0)
        while True:  # another process may take the number first: mkdir decides
            number += 1
            try:
                (root / f"{number:03d}").mkdir()
            except FileExistsError:
                continue
            return root / f"{number:03d}"
    except OSError as error:
        raise UserError(f"cannot make a run directory in {str(root)!r}: {error}; give another {option}") from error


def latest_run_directory(root: Path) -> Path:
    """The highest-numbered directory below `root` that holds a checkpoint to go on from.

    Raises:
        UserError: there is none.
    """
    numbered = sorted(root.glob("[0-9][0-9][0-9]*"), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    for folder in reversed(numbered):
        if (folder / "last.pth").is_file():
            return folder
    raise UserError(f"--resume: no run with a last.pth in {str(root)!r}; start without --resume, or name a checkpoint")


def write_text_atomically(path: Path, text: str) -> None:
    """Write a whole file or none: to a temporary name in the same folder, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
