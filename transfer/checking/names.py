"""Class names: unknown ones, probable slips, classes without boxes, and which corrections are beyond doubt."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from transfer.checking.findings import ERROR, NOTE, WARNING, Finding, counted
from transfer.checking.reading import Part, new_name, occurrences
from transfer.data.class_names import nearest_name

_LIKENESS = 0.75
"""difflib's ratio from which two names may be one: "Appel" and "apple" 0.8, "cat" and "car" 0.67."""
_RARE = 10
"""A slip is so many times rarer than the name it stands for."""
_FILES_SHOWN = 3


def name_findings(parts: Sequence[Part], corrections: Mapping[str, str], slips: Mapping[str, str]) -> Iterator[Finding]:
    """Everything odd about the parts' class names.

    Args:
        parts: of the config.
        corrections: see `certain_corrections`.
        slips: see `probable_slips`.
    """
    train = parts[0]
    unknown = _unknown(parts)
    for part in parts:
        for name in (name for name in unknown if part.name in unknown[name]):
            yield _unknown_finding(part, name, train, corrections)
        if part.classes_differ:
            message = f"its classes, or their order, are not those of train: {', '.join(train.class_names or ())}"
            yield Finding(ERROR, "classes-differ", part.name, "", message, "give both the same class_names=[...]")
    yield from _unused_renames(parts)
    for name, meant in slips.items():
        yield _slip_finding(parts, name, meant, corrections)


def _counts(parts: Sequence[Part]) -> Counter[str]:
    """Boxes of each class, renamed, over all parts."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(_of_part(part))
    return counts


def _of_part(part: Part) -> Counter[str]:
    counts: Counter[str] = Counter()
    for builder in part.builders:
        for name, occurrence in occurrences(builder).items():
            renamed = new_name(builder, name)
            if renamed is not None:
                counts[renamed] += occurrence.count
    return counts


def _unknown(parts: Sequence[Part]) -> dict[str, set[str]]:
    """Name -> the parts in which it occurs and is none of the classes."""
    unknown: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        known = part.class_names
        for name in _of_part(part) if known is not None else ():
            if name not in (known or ()):
                unknown[name].add(part.name)
    return dict(unknown)


def certain_corrections(parts: Sequence[Part]) -> dict[str, str]:
    """Stated name -> class, where they differ only in case or white space and one class alone fits.

    Without class_names in the config, the variant that occurs most often is the class; of two equally frequent ones
    none is.
    """
    train = parts[0]
    counts = _counts(parts)
    if train.names_from_config and train.class_names is not None:
        classes = dict.fromkeys(train.class_names, 1)
    else:
        classes = dict(counts)
    variants: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        variants[_plain(name)].append(name)
    corrections = {}
    for name in counts:
        alike = sorted(variants.get(_plain(name), ()), key=lambda variant: -classes[variant])
        if train.names_from_config:
            certain = len(alike) == 1 and name not in classes
        else:
            certain = len(alike) > 1 and classes[alike[0]] > classes[alike[1]] and name != alike[0]
        if certain:
            corrections[name] = alike[0]
    return corrections


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _where(part: Part, name: str) -> tuple[str, str]:
    """The first file with a box of this (renamed) name, and in words how many there are."""
    files: dict[str, int] = {}
    for image in part.images:
        number = sum(new_name(image.builder, box.name) == name for box in image.boxes)
        if number:
            files[image.file] = files.get(image.file, 0) + number
    boxes = sum(files.values())
    more = f", first in {', '.join(Path(file).name for file in list(files)[:_FILES_SHOWN])}" if len(files) > 1 else ""
    text = f"{counted(boxes, 'box', 'boxes')} in {counted(len(files), 'image')}"
    return next(iter(files), ""), text + more


def _unknown_finding(part: Part, name: str, train: Part, corrections: Mapping[str, str]) -> Finding:
    known = part.class_names or ()
    nearest = corrections.get(name) or nearest_name(name, known)
    file, text = _where(part, name)
    if train.names_from_config:
        message = f"{name!r} is not in class_names: {text}"
    else:
        message = f"{name!r} does not occur in train: {text}"
    if nearest:
        message += f"; nearest: {nearest!r}"
        remedy = f"rename={{{name!r}: {nearest!r}}} in every data set if it is the same class"
    else:
        message += f"; known: {', '.join(known)}"
        remedy = f"add it to class_names, or drop its boxes by rename={{{name!r}: None}}"
    return Finding(ERROR, "class-unknown", part.name, file, message, remedy, fixable=name in corrections)


def _unused_renames(parts: Sequence[Part]) -> Iterator[Finding]:
    """Old names of rename= that no part has; one that is missing in a single split is no mistake."""
    builders = [(part.name, builder) for part in parts for builder in part.builders]
    found = {name for _, builder in builders for name in (*occurrences(builder), *(builder.name_order or ()))}
    olds = {old for _, builder in builders for old in builder.rename or {}} - found
    for old in sorted(olds) if found else ():
        nearest = nearest_name(old, sorted(found))
        hint = f"; nearest: {nearest!r}" if nearest else ""
        where = ", ".join(dict.fromkeys(name for name, builder in builders if old in (builder.rename or {})))
        remedy = "look whether it is misspelt, or take it out"
        yield Finding(NOTE, "rename-unused", where, "", f"rename= names {old!r}, not in the data{hint}", remedy)


def probable_slips(parts: Sequence[Part], corrections: Mapping[str, str]) -> dict[str, str]:
    """Class found in the data -> the much more frequent one that it looks like; none where the config names them."""
    if parts[0].names_from_config:
        return {}
    unknown = _unknown(parts)
    counts = {name: count for name, count in _counts(parts).items() if name not in unknown}
    slips = {}
    for name, count in counts.items():
        meant = corrections.get(name) or _twin(name, counts)
        if meant is None:
            frequent = {other.casefold(): other for other in counts if counts[other] >= _RARE * count}
            alike = difflib.get_close_matches(name.casefold(), list(frequent), n=1, cutoff=_LIKENESS)
            alike = alike or [other for other in frequent if _exchanged(name.casefold(), other)]
            meant = frequent[alike[0]] if alike else None
        if meant is not None:
            slips[name] = meant
    return slips


def _exchanged(one: str, other: str) -> bool:
    """Whether two neighbouring letters changed places: in short names difflib finds too little that is alike."""
    swaps = (other[:at] + other[at + 1] + other[at] + other[at + 2 :] for at in range(len(other) - 1))
    return len(one) > 2 and one != other and one in swaps


def _slip_finding(parts: Sequence[Part], name: str, meant: str, corrections: Mapping[str, str]) -> Finding:
    places = [(part.name, *_where(part, name)) for part in parts]
    there = [(part, file, text) for part, file, text in places if file]
    told = "; ".join(f"{part}: {text}" for part, _, text in there)
    boxes = counted(_counts(parts)[meant], "box", "boxes")
    message = f"{name!r} ({told}) is a class of its own beside {meant!r} ({boxes})"
    remedy = f"rename={{{name!r}: {meant!r}}} in every data set if it is a slip"
    where, fixable = ", ".join(part for part, _, _ in there), name in corrections
    return Finding(WARNING, "class-misspelt", where, there[0][1], message, remedy, fixable=fixable)


def _twin(name: str, counts: Mapping[str, int]) -> str | None:
    """A name that differs in case or white space only; of two such names, the lesser one has a twin."""
    twins = [other for other in counts if other != name and _plain(other) == _plain(name)]
    best = max(twins, key=lambda other: (counts[other], other), default=None)
    return best if best is not None and (counts[best], best) > (counts[name], name) else None
