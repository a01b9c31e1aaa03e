"""Run directories are numbered anew at each start and never overwritten."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from transfer.engine.run_directory import (
    claimed,
    latest_run_directory,
    new_run_directory,
    newest_run_directory,
    write_text_atomically,
)
from transfer.types import UserError


def test_numbers_go_on_from_the_highest(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "name"
    assert [new_run_directory(root).name for _ in range(3)] == ["001", "002", "003"]
    (root / "002").rmdir()  # a gap is not filled: 002 may be spoken of somewhere
    assert new_run_directory(root).name == "004"
    (root / "999").mkdir()
    assert new_run_directory(root).name == "1000"
    assert new_run_directory(root).name == "1001"


def test_other_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "999x").mkdir()
    (tmp_path / "notes.txt").write_text("7", encoding="utf-8")
    assert new_run_directory(tmp_path).name == "001"


def test_parallel_starts_get_directories_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_directory(tmp_path / "runs"), range(40)))
    assert len(set(made)) == 40
    assert sorted(int(path.name) for path in made) == list(range(1, 41))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"run directory in .*file.*--work-dir"):
        new_run_directory(tmp_path / "file" / "runs")


def test_the_latest_is_the_highest_number_with_a_checkpoint(tmp_path: Path) -> None:
    for name in ("001", "999", "1000", "1001", "1002"):
        (tmp_path / name).mkdir()
    for name in ("001", "999", "1001"):
        (tmp_path / name / "last.pth").touch()
    assert (
        latest_run_directory(tmp_path).name == "1001"
    )  # not 999, as text would have it; 1002 has nothing to go on from


@pytest.mark.parametrize("exists", [False, True])
def test_no_run_to_go_on_from_is_said(tmp_path: Path, exists: bool) -> None:
    root = tmp_path / "runs"
    if exists:
        new_run_directory(root)
    with pytest.raises(UserError, match=r"--resume: no run with a last\.pth in .*runs"):
        latest_run_directory(root)


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text_atomically(path, "old ä\n")

    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fails)
        with pytest.raises(OSError, match="No space"):
            write_text_atomically(path, "new\n")
    assert path.read_text(encoding="utf-8") == "old ä\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_newest_directory_may_hold_nothing_yet(tmp_path: Path) -> None:
    assert newest_run_directory(tmp_path / "not there") is None
    for name in ("002", "010", "9", "011x"):
        (tmp_path / name).mkdir()
    (tmp_path / "002" / "last.pth").touch()
    assert newest_run_directory(tmp_path) == tmp_path / "010"
    assert latest_run_directory(tmp_path) == tmp_path / "002"


def _claim_and_wait(folder: Path, ready: Any) -> None:
    with claimed(folder):
        (folder / ".last.pth.1.part").touch()
        ready.set()
        signal.pause()


def _claim_and_leave_a_child(folder: Path, orphan: Any) -> None:
    with claimed(folder):
        child = os.fork()
        if child == 0:
            signal.pause()  # as a loader's worker that nobody told to end
        orphan.value = child
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="starts its process by fork, which spares it the imports")
def test_the_claim_of_a_killed_process_does_not_live_on_in_its_children(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    orphan = context.Value("i", 0)
    writer = context.Process(target=_claim_and_leave_a_child, args=(tmp_path, orphan))
    writer.start()
    writer.join(30)
    try:
        assert writer.exitcode == -signal.SIGKILL
        os.kill(orphan.value, 0)  # it is there
        with claimed(tmp_path):
            pass
    finally:
        os.kill(orphan.value, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="starts its process by fork, which spares it the imports")
def test_a_run_directory_is_written_by_one_process_until_that_dies(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_claim_and_wait, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(30)
    with pytest.raises(UserError, match="another process is writing this run"), claimed(tmp_path):
        raise AssertionError("must not come so far")
    assert (tmp_path / ".last.pth.1.part").exists()  # it may be at work on it
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    (tmp_path / "last.pth").touch()
    with claimed(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]  # what was half written is gone
    with claimed(tmp_path):
        pass  # given back
