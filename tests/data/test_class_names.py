"""Names to labels: order, renaming and what is said of mistakes."""

from __future__ import annotations

import logging

import pytest

from transfer.data.class_names import Occurrence, nearest_name, resolve_labels
from transfer.types import UserError


def found(**counts: int) -> dict[str, Occurrence]:
    return {name: Occurrence(count, f"{name}.xml") for name, count in counts.items()}


def test_found_names_are_sorted_and_given_ones_keep_their_order() -> None:
    many = found(**dict.fromkeys("hgfedcba", 1))
    assert resolve_labels(many, class_names=None, rename=None, source="here")[0] == tuple("abcdefgh")
    data = found(pear=2, apple=1)
    assert resolve_labels(data, class_names=None, rename=None, source="here") == (
        ("apple", "pear"),
        {"pear": 1, "apple": 0},
    )
    names, labels = resolve_labels(data, class_names=["pear", "fig", "apple"], rename=None, source="here")
    assert names == ("pear", "fig", "apple")
    assert labels == {"pear": 0, "apple": 2}


def test_the_datas_own_order() -> None:
    names, labels = resolve_labels(
        found(pear=1), class_names=None, rename={"nut": "pear"}, source="here", order=["nut", "fig", "pear"]
    )
    assert names == ("pear", "fig")
    assert labels == {"pear": 0}


def test_all_unknown_names_with_place_count_nearest_and_remedy() -> None:
    with pytest.raises(UserError) as caught:
        resolve_labels(found(aple=3, Pear=1, xyz=1), class_names=["apple", "pear"], rename=None, source="folder x")
    message = str(caught.value)
    for expected in (
        "folder x: 3 classes",
        "'aple': 3 boxes, first in aple.xml; nearest known name 'apple': rename={'aple': 'apple'}",
        "'Pear': 1 box, first in Pear.xml; nearest known name 'pear'",
        "'xyz': 1 box, first in xyz.xml\n",
        ": None}",
    ):
        assert expected in message


def test_rename_to_a_name_and_to_none() -> None:
    names, labels = resolve_labels(
        found(aple=3, apple=1, trash=9), class_names=None, rename={"aple": "apple", "trash": None}, source="here"
    )
    assert names == ("apple",)
    assert labels == {"aple": 0, "apple": 0, "trash": -1}


def test_nothing_left_is_said_in_words() -> None:
    with pytest.raises(UserError, match="no objects, so no classes are known; give class_names="):
        resolve_labels({}, class_names=None, rename=None, source="here")
    with pytest.raises(UserError, match="dropped by rename="):
        resolve_labels(found(a=1), class_names=None, rename={"a": None}, source="here")


@pytest.mark.parametrize(
    ("class_names", "rename", "reason"),
    [
        ("dog", None, r"give a list of names, such as \['dog'\]"),
        ([], None, "is empty"),
        (["dog", ""], None, "holds ''"),
        (["dog", 3], None, "holds 3"),
        (["dog", "cat", "dog"], None, "'dog' more than once"),
        (["dog"], {"wolf": "dgo"}, r"'dgo' is not in class_names \(nearest: 'dog'\)"),
        (["dog"], {"wolf": 3}, "both must be names"),
        (["dog"], "wolf", "give a mapping"),
    ],
)
def test_mistakes_in_the_config(class_names: object, rename: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        resolve_labels(found(dog=1), class_names=class_names, rename=rename, source="here")  # type: ignore[arg-type]


def test_absent_classes_and_unused_renames_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    resolve_labels(found(dog=1), class_names=["dog", "cow"], rename={"dogg": "dog"}, source="here")
    assert "no object of 'cow'" in caplog.text
    assert "'dogg', which does not occur; nearest: 'dog'" in caplog.text


def test_nearest_name() -> None:
    assert nearest_name("TVMonitor", ["tvmonitor", "sofa"]) == "tvmonitor"
    assert nearest_name("qqq", ["tvmonitor", "sofa"]) is None
