"""What the fuzz tests share: changes of bytes and of nested values that hypothesis chooses, and what sound data are.

The number of examples is small enough for every run of the tests; TRICKSTACK_FUZZ=10 makes ten times as many.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from backbones.contract import BackboneError
from transfer.types import DetectionDataset, UserError

FACTOR = int(os.environ.get("TRICKSTACK_FUZZ", "1"))

ATTEMPTS: list[bool] = []
"""Of every example: whether it was read in spite of its changes. For the figures of a long run."""


def fuzz(examples: int) -> settings:
    """The same examples at each run; `examples` at TRICKSTACK_FUZZ=1."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


Place = st.integers(0, 1_000_000)
"""Taken modulo the number of places there are."""

ByteEdits = st.lists(
    st.tuples(st.sampled_from(("flip", "set", "insert", "delete", "cut", "repeat")), Place, st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *(math.nan, math.inf, -math.inf),
    *(
        "",
        " ",
        "0",
        "1",
        "nan",
        "1e999",
        "9" * 5000,
        "a\0b",
        "\ud800",
        "\ufeff",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
    ),
    *("a" * 300, "b.jpg", "x\ny", "\x1b[2J", "<script>", "{}", "$a$", "café", "cafe\u0301"),
    *([], {}, [[]], [0, 0, 1, 1], [math.nan] * 4, [1e300] * 4, [-5, -5, 2, 2], {"id": 1}, [[1, 1, 9, 1, 9, 9]], [None]),
    *({"size": [40, 50], "counts": [2000]}, {"size": [10**9, 10**9], "counts": "0"}, {"a": {"b": {"c": []}}}),
)
"""What may stand where something else is expected."""

TreeEdits = st.lists(
    st.tuples(
        Place,
        st.sampled_from(("value", "value", "value", "remove", "repeat", "nest")),
        st.one_of(st.sampled_from(VALUES), st.integers(-100, 100), st.floats(), st.text(max_size=5)),
    ),
    min_size=1,
    max_size=3,
)


def changed_bytes(data: bytes, edits: Sequence[tuple[str, int, bytes]]) -> bytes:
    """The data with every edit done."""
    for kind, place, piece in edits:
        at = place % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << place % 8)]) + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + 1 + len(piece) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "repeat":
            data = data[:at] + data[at // 2 :]
    return data


def changed_tree(tree: Any, edits: Sequence[tuple[int, str, Any]], leave: tuple[str, ...] = ()) -> Any:
    """A copy of nested dicts and lists with every edit done; keys of `leave` and what is below them stay."""
    tree = copy.deepcopy(tree)
    for place, kind, value in edits:
        places = list(_places(tree, leave))
        if not places:
            return tree
        holder, key = places[place % len(places)]
        if kind == "remove":
            del holder[key]
        elif kind == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = [holder[key]] if kind == "nest" else copy.deepcopy(value)
    return tree


def _places(node: Any, leave: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        if key not in leave:
            yield node, key
            yield from _places(node[key], leave)


def read_or_refused(read: Callable[[], Any]) -> Any:
    """What `read` gives, or None where it raises this project's own error; any other error is the test's failure."""
    try:
        result = read()
    except (UserError, BackboneError):
        ATTEMPTS.append(False)
        return None
    ATTEMPTS.append(True)
    return result


def check_boxes(dataset: DetectionDataset) -> DetectionDataset:
    """Every image can be asked for; boxes are finite, have an area and lie within it, labels are those of classes."""
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except UserError:  # the image is not what its annotation says
            sample = None
        record = dataset.record(index)
        for truth, size in ((record, record.size), (sample, sample.image.shape[:2] if sample else (0, 0))):
            if truth is None:
                continue
            assert np.isfinite(truth.boxes).all()
            assert (truth.boxes[:, 2:] > truth.boxes[:, :2]).all()
            assert (truth.boxes >= 0).all()
            assert (truth.boxes <= [size[1], size[0], size[1], size[0]]).all()
            assert ((truth.labels >= 0) & (truth.labels < len(dataset.class_names))).all()
        assert np.isfinite(record.areas).all()
        assert (record.areas >= 0).all()
    check_names(dataset.class_names)
    return dataset


def check_names(names: Sequence[str]) -> None:
    """Class names can be written to any file and shown on any terminal."""
    for name in names:
        assert name.encode("utf-8")
        assert not any(ord(character) < 32 for character in name)
