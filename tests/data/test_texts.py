"""Packed lists of texts: the same as the lists they were made of."""

from __future__ import annotations

import pickle
from array import array

import numpy as np
import pytest

from transfer.data.texts import Texts, packed_ids

ODD = ["", "a", "", "\u00e9\u4e2d\U0001f600", "x" * 300, "bad\udc80name", "\ud800", "a\x00b", ""]


@pytest.mark.parametrize("texts", [[], [""], ["a"], ODD], ids=len)
def test_they_equal_the_list_they_were_made_of(texts: list[str]) -> None:
    packed = Texts(iter(texts))
    assert list(packed) == texts
    assert [packed[place] for place in range(len(packed))] == texts
    assert [packed[place] for place in range(-len(packed), 0)] == texts
    assert packed[1:-1] == texts[1:-1]
    assert packed[::-2] == texts[::-2]
    for outside in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            packed[outside]
    assert list(pickle.loads(pickle.dumps(packed))) == texts
    assert list(Texts.of_block(packed.block, packed.ends)) == texts


def test_they_compare_with_lists_of_texts() -> None:
    packed = Texts(ODD)
    assert packed == ODD
    assert packed == tuple(ODD)
    assert packed == Texts(ODD)
    for other in ([], ODD[:-1], [*ODD[:-1], "b"], [*ODD, ""], Texts(ODD[:-1]), "a", None):
        assert packed != other
    assert repr(Texts(["a", "b"])) == "Texts(['a', 'b'], 2 in all)"


def test_they_pickle_as_two_blocks() -> None:
    # a list would take two bytes of framing and more for each text
    texts = [f"{number:06d}" for number in range(10_000)]
    assert len(pickle.dumps(Texts(texts), protocol=5)) < 10_000 * (6 + 8) + 500


@pytest.mark.parametrize("ends", [[2, 1], [1, 5], [-1, 4]])
def test_ends_that_do_not_fit_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Texts.of_block(b"abcd", np.array(ends, np.int64))


def test_ids_stay_what_they_were() -> None:
    numbers: list[int | str] = [7, -3, 2**63 - 1]
    packed = packed_ids(numbers)
    assert isinstance(packed, array)
    assert list(packed) == numbers
    assert all(type(each) is int for each in packed)
    assert list(packed_ids(["7", "a"])) == ["7", "a"]
    assert packed_ids([7, "7"]) == [7, "7"]  # two different ids
    assert packed_ids([2**70]) == [2**70]
    assert packed_ids([True]) == [True]
