"""Which name is which label: names from the config in their order, or found in the data and sorted.

A name the config does not know is the commonest fault of a new data set. It is answered with the name, where it occurs,
how often, the nearest known one and the `rename=` that mends it, for all such names at once.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transfer.data.strangers import unprintable
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)
_SHOWN = 20


@dataclass(slots=True)
class Occurrence:
    """How often a name occurs in the data and where first."""

    count: int
    first_file: str


def nearest_name(name: str, known: Sequence[str]) -> str | None:
    """The known name most like `name`, regardless of case, or None when none is alike."""
    by_lower = {candidate.lower(): candidate for candidate in reversed(known)}
    match = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[match[0]] if match else None


def check_class_names(class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    """The config's names as a tuple.

    Raises:
        UserError: a bare string, no names, a name that is not text or is empty, or one given twice.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise UserError(f"class_names is the text {class_names!r}: give a list of names, such as [{class_names!r}]")
    names = tuple(class_names)
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong or not names:
        found = f"holds {wrong[0]!r}" if wrong else "is empty"
        raise UserError(
            f"class_names {found}: give one non-empty name per class, or leave it out to use the data's own"
        )
    refuse_unusable(names, "class_names")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise UserError(f"class_names holds {', '.join(map(repr, twice))} more than once: each name is one class")
    return names


def refuse_unusable(names: Sequence[str], source: str) -> None:
    """Ask whether names can be written to files and shown on a terminal.

    Raises:
        UserError: empty names, names with control characters or half characters; all of them.
    """
    wrong = [ascii(name) for name in names if not name.strip() or unprintable(name)]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"{source}: {', '.join(wrong[:_SHOWN])}{more}: a class name cannot be empty or hold control characters or "
            f"broken text; mend it, or map it by rename={{{wrong[0]}: 'another'}}"
        )


def check_rename(rename: Mapping[str, str | None] | None, class_names: Sequence[str] | None) -> dict[str, str | None]:
    """The config's renaming as a dict.

    Raises:
        UserError: not a mapping of text to text or None, or a new name that class_names does not hold.
    """
    if rename is None:
        return {}
    if not isinstance(rename, Mapping):
        raise UserError(f"rename is {rename!r}: give a mapping such as {{'old': 'new', 'unwanted': None}}")
    problems = []
    for old, new in rename.items():
        if not isinstance(old, str) or not (new is None or (isinstance(new, str) and new.strip())):
            problems.append(f"rename={{{old!r}: {new!r}}}: both must be names; None drops the class")
        elif new is not None and class_names is not None and new not in class_names:
            problems.append(f"rename={{{old!r}: {new!r}}}: {new!r} is not in class_names{_hint(new, class_names)}")
    if problems:
        raise UserError("\n".join(problems))
    return dict(rename)


def resolve_labels(
    found: Mapping[str, Occurrence],
    *,
    class_names: Sequence[str] | None,
    rename: Mapping[str, str | None] | None,
    source: str,
    order: Sequence[str] | None = None,
    tell: Callable[[int, str], None] = _LOGGER.log,
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Decide the classes and the label of every name in the data.

    Args:
        found: every name that occurs in the data.
        class_names: the config's, in its order; None: those found.
        rename: old name -> new name, or None to drop the boxes.
        source: what the messages call the data, such as its folder.
        order: all names in the data's own order (COCO's category ids), used in place of sorting.
        tell: takes the level and the text of a warning.

    Returns:
        The class names, and for every found name its label, -1 where its boxes are dropped.

    Raises:
        UserError: names outside class_names (all of them), or no name at all.
    """
    known = check_class_names(class_names)
    renamed = check_rename(rename, known)
    _warn_unused(renamed, {*found, *(order or ())}, source, tell)
    new_names = {name: renamed.get(name, name) for name in (*found, *(order or ()))}
    if known is None:
        kept = [name for name in new_names.values() if name is not None]
        if order is None:
            known = tuple(sorted(set(kept)))
        else:
            in_order = (new_names[name] for name in order)
            known = tuple(dict.fromkeys(name for name in in_order if name is not None))
        refuse_unusable(known, source)
        if not known:
            reason = "all objects are dropped by rename=" if found else "no objects"
            raise UserError(f"{source}: {reason}, so no classes are known; give class_names=[...]")
    unknown = {name: found[name] for name in found if new_names[name] is not None and new_names[name] not in known}
    if unknown:
        raise UserError(_unknown_message(unknown, known, source))
    occurring = {new_names[name] for name in found}
    absent = [name for name in known if name not in occurring]
    if absent:
        tell(logging.WARNING, f"{source}: no object of {', '.join(map(repr, absent))}")
    position = {name: label for label, name in enumerate(known)}
    labels = {}
    for name in found:
        new = new_names[name]
        labels[name] = -1 if new is None else position[new]
    return known, labels


def _hint(name: str, known: Sequence[str]) -> str:
    nearest = nearest_name(name, known)
    return f" (nearest: {nearest!r})" if nearest else f" ({', '.join(known)})"


def _warn_unused(
    rename: Mapping[str, str | None], names: set[str], source: str, tell: Callable[[int, str], None]
) -> None:
    for old in rename:
        if old not in names:
            nearest = nearest_name(old, sorted(names))
            hint = f"; nearest: {nearest!r}" if nearest else ""
            tell(logging.WARNING, f"{source}: rename names {old!r}, which does not occur{hint}")


def _unknown_message(unknown: Mapping[str, Occurrence], known: Sequence[str], source: str) -> str:
    plural = "classes" if len(unknown) > 1 else "class"
    lines = [f"{source}: {len(unknown)} {plural} in the data but not in class_names ({', '.join(known)}):"]
    for name, occurrence in sorted(unknown.items())[:_SHOWN]:
        nearest = nearest_name(name, known)
        boxes = f"{occurrence.count} box{'es' if occurrence.count > 1 else ''}"
        line = f"  {name!r}: {boxes}, first in {occurrence.first_file}"
        if nearest:
            line += f"; nearest known name {nearest!r}: rename={{{name!r}: {nearest!r}}}"
        lines.append(line)
    if len(unknown) > _SHOWN:
        lines.append(f"  and {len(unknown) - _SHOWN} more")
    example = min(unknown)
    lines.append(f"Add them to class_names, map them by rename=, or drop their boxes by rename={{{example!r}: None}}.")
    return "\n".join(lines)
