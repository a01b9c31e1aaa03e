"""What a checkpoint says of the code and the data it comes from."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer.provenance import MOST_RECORDS, differences, fingerprint, git_state
from transfer.types import ImageRecord, MaskRecord, Record


@dataclass
class Listed:
    """A data set of given records."""

    records: list[Any]
    class_names: tuple[str, ...] = ("cat", "dog")

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Any:
        return self.records[index]


def boxed(number: int, *, folder: str = "here", left: float = 1.0, label: int = 0, difficult: bool = False) -> Record:
    boxes = np.array([[left, 2, 30, 40]], np.float32)
    flags = np.array([difficult])
    areas = np.array([100], np.float32)
    labels = np.array([label], np.int64)
    return Record(f"{folder}/{number}.jpg", number, (50, 60), boxes, labels, flags, np.array([False]), areas)


def test_data_that_moved_are_the_same() -> None:
    here, there = (fingerprint(Listed([boxed(n, folder=folder) for n in range(3)])) for folder in ("here", "there"))  # type: ignore[arg-type]
    assert here == there
    assert (here["images"], here["classes"], len(here["digest"])) == (3, 2, 16)


@pytest.mark.parametrize(
    "change", [{"left": 1.5}, {"label": 1}, {"difficult": True}, {"number": 7}], ids=lambda c: next(iter(c))
)
def test_a_changed_box_is_seen(change: dict[str, Any]) -> None:
    before = [boxed(n) for n in range(3)]
    after = [*before[:2], boxed(**{"number": 2, **change})]
    assert fingerprint(Listed(before))["digest"] != fingerprint(Listed(after))["digest"]  # type: ignore[arg-type]


def test_class_names_labels_and_masks_count(tmp_path: Path) -> None:
    images = [ImageRecord("a.jpg", "a", 0), ImageRecord("b.jpg", "b", 1)]
    plain = fingerprint(Listed(images))  # type: ignore[arg-type]
    assert fingerprint(Listed(images, ("dog", "cat"))) != plain  # type: ignore[arg-type]
    assert fingerprint(Listed([images[0], ImageRecord("b.jpg", "b", 0)])) != plain  # type: ignore[arg-type]
    mask = tmp_path / "a.png"
    mask.write_bytes(b"12")
    masked = Listed([MaskRecord("a.jpg", "a", (4, 4), str(mask))])
    before = fingerprint(masked)  # type: ignore[arg-type]
    assert fingerprint(masked) == before  # type: ignore[arg-type]
    mask.write_bytes(b"123")
    assert fingerprint(masked) != before  # type: ignore[arg-type]


def test_of_many_images_some_are_read_the_last_among_them() -> None:
    asked: list[int] = []

    class Many(Listed):
        def __len__(self) -> int:
            return 1_000_000

        def record(self, index: int) -> Any:
            asked.append(index)
            return ImageRecord("a.jpg", index, 0)

    assert fingerprint(Many([]))["images"] == 1_000_000  # type: ignore[arg-type]
    assert len(asked) == len(set(asked)) == MOST_RECORDS
    assert (min(asked), max(asked)) == (0, 999_999)


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return subprocess.run(
            ["git", "-C", str(tmp_path), *arguments],
            env={**os.environ, **who}, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    assert git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == commit
    (tmp_path / "notes").write_text("of no consequence")
    assert git_state(tmp_path) == commit
    (tmp_path / "code.py").write_text("2\n")
    assert git_state(tmp_path) == f"{commit}+changes"
    (tmp_path / "package").mkdir()
    assert git_state(tmp_path / "package") is None  # somebody else's checkout


def test_what_is_not_known_is_no_difference() -> None:
    then = {"torch": "2.6.0", "timm": "1.0.15", "git": None}
    now = {"torch": "2.14.1", "timm": "1.0.15", "git": "abc", "new": "1"}
    assert differences(then, now, list(now)) == ["torch 2.6.0 -> 2.14.1"]
