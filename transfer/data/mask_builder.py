"""What the formats of mask files share while they look for their files: pairs, faults, and which class is which label.

Faults of single images are collected; on_broken="stop" reports all of them in one error, "skip" leaves them out. A
check of the data wants the sound rest, too: within `gathering`, faults are kept and never raised.

Names are known before any mask is decoded, from a list or a file of the data set. So, other than with boxes, `rename`
of a name that the data set does not have is an error, and None ignores the pixels of a class.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from transfer.data.class_names import check_class_names, check_rename, nearest_name, refuse_unusable
from transfer.data.mask_dataset import MOST_CLASSES
from transfer.data.table_builder import Fault
from transfer.types import IGNORED_PIXEL, UserError

_LOGGER = logging.getLogger(__name__)
_SHOWN = 10

_GATHERED: ContextVar[list[MaskBuilder] | None] = ContextVar("gathered builders", default=None)


@contextmanager
def gathering() -> Iterator[list[MaskBuilder]]:
    """Hand out every builder that is made within the context; their faults raise nothing."""
    builders: list[MaskBuilder] = []
    token = _GATHERED.set(builders)
    try:
        yield builders
    finally:
        _GATHERED.reset(token)


@dataclass
class MaskBuilder:
    """Collects images with their masks, and the faults met on the way."""

    source: str
    """What messages call the data."""
    on_broken: str = "stop"
    paths: list[str] = field(default_factory=list)
    mask_paths: list[str] = field(default_factory=list)
    """Empty where masks are drawn."""
    image_ids: list[int | str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line for each image that cannot be used."""
    faults: list[Fault] = field(default_factory=list)
    """The same in parts."""
    remarks: list[Fault] = field(default_factory=list)
    """What is odd and does no harm."""

    def __post_init__(self) -> None:
        if self.on_broken not in ("stop", "skip"):
            raise UserError(f'on_broken is {self.on_broken!r}: use "stop" or "skip"')
        gathered = _GATHERED.get()
        if gathered is not None:
            gathered.append(self)

    def fault(self, code: str, file: str, reason: str, *, image: str | None = None, line: str | None = None) -> None:
        """Note an image that cannot be used; as `transfer.data.table_builder.TableBuilder.fault`."""
        self.problems.append(line or f"{file}: {reason}")
        self.faults.append(Fault(code, file, reason, image))

    def add(self, path: str, mask_path: str | None, image_id: int | str) -> None:
        """Take one image; `mask_path` is None where the mask is drawn."""
        self.paths.append(path)
        self.image_ids.append(image_id)
        if mask_path is not None:
            self.mask_paths.append(mask_path)

    def finish(self) -> None:
        """Ask whether the data set can be used.

        Raises:
            UserError: collected faults with on_broken="stop", or no image at all.
        """
        shown = "\n".join(f"  {problem}" for problem in self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            shown += f"\n  and {len(self.problems) - _SHOWN} more"
        if self.problems and self.on_broken == "stop" and _GATHERED.get() is None:
            raise UserError(
                f"{self.source}: {len(self.problems)} unusable:\n{shown}\n"
                'Mend or remove them, or set on_broken="skip" to leave them out.'
            )
        if not self.paths:
            left_out = f"; left out:\n{shown}" if self.problems else ""
            raise UserError(f"{self.source}: no usable image{left_out}")
        if self.problems and _GATHERED.get() is None:
            _LOGGER.warning("%s: %d left out:\n%s", self.source, len(self.problems), shown)


def labels_of(
    declared: Sequence[str],
    *,
    class_names: Sequence[str] | None,
    rename: Mapping[str, str | None] | None,
    source: str,
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Decide the classes and the label of every name that a data set has.

    Args:
        declared: the data set's own names, each once, in its order.
        class_names: the config's, in its order; None: the data set's.
        rename: old name -> new name, which several may share; None: its pixels are ignored.
        source: what messages call the data.

    Returns:
        The class names, and for every declared name its label or IGNORED_PIXEL.

    Raises:
        UserError: names outside class_names, renamed names that the data set does not have, too many classes; all of
            them.
    """
    known = check_class_names(class_names)
    renamed = check_rename(rename, known)
    problems = [
        f"rename={{{old!r}: {new!r}}}: the data set has no class {old!r}{_hint(old, declared)}"
        for old, new in renamed.items()
        if old not in declared
    ]
    new_names = {name: renamed.get(name, name) for name in declared}
    if known is None:
        known = tuple(dict.fromkeys(name for name in new_names.values() if name is not None))
        refuse_unusable(known, source)
        if not known:
            problems.append("no classes are left: rename= ignores all of them")
    unknown = {old: new for old, new in new_names.items() if new is not None and new not in known}
    if unknown:
        problems += [f"class {old!r}{_hint(new, known)}" for old, new in unknown.items()]
        example = next(iter(unknown))
        problems.append(
            f"These are not in class_names ({', '.join(known)}): add them, map them by rename=, or ignore their pixels "
            f"by rename={{{example!r}: None}}"
        )
    if len(known) > MOST_CLASSES:
        problems.append(f"{len(known)} classes: a mask has room for {MOST_CLASSES}")
    if problems:
        raise UserError("\n  ".join([f"{source}:", *problems]))
    absent = [name for name in known if name not in new_names.values()]
    if absent:
        _LOGGER.warning("%s: has no class %s", source, ", ".join(map(repr, absent)))
    position = {name: label for label, name in enumerate(known)}
    labels = {old: IGNORED_PIXEL if new is None else position[new] for old, new in new_names.items()}
    return known, labels


def _hint(name: str, known: Sequence[str]) -> str:
    nearest = nearest_name(name, known)
    return f" (nearest: {nearest!r})" if nearest else ""
