"""Lists of "path label" lines: what a label means, lines that cannot be used, and Places365's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transfer.data.image_list import ImageListDataset, Places365Dataset, read_categories
from transfer.data.mask_builder import gathering
from transfer.types import ClassificationDataset, UserError


def write(root: Path, text: str, *files: str, name: str = "list.txt") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    for file in files or ("a.jpg",):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def found(dataset: ClassificationDataset) -> list[tuple[str, str]]:
    records = [dataset.record(index) for index in range(len(dataset))]
    return [(str(record.image_id), dataset.class_names[record.label]) for record in records]


@pytest.mark.parametrize(
    ("text", "options", "names", "labels"),
    [
        # names, sorted
        ("a.jpg dog\n\nb.jpg cat\r\n# c.jpg emu\nd.jpg dog", {}, ("cat", "dog"), [1, 0, 1]),
        # a path and a class with white space
        ("my a.jpg\tred car\nb.jpg\tdog\n", {}, ("dog", "red car"), [1, 0]),
        ("my a.jpg dog\nb.jpg cat\n", {}, ("cat", "dog"), [1, 0]),
        # numbers without categories are names, in the order of their values
        ("a.jpg 10\nb.jpg 9\nc.jpg 010\n", {}, ("9", "10"), [1, 0, 1]),
        # numbers are positions in categories, whatever class_names says
        ("a.jpg 0\nb.jpg 2\n", {"categories": ["dog", "emu", "cat"]}, ("dog", "emu", "cat"), [0, 2]),
        (
            "a.jpg 0\nb.jpg 2\n",
            {"categories": ["dog", "emu", "cat"], "class_names": ["cat", "dog"]},
            ("cat", "dog"),
            [1, 0],
        ),
        ("a.jpg cat\nb.jpg 0\n", {"categories": ["dog", "cat"]}, ("dog", "cat"), [1, 0]),
        ("a.jpg 0\nb.jpg 1\n", {"categories": "names.txt"}, ("dog", "cat"), [0, 1]),
        ("a.jpg 0\nb.jpg 1\n", {"categories": "numbered.txt"}, ("cat", "a dog"), [0, 1]),
        # renamed: joined, and left out
        ("a.jpg 0\nb.jpg 1\nc.jpg 2\n", {"rename": {"0": "dog", "1": "cat", "2": "dog"}}, ("dog", "cat"), [0, 1, 0]),
        ("a.jpg x\nb.jpg y\nc.jpg z\n", {"rename": {"x": None}}, ("y", "z"), [0, 1]),
        ("a.jpg x\nb.jpg y\n", {"class_names": ["y", "z", "x"]}, ("y", "z", "x"), [2, 0]),
    ],
)
def test_what_labels_mean(
    tmp_path: Path, text: str, options: dict[str, Any], names: tuple[str, ...], labels: list[int]
) -> None:
    write(tmp_path, text, "a.jpg", "b.jpg", "my a.jpg")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    (tmp_path / "numbered.txt").write_text("a dog 1\ncat 0\n")
    dataset = ImageListDataset(tmp_path, "list.txt", **options)
    assert (dataset.class_names, dataset.labels().tolist()) == (names, labels)


def test_numbers_are_no_positions_in_class_names(tmp_path: Path) -> None:
    """The order of a checkpoint may be another than the list's: nothing says what 0 is."""
    write(tmp_path, "a.jpg 0\nb.jpg 1\n")
    with pytest.raises(UserError, match=r"2 classes in the data but not in class_names \(dog, cat\)"):
        ImageListDataset(tmp_path, "list.txt", class_names=["dog", "cat"])


def test_paths_below_the_root(tmp_path: Path) -> None:
    text = "/a/x.jpg 0\n./b//y.jpg 1\nc\\z.jpg 0\na..b/w...jpg 1\n"
    dataset = ImageListDataset(write(tmp_path, text, "deep/a/x.jpg"), "list.txt", folder="deep")
    assert [image for image, _ in found(dataset)] == ["a/x.jpg", "b/y.jpg", "c/z.jpg", "a..b/w...jpg"]
    assert dataset.record(0).path == str(tmp_path / "deep" / "a/x.jpg")


def test_lines_that_cannot_be_used_are_all_told(tmp_path: Path) -> None:
    text = (
        "a.jpg dog\n../secret.jpg dog\na.jpg cat\nonly_a_path.jpg\nx/../../y.jpg cat\nC:/windows.jpg cat\n"
        "b.jpg -1\nb.jpg cat\na.jpg dog\n.. dog\n"
    )
    write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        ImageListDataset(tmp_path, "list.txt")
    message = str(caught.value)
    assert "list.txt: 7 unusable:" in message
    for piece in (
        "line 2: '../secret.jpg' may lead out of root",
        "line 3: 'a.jpg' is 'cat' here and 'dog' before",
        "line 4: is 'only_a_path.jpg': write a path and its label",
        "line 5: 'x/../../y.jpg' may lead out of root",
        "line 6: 'C:/windows.jpg' may lead out of root",
        "line 7: label -1: numbers of classes begin at 0",
        "line 10: '..' may lead out of root",
    ):
        assert piece in message
    dataset = ImageListDataset(tmp_path, "list.txt", on_broken="skip")
    assert found(dataset) == [("a.jpg", "dog"), ("b.jpg", "cat")]
    assert len(dataset.skipped) == 7
    with gathering() as builders:
        ImageListDataset(tmp_path, "list.txt")
    assert {fault.code for fault in builders[0].faults} == {"list-line-faulty"}
    assert [remark.code for remark in builders[0].remarks] == ["list-entry-repeated"]


def test_of_many_lines_ten_are_shown(tmp_path: Path) -> None:
    write(tmp_path, "".join(f"{number}.jpg 2\n" for number in range(37)))
    with pytest.raises(UserError) as caught:
        ImageListDataset(tmp_path, "list.txt", categories=["a", "b"])
    message = str(caught.value)
    assert "37 unusable" in message
    assert message.count("label 2: categories has 2 classes, 0 to 1") == 10
    assert "and 27 more" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"list_file": "nothing.txt"}, "list_file is '{root}/nothing.txt': cannot be read: No such file"),
        ({"list_file": "empty.txt"}, "the list names no images"),
        ({"list_file": "binary.txt"}, "cannot be read"),
        ({"categories": "nothing.txt"}, "categories is '{root}/nothing.txt': cannot be read"),
        ({"categories": "gap.txt"}, "the numbers of its 3 classes must be 0 to 2, each once; missing: 1"),
        ({"categories": ["a", "a"]}, "categories holds 'a' more than once"),
        ({"categories": ["1", "0"]}, "categories holds '1' at another place than 1"),
        ({"categories": ["dog", "cats"]}, "line 2: label 'cat' is not in categories (nearest: 'cats')"),
        ({"folder": "deep"}, "folder is 'deep': {root} has no such folder"),
        ({"root": "nowhere"}, "root is 'nowhere': no such folder"),
        ({"class_names": ["dog", "cats"]}, "rename={'cat': 'cats'}"),
        ({"on_broken": "pass"}, "on_broken is 'pass'"),
    ],
)
def test_mistakes_of_the_arguments(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    write(tmp_path, "a.jpg dog\nb.jpg cat\n")
    for name, content in (("empty.txt", b"\n# x\n"), ("binary.txt", b"\xff\xd8\xff"), ("gap.txt", b"a 0\nb 2\nc 2\n")):
        (tmp_path / name).write_bytes(content)
    arguments = {"root": tmp_path, "list_file": "list.txt", **options}
    with pytest.raises(UserError) as caught:
        ImageListDataset(**arguments)
    assert expected.replace("{root}", str(tmp_path)) in str(caught.value)


def test_a_root_without_the_images(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg dog\nb/1.jpg cat\n", "images/a/1.jpg")
    with pytest.raises(UserError, match=r"none of 2 of its images .* such as .*a/1\.jpg: set root, or folder"):
        ImageListDataset(tmp_path, "list.txt")
    # one of the two is there: what is missing is told when it is read
    assert len(ImageListDataset(tmp_path, "list.txt", folder="images")) == 2


def test_files_of_categories(tmp_path: Path) -> None:
    def read(text: str) -> list[str]:
        (tmp_path / "names.txt").write_text(text)
        return read_categories(tmp_path / "names.txt")

    assert read("/a/airfield 0\n/b/bar 1\n") == ["/a/airfield", "/b/bar"]
    assert read("bar 1\nairfield 0\n") == ["airfield", "bar"]
    assert read("Boeing 707\nglider\n") == ["Boeing 707", "glider"]
    with pytest.raises(UserError, match="names no class"):
        read("\n")


def places(root: Path, lists: str = "") -> Path:
    categories = "/a/airfield 0\n/a/apartment_building/outdoor 1\n/b/bar 2\n"
    train = "/a/airfield/00000001.jpg 0\n/b/bar/00000002.jpg 2\n/a/apartment_building/outdoor/00000003.jpg 1\n"
    write(root, categories, name=f"{lists}categories_places365.txt")
    write(root, train, "data_256/a/airfield/00000001.jpg", name=f"{lists}places365_train_standard.txt")
    write(root, "Places365_val_00000001.jpg 2\n", name=f"{lists}places365_val.txt")
    (root / "val_256").mkdir()
    Image.new("RGB", (256, 256), (9, 9, 9)).save(root / "val_256/Places365_val_00000001.jpg")
    return root


@pytest.mark.parametrize("lists", ["", "filelist_places365-standard/"])
def test_places(tmp_path: Path, lists: str) -> None:
    root = places(tmp_path, lists)
    train = Places365Dataset(root)
    names = ("airfield", "apartment_building/outdoor", "bar")
    assert train.class_names == names
    assert found(train) == [
        ("a/airfield/00000001.jpg", "airfield"), ("b/bar/00000002.jpg", "bar"),
        ("a/apartment_building/outdoor/00000003.jpg", "apartment_building/outdoor"),
    ]  # fmt: skip
    assert train.record(0).path == str(root / "data_256/a/airfield/00000001.jpg")
    val = Places365Dataset(root, "val", class_names=names[::-1])
    assert val.labels().tolist() == [0]
    assert val[0].image.shape == (256, 256, 3)
    assert isinstance(val, ClassificationDataset)


def test_places_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split is 'test': Places365 has train, val"):
        Places365Dataset(tmp_path, "test")
    with pytest.raises(UserError, match=r"needs data_256/, places365_train_standard\.txt, categories_places365\.txt"):
        Places365Dataset(tmp_path)
    (places(tmp_path) / "places365_val.txt").unlink()
    with pytest.raises(UserError, match=r"needs places365_val\.txt there"):
        Places365Dataset(tmp_path, "val")
