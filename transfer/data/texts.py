"""Many texts in one block of memory: the paths and names of a million images.

A list of a million texts is a million objects. A forked worker that reads one writes to its reference count, so the
page it lies on is copied: in the end every worker has the whole list for itself. A worker that was not forked gets all
of it pickled, object by object. One block of bytes is neither counted nor copied piece by piece.
"""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

import numpy as np

_LARGEST_ID = 1 << 63


class Texts(Sequence[str]):
    """A list of texts that cannot be changed."""

    __slots__ = ("block", "ends")

    def __init__(self, texts: Iterable[str]) -> None:
        """Pack the texts; any text can be, names of files with undecodable bytes among them."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self.block = b"".join(encoded)
        """All texts, one behind the other."""
        self.ends = np.fromiter(accumulate(map(len, encoded)), np.int64, len(encoded))
        """[N] int64: where each ends in `block`."""

    @classmethod
    def of_block(cls, block: bytes, ends: np.ndarray) -> Texts:
        """From what another had.

        Args:
            block, ends: as the attributes.

        Raises:
            ValueError: they do not belong together.
        """
        if ends.ndim != 1 or ends.dtype != np.int64 or (np.diff(ends, prepend=0, append=len(block)) < 0).any():
            raise ValueError("the ends of the texts do not fit their block")
        made = cls(())
        made.block, made.ends = block, ends
        return made

    def __eq__(self, other: object) -> bool:
        """Whether the other is a list, a tuple or such a block of the same texts."""
        if not isinstance(other, (Texts, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return f"Texts({reprlib.repr(list(self[:10]))}, {len(self)} in all)"

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        start = self.ends[place - 1] if place else 0
        return self.block[start : self.ends[place]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.tolist():
            yield self.block[start:end].decode("utf-8", "surrogatepass")
            start = end


def packed_ids(ids: Sequence[int | str]) -> Sequence[int | str]:
    """Image ids in little memory: whole numbers of 64 bits as an array, texts as `Texts`, anything else as it is."""
    if isinstance(ids, Texts):
        return ids
    if all(isinstance(each, str) for each in ids):
        return Texts(map(str, ids))
    if all(type(each) is int and -_LARGEST_ID <= each < _LARGEST_ID for each in ids):
        return array("q", map(int, ids))  # one by one they are plain int again
    return list(ids)
