"""Where a run leaves what it made: a new numbered directory each start, never one that is there already."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from transfer.types import TryAgain, UserError


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


def newest_run_directory(root: Path) -> Path | None:
    """The highest-numbered directory below `root`; None where there is none."""
    numbered = _numbered(root)
    return numbered[-1] if numbered else None


def _numbered(root: Path) -> list[Path]:
    return sorted((p for p in root.glob("[0-9][0-9][0-9]*") if p.name.isdigit()), key=lambda p: int(p.name))


def latest_run_directory(root: Path) -> Path:
    """The highest-numbered directory below `root` that holds a checkpoint to go on from.

    Raises:
        UserError: there is none.
    """
    for folder in reversed(_numbered(root)):
        if (folder / "last.pth").is_file():
            return folder
    raise UserError(f"--resume: no run with a last.pth in {str(root)!r}; start without --resume, or name a checkpoint")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a run directory; what an earlier one left half written is removed.

    The lock is the operating system's, on the directory itself, so it ends with the process however that ends; loader
    workers, which are forked from it and may outlive it, let go of their copy at their start. Where there are no such
    locks (Windows, some network file systems) nothing is kept.

    Raises:
        TryAgain: another process has claimed it.
    """
    try:
        lock = _lock(folder)
    except BlockingIOError as error:
        raise TryAgain(
            f"{str(folder)!r}: another process is writing this run; wait for it or stop it, or start a new run"
        ) from error
    except (OSError, ImportError):
        yield
        return
    try:
        for leftover in folder.glob(".*.part"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        _held.discard(lock)
        os.close(lock)


_held: set[int] = set()
"""Descriptors of the directories that this process has locked."""


def _let_go() -> None:
    """In a forked child: the parent's locks stay the parent's, and end with it."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _lock(folder: Path) -> int:
    """The descriptor of a locked directory. Raises: BlockingIOError where another process has locked it."""
    import fcntl  # not everywhere

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    _held.add(descriptor)
    return descriptor


def write_text_atomically(path: Path, text: str) -> None:
    """Write a whole file or none: to a temporary name in the same folder, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
