"""The same picture more than once: within a split it weighs double, across splits it is a leak.

Equal means equal decoded pixels, so a copy under another name, in another lossless encoding or by a link is found; a
JPEG saved again is not. Of a leak the copy in the split that measures is the one to keep: test before val before train.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from transfer.checking.findings import ERROR, WARNING, Finding
from transfer.checking.images import ImageFacts
from transfer.checking.reading import PARTS


class Pictured(Protocol):
    """An image of a data set, whatever is annotated."""

    @property
    def path(self) -> str:
        """Of the image's file."""
        ...

    @property
    def annotation(self) -> str:
        """The file that its truth comes from."""
        ...


Picture = TypeVar("Picture", bound=Pictured)
Picture_co = TypeVar("Picture_co", bound=Pictured, covariant=True)


class HasPictures(Protocol[Picture_co]):
    """A split of a data set."""

    @property
    def name(self) -> str:
        """ "train", "val" or "test"."""
        ...

    @property
    def images(self) -> Sequence[Picture_co]:
        """Of the split."""
        ...

    @property
    def held_out(self) -> set[str]:
        """Paths of the images that data.val, given as a fraction, holds out."""
        ...


@dataclass(frozen=True)
class Use(Generic[Picture]):
    """An image in a part."""

    part: str
    image: Picture


@dataclass(frozen=True)
class Pair(Generic[Picture]):
    """A picture that is there before."""

    kept: Use[Picture]
    again: Use[Picture]

    @property
    def is_leak(self) -> bool:
        """They are in different splits."""
        return self.kept.part != self.again.part


def same_pictures(parts: Sequence[HasPictures[Picture]], facts: Mapping[str, ImageFacts]) -> list[Pair[Picture]]:
    """Every image whose picture is there before, with the one to keep."""
    groups: dict[bytes, list[Use[Picture]]] = defaultdict(list)
    for part in sorted(parts, key=lambda part: -PARTS.index(part.name)):  # what measures comes first and is kept
        for image in part.images:
            fact = facts[image.path]
            if fact.code is None:
                groups[fact.pixel_digest].append(Use(part.name, image))
    return [Pair(uses[0], again) for uses in groups.values() for again in uses[1:]]


def duplicate_findings(
    pairs: Sequence[Pair[Picture]],
    parts: Sequence[HasPictures[Picture]],
    facts: Mapping[str, ImageFacts],
    *,
    remedy_within: str = "remove one with its annotation, or merge their boxes where they differ",
) -> Iterator[Finding]:
    """One finding a pair; `remedy_within` is for two in one split."""
    draws_validation = {part.name for part in parts if part.held_out}
    for pair in pairs:
        kept, again = pair.kept, pair.again
        how = _how(facts[kept.image.path], facts[again.image.path])
        if pair.is_leak:
            message = f"is in {again.part}, and {how} in {kept.part}: {_name(kept.image)}"
            remedy = f"take it out of {again.part}: what was trained on measures nothing"
            code, severity, part = "image-leak", ERROR, f"{again.part}, {kept.part}"
        else:
            message = f"is there before, {how}: {_name(kept.image)}"
            if again.part in draws_validation:
                message += "; as data.val is drawn from train, the two may be parted"
            remedy = remedy_within
            code, severity, part = "image-duplicate", WARNING, again.part
        file, other = _name(again.image, kept.image), _name(kept.image)
        yield Finding(severity, code, part, file, message, remedy, other, fixable=pair.is_leak)


def _how(first: ImageFacts, second: ImageFacts) -> str:
    if first.path == second.path:
        return "the same file"
    return "byte for byte" if first.file_digest == second.file_digest else "the same pixels in another encoding"


def _name(image: Pictured, other: Pictured | None = None) -> str:
    """The image's file; its annotation where two annotations share one image."""
    if other is not None and other.path == image.path and other.annotation != image.annotation:
        return image.annotation
    return image.path
