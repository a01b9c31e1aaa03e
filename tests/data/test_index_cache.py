"""The cache of indexes: a start from it equals one without, whatever was changed, damaged or in the way."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_outcomes import Outcome, check_noticed, content, entries, uncached, write_image

from transfer.data import evidence, index_cache, voc
from transfer.data.coco import COCODataset
from transfer.data.home import cache_home
from transfer.data.table_builder import recording
from transfer.data.voc import VOCDataset, XMLFolderDataset
from transfer.types import UserError


def write_xml(path: Path, boxes: list[tuple[str, int]], *, sized: bool = True) -> None:
    size = "<size><width>50</width><height>40</height></size>" if sized else ""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>{xmax:02d}</xmax><ymax>30</ymax>"
        "</bndbox></object>"
        for name, xmax in boxes
    )
    path.write_text(f"<annotation>{size}{objects}</annotation>")


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A year's folder with four images; indexes of any size are kept below tmp_path / "home"."""
    monkeypatch.setattr(index_cache, "FEWEST", 1)
    monkeypatch.setenv("TRICKSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRICKSTACK_INDEX_CACHE", raising=False)
    folder = tmp_path / "data" / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\nc\nd\nb\n")  # b twice: a line in the log
    boxes = {"a": [("dog", 20)], "b": [("cat", 55), ("dog", 30)], "c": [], "d": [("cat", 3)]}  # clipped; without area
    for stem, each in boxes.items():
        write_xml(folder / "Annotations" / f"{stem}.xml", each, sized=stem != "c")  # c: its image's header is read
        write_image(folder / "JPEGImages" / f"{stem}.png")
    return folder


def opened(kit: Path, **options: Any) -> Outcome:
    """What reading the devkit gives."""
    return content(lambda: VOCDataset(kit, "train", **options))


def test_the_second_start_reads_no_annotation_and_says_the_same(
    kit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transfer.data")
    options = {"class_names": ["dog", "cat", "cow"]}
    first = opened(kit, **options)
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert len(said) == 4, "repeated entry, clipped, without area, no cow"
    caplog.clear()
    monkeypatch.setattr(voc, "read_bounded", None)  # any reading would fail
    assert opened(kit, **options) == first
    *repeated, (_, told) = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert repeated == said
    assert "index of 4 images from the cache" in told
    assert len(entries()) == 1


def same_length(kit: Path) -> None:
    write_xml(kit / "Annotations/a.xml", [("dog", 21)])


def same_length_and_date(kit: Path) -> None:
    path = kit / "Annotations/a.xml"
    before = path.stat()
    replacement = kit / "new"
    write_xml(replacement, [("dog", 21)])
    os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
    replacement.rename(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def removed(kit: Path) -> None:
    (kit / "Annotations/a.xml").unlink()


def broken(kit: Path) -> None:
    (kit / "Annotations/a.xml").write_text("<annotation>")


def shorter_list(kit: Path) -> None:
    (kit / "ImageSets/Main/train.txt").write_text("a\nb\n")


def dangling(kit: Path) -> None:
    """An annotation that was there becomes a link to nothing, and the list is shorter: the rest is still looked at."""
    (kit / "Annotations/a.xml").unlink()
    (kit / "Annotations/a.xml").symlink_to(kit / "nothing.xml")


def image_gone(kit: Path) -> None:
    (kit / "JPEGImages/a.png").unlink()


def image_preferred(kit: Path) -> None:
    write_image(kit / "JPEGImages/a.jpg")


def other_header(kit: Path) -> None:
    write_image(kit / "JPEGImages/c.png", width=60)


def list_gone(kit: Path) -> None:
    (kit / "ImageSets/Main/train.txt").unlink()


@pytest.mark.parametrize("on_broken", ["stop", "skip"])
@pytest.mark.parametrize(
    "change",
    [
        *(same_length, same_length_and_date, removed, broken, dangling, shorter_list),
        *(image_gone, image_preferred, other_header, list_gone),
    ],
)
def test_whatever_changes_is_noticed(
    kit: Path, change: Callable[[Path], None], on_broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_noticed(lambda: opened(kit, on_broken=on_broken), lambda: change(kit), monkeypatch)


def test_what_lies_beside_a_dangling_link_is_looked_at_all_the_same(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kit / "Annotations/zz.xml").symlink_to(kit / "nothing.xml")  # in no list
    before = opened(kit)
    same_length(kit)
    assert opened(kit) == uncached(monkeypatch, lambda: opened(kit)) != before


def test_what_cannot_be_looked_at_is_never_taken_for_the_same(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setitem(evidence._LOOKS, "xml", refused)
        before = opened(kit)
        same_length(kit)
        after = opened(kit)
    assert after == uncached(monkeypatch, lambda: opened(kit)) != before


def test_an_added_annotation_is_noticed(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a list may name what is not there yet; and a folder without lists takes what it finds
    (kit / "ImageSets/Main/train.txt").write_text("a\ne\n")
    flat = kit.parent / "flat"
    flat.mkdir()
    for stem in "ab":
        write_xml(flat / f"{stem}.xml", [("dog", 20)])
        write_image(flat / f"{stem}.png")
    assert "no e.xml" in str(opened(kit))
    assert len(opened(kit, on_broken="skip")["paths"]) == 1  # type: ignore[index]
    assert len(content(lambda: XMLFolderDataset(flat))["paths"]) == 2  # type: ignore[index]
    for folder in (kit / "Annotations", flat):
        write_xml(folder / "e.xml", [("bird", 9)])
    for folder in (kit / "JPEGImages", flat):
        write_image(folder / "e.png")
    assert len(opened(kit, on_broken="skip")["paths"]) == 2  # type: ignore[index]
    whole = content(lambda: XMLFolderDataset(flat))
    assert whole == uncached(monkeypatch, lambda: content(lambda: XMLFolderDataset(flat)))
    assert whole["names"] == ("bird", "dog")  # type: ignore[index]


def test_other_options_have_an_entry_of_their_own(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several: list[dict[str, Any]] = [
        {},
        {"class_names": ["cat", "dog"]},
        {"class_names": ["dog", "cat"]},
        {"class_names": ["dog"]},  # an error
        {"rename": {"cat": "dog"}},
        {"rename": {"cat": None}},
        {"on_broken": "skip"},
        {"on_broken": "never"},  # an error
    ]
    for _ in range(2):
        for options in several:
            found = opened(kit, **options)
            assert found == uncached(monkeypatch, lambda options=options: opened(kit, **options)), options  # type: ignore[misc]
    assert len(entries()) == 6


def test_each_list_has_an_entry_of_its_own(kit: Path) -> None:
    (kit / "ImageSets/Main/val.txt").write_text("d\n")
    for _ in range(2):
        lengths = [len(VOCDataset(kit, each)) for each in ("train", "val", ["train", "val"], ["val", "train"])]
        assert lengths == [4, 1, 4, 4]
        assert VOCDataset(kit, ["val", "train"]).table.paths[0].endswith("d.png")
    assert len(entries()) == 4


def test_names_are_told_apart_however_they_are_given(kit: Path) -> None:
    """numpy shortens the text of an array of more than 1000 to its ends."""
    names = np.array([f"class{index}" for index in range(1200)])
    names[[600, 601]] = "dog", "cat"
    assert VOCDataset(kit, "train", class_names=names).class_names[600] == "dog"  # type: ignore[arg-type]
    names[[600, 601]] = "cat", "dog"
    assert VOCDataset(kit, "train", class_names=names).class_names[600] == "cat"  # type: ignore[arg-type]
    assert len(entries()) == 2


def test_a_lower_limit_of_pixels_is_kept_to(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(kit)
    monkeypatch.setenv("TRICKSTACK_MAX_PIXELS", "100")
    refused = opened(kit)
    assert "c.png" in str(refused)
    assert "the limit is 100" in str(refused)


def test_without_a_home_the_files_are_read(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened(kit)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TRICKSTACK_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert opened(kit) == expected
    with pytest.raises(UserError, match="set TRICKSTACK_HOME"):
        cache_home()


def test_a_home_that_cannot_be_looked_into_is_none(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened(kit)

    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        (entry,) = entries()
        entry.unlink()
        patch.setattr(index_cache.Path, "is_file", lambda path: refused(path) if path == entry else path.exists())
        assert opened(kit) == expected


def test_a_broken_set_ends_in_the_same_error_each_time(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(kit)
    expected = uncached(monkeypatch, lambda: opened(kit))
    assert "not well-formed" in str(expected)
    assert [opened(kit) for _ in range(3)] == [expected] * 3
    assert entries() == []
    skipping = uncached(monkeypatch, lambda: opened(kit, on_broken="skip"))
    assert [opened(kit, on_broken="skip") for _ in range(3)] == [skipping] * 3
    assert len(skipping["rest"][0]) == 1  # type: ignore[index]


def test_no_damage_to_an_entry_does_harm(kit: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "transfer.data")
    expected = opened(kit)
    (entry,) = entries()
    whole = entry.read_bytes()
    generator = np.random.default_rng(0)
    for length in [0, 1, 4, len(whole) // 2, len(whole) - 1]:
        entry.write_bytes(whole[:length])
        caplog.clear()
        assert opened(kit) == expected
        assert "damaged index" in caplog.text
        assert opened(kit) == expected
        assert "damaged index" not in caplog.records[-1].getMessage(), "it was written anew"
    for position in generator.integers(0, len(whole), 60).tolist():
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(generator.integers(8))
        entry.write_bytes(bytes(flipped))
        assert opened(kit) == expected, position
    entry.write_bytes(generator.bytes(5000))
    assert opened(kit) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": np.array([0, 9, 0], np.int64)},
        {"labels": np.array([0, 1, 0], np.int32)},
        {"boxes": np.zeros((9, 4), np.float32)},
        {"starts": np.array([0, 9, 3, 3, 3], np.int64)},
        {"starts": np.array([0, 1, 3, 3], np.int64)},
        {"path_ends": np.array([10**9, 1, 2, 3], np.int64)},
        {"sizes": np.array([[object()] * 2] * 4)},  # a pickle
        {"facts": np.frombuffer(b"{}", np.uint8)},
        {"facts": np.frombuffer(b"[" * 100_000, np.uint8)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_entry_whose_parts_do_not_fit_is_not_used(
    kit: Path, wrong: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transfer.data")
    expected = opened(kit)
    (entry,) = entries()
    with np.load(entry) as stored:
        arrays = {name: stored[name] for name in stored.files}
    assert wrong.keys() <= arrays.keys()
    np.savez(entry, **{**arrays, **wrong})
    assert opened(kit) == expected
    assert "damaged index" in caplog.text


def test_a_place_that_cannot_be_written_is_no_error(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened(kit)
    (entry,) = entries()
    entry.unlink()
    entry.mkdir()  # in the way of the file
    assert opened(kit) == expected
    assert entries() == [entry], "nothing half-written is left"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRICKSTACK_HOME", str(tmp_path / "file"))
    assert opened(kit) == expected


def test_nothing_is_written_beside_the_data_or_when_turned_off(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(kit.parent.rglob("*"))
    for value in ("0", "off", "No"):
        monkeypatch.setenv("TRICKSTACK_INDEX_CACHE", value)
        opened(kit)
    assert not (tmp_path / "home").exists()
    monkeypatch.setenv("TRICKSTACK_INDEX_CACHE", "1")
    opened(kit)
    assert len(entries()) == 1
    assert sorted(kit.parent.rglob("*")) == before


def test_small_sets_are_read_each_time(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "FEWEST", 5)
    opened(kit)
    assert entries() == []


def test_a_relative_root_is_told_apart_by_where_it_begins(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "data"
    other.parent.mkdir()
    (tmp_path / "data").rename(other)
    other.with_name("copy").symlink_to(other)
    for place, root in (
        (tmp_path / "other", "data"),
        (tmp_path, "other/data"),  # the same folder by another name
        (other, "."),
        (tmp_path, "other/copy"),
    ):
        monkeypatch.chdir(place)
        for _ in range(2):
            found = content(lambda root=root: VOCDataset(root, "train"))  # type: ignore[misc]
            assert all(Path(path).is_file() for path in found["paths"])  # type: ignore[index]
            assert all(path.startswith("VOC2007" if root == "." else root) for path in found["paths"])  # type: ignore[index]
    assert len(entries()) == 4


def test_processes_that_write_at_the_same_time(kit: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: opened(kit), range(24)))
    assert all(each == found[0] for each in found)
    assert len(entries()) == 1


def test_another_version_of_the_code_reads_anew(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(kit)
    monkeypatch.setattr(index_cache, "_code", lambda: "later")
    monkeypatch.setattr(voc, "read_bounded", None)
    with pytest.raises(TypeError):
        opened(kit)


def test_who_wants_what_the_files_state_gets_it(kit: Path) -> None:
    opened(kit)
    with recording() as builders:
        opened(kit)
    assert [len(builder.boxes) for builder in builders] == [4]


def test_coco(tmp_path: Path, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": 2**40, "file_name": "a.png", "width": 50, "height": 40}, {"id": 3, "file_name": "sub/b.png"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 18, "bbox": [1, 2, 3, 4], "area": 5.5}],
    }
    folder, path = tmp_path / "photographs", tmp_path / "instances.json"
    (folder / "sub").mkdir(parents=True)
    write_image(folder / "a.png")
    write_image(folder / "sub/b.png")

    def read(**options: Any) -> Outcome:
        return content(lambda: COCODataset(path, folder, **options))

    def without_cache(**options: Any) -> Outcome:
        return uncached(monkeypatch, lambda: read(**options))

    path.write_text(json.dumps(stated))
    first = read()
    assert read() == first == without_cache()
    assert first["rest"][2] == [17, 18]  # type: ignore[index]
    assert first["ids"] == [(int, 2**40), (int, 3)]  # type: ignore[index]
    assert read(include_empty=False) == without_cache(include_empty=False) != first
    assert read(rename={"dog": None}) == without_cache(rename={"dog": None})
    stated["annotations"][0]["bbox"] = [1, 2, 3, 5]
    path.write_text(json.dumps(stated))
    changed = read()
    assert changed == without_cache() != first
    write_image(folder / "sub/b.png", width=33)  # its size is not stated
    assert read() == without_cache() != changed
    other = path.with_name("other.json")
    other.write_text(json.dumps({**stated, "annotations": []}))
    for _ in range(2):
        assert content(lambda: COCODataset(other, folder))["boxes"][1] == []  # type: ignore[index]
        assert len(read()["boxes"][1]) == 1  # type: ignore[index]
    kept = read()
    (folder / "a.png").unlink()  # its size is stated: nothing but the folder's names tells
    assert "a.png" in str(read())
    write_image(folder / "a.png")
    assert read() == kept
    (folder / "sub/b.png").unlink()
    assert "sub/b.png" in str(read())


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TRICKSTACK_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_home() == tmp_path / ".cache" / "trickstack"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_home() == tmp_path / ".cache" / "trickstack"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_home() == tmp_path / "caches" / "trickstack"
    monkeypatch.setenv("TRICKSTACK_HOME", "~/mine")
    assert cache_home() == tmp_path / "mine"
