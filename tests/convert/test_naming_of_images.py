"""What images are called when folders come together."""

from __future__ import annotations

from transfer.convert.annotated import AnnotatedImage
from transfer.convert.naming import target_names


def names(*entries: str, flat: bool = True) -> list[str]:
    """Of "group:path" entries."""
    images = []
    for entry in entries:
        group, _, name = entry.rpartition(":")
        images.append(AnnotatedImage(name, name, group, name, (4, 4), 1, 3))
    return target_names(images, flat=flat)


def test_unique_names_stay() -> None:
    assert names("train:a.jpg", "train:deep/b c.png", "val:é.jpg") == ["a.jpg", "b c.png", "é.jpg"]
    assert names("train:a.jpg", "train:deep/b c.png", flat=False) == ["a.jpg", "deep/b c.png"]


def test_all_that_share_a_name_get_their_folders() -> None:
    assert names("t:x/1.jpg", "t:y/1.jpg", "t:2.jpg") == ["x_1.jpg", "y_1.jpg", "2.jpg"]
    assert names("t:x/1.jpg", "t:y/1.jpg", flat=False) == ["x/1.jpg", "y/1.jpg"]


def test_then_their_split() -> None:
    assert names("train:1.jpg", "val:1.jpg") == ["train_1.jpg", "val_1.jpg"]
    assert names("train:x/1.jpg", "val:x/1.jpg", "val:y/1.jpg") == ["train_x_1.jpg", "val_x_1.jpg", "y_1.jpg"]
    assert names("train:1.jpg", "val:1.jpg", flat=False) == ["train/1.jpg", "val/1.jpg"]


def test_then_a_number() -> None:
    assert names(":a.jpg", ":a.png", ":a_2.jpg") == ["a.jpg", "a_3.png", "a_2.jpg"]
    assert names(":a.jpg", ":a.png", flat=False) == ["a.jpg", "a.png"]


def test_case_and_accents_that_a_file_system_may_not_tell_apart() -> None:
    assert names("train:A.jpg", "val:a.jpg") == ["train_A.jpg", "val_a.jpg"]
    assert names("train:e\u0301.jpg", "val:\u00e9.jpg") == ["train_e\u0301.jpg", "val_\u00e9.jpg"]


def test_what_a_list_of_names_cannot_hold() -> None:
    expected = ["a.jpg", "b_c.jpg", "d_e.jpg", "f.jpg"]
    assert names(": a .jpg", ":b\nc.jpg", ":d\\e.jpg", ":../f.jpg") == expected
