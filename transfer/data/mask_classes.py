"""What the values or colours of a data set's masks stand for, as a config or a text file says it.

Files that are read:

- one name a line, for the values 0, 1, ...;
- a name and its colour a line, as `name:r,g,b` (CVAT's labelmap.txt), `name,r,g,b` (class_dict.csv) or `r g b name`
  (CamVid's label_colors.txt).

Lines that begin with "#" are left out, and so is a line of column names above colours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.data.class_names import check_class_names
from transfer.data.masks import LARGEST_VALUE, Colour, ColourCoding, MaskCoding, ValueCoding
from transfer.types import IGNORED_PIXEL, UserError

_MOST_BYTES = 1 << 20
_SHOWN = 10
_NUMBERS = r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})"
_NAME_COLOUR = re.compile(rf"(.*?\S)\s*[:,;\t]\s*{_NUMBERS}\s*(?::.*)?")
_COLOUR_NAME = re.compile(rf"{_NUMBERS}[\s,]+(\S.*)")


@dataclass(frozen=True)
class MaskClasses:
    """The classes of a data set's masks: values, or where `by_colour` colours."""

    values: dict[int, str]
    """Value -> class name."""
    colours: dict[Colour, str]
    ignored_values: tuple[int, ...] = ()
    ignored_colours: tuple[Colour, ...] = ()

    @property
    def names(self) -> list[str]:
        """Each once, in the order in which they are given."""
        return list(dict.fromkeys([*self.values.values(), *self.colours.values()]))

    def coding(self, labels: Mapping[str, int]) -> MaskCoding:
        """Reads masks; `labels` holds the label of each name."""
        if self.colours:
            known = {colour: labels[name] for colour, name in self.colours.items()}
            return ColourCoding({**known, **dict.fromkeys(self.ignored_colours, IGNORED_PIXEL)})
        values = {value: labels[name] for value, name in self.values.items()}
        return ValueCoding({**values, **dict.fromkeys(self.ignored_values, IGNORED_PIXEL)})


def mask_classes(
    classes: Sequence[str] | Mapping[str, Any] | str | Path | None,
    colours: Mapping[str, Any] | None,
    ignore: Any,
    *,
    folder: Path,
) -> MaskClasses:
    """Check and join what a config says.

    Args:
        classes: names of the values 0, 1, ...; name -> value or values; or a file.
        colours: name -> colour or colours; exactly one of the two is given.
        ignore: value or values, or colour or colours; None: 255 where it is no class, of colours none.
        folder: that a file is relative to.

    Raises:
        UserError: what does not fit, all of it.
    """
    if (classes is None) == (colours is None):
        raise UserError(
            "give classes=[names of the values 0, 1, ...], {name: value} or a file, or colours={name: (r, g, b)}"
            + ("; not both" if classes is not None else "")
        )
    if isinstance(classes, (str, Path)):
        pairs = read_class_file(folder / classes)
    elif isinstance(classes, Mapping):
        pairs = _pairs(classes, by_colour=False)
    elif classes is not None:
        pairs = _numbered(classes)
    else:
        pairs = _pairs(colours or {}, by_colour=True)
    by_colour = colours is not None or any(isinstance(code, tuple) for _, code in pairs)
    problems = _problems(pairs, by_colour)
    if ignore is None:
        ignored: list[Any] = [] if by_colour or any(code == 255 for _, code in pairs) else [255]
    else:
        ignored = [*_several(ignore, by_colour)]
    problems += [f"ignore: {wrong}" for code in ignored if (wrong := _wrong(code, by_colour))]
    if not problems:
        names = {code: name for name, code in pairs}
        problems += [f"ignore: {code} is the class {names[code]!r}" for code in ignored if code in names]
    if problems:
        raise UserError("\n  ".join(["the classes of the masks:", *problems[:_SHOWN]]))
    if by_colour:
        return MaskClasses({}, {code: name for name, code in pairs}, (), tuple(ignored))
    return MaskClasses({code: name for name, code in pairs}, {}, tuple(ignored), ())


def read_class_file(path: Path) -> list[tuple[str, Any]]:
    """(name, value) or (name, colour) of each line.

    Raises:
        UserError: it cannot be read, names nothing, or some lines have a colour and others none.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: has {path.stat().st_size} bytes, which is no list of classes")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UserError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"classes is {str(path)!r}: cannot be read: {getattr(error, 'strerror', error)}") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UserError(f"{path}: names no class; write one name a line")
    coloured = [_coloured(line) for line in lines]
    if not any(coloured):
        return _numbered(lines)
    if coloured[0] is None:  # the names of the columns
        lines, coloured = lines[1:], coloured[1:]
    plain = [line for line, pair in zip(lines, coloured) if pair is None]
    if plain:
        raise UserError(f"{path}: some lines name a colour, others do not, such as {plain[0]!r:.80}")
    return [pair for pair in coloured if pair is not None]


def _coloured(line: str) -> tuple[str, Colour] | None:
    """(name, colour) of a line, None where it names no colour."""
    match = _COLOUR_NAME.fullmatch(line)
    if match:
        red, green, blue, name = match.groups()
    else:
        match = _NAME_COLOUR.fullmatch(line)
        if match is None:
            return None
        name, red, green, blue = match.groups()
    return name, (int(red), int(green), int(blue))


def _numbered(names: Sequence[str]) -> list[tuple[str, Any]]:
    """(name, value) for the values 0, 1, ..."""
    return [(name, value) for value, name in enumerate(check_class_names(names) or ())]


def _pairs(mapping: Mapping[str, Any], *, by_colour: bool) -> list[tuple[str, Any]]:
    """(name, value or colour) of each."""
    return [(name, code) for name, codes in mapping.items() for code in _several(codes, by_colour)]


def _several(codes: Any, by_colour: bool) -> list[Any]:
    """One or several values or colours as a list; a colour is a tuple, as it keys a table."""
    if not isinstance(codes, (list, tuple)):
        return [codes]
    if by_colour and not any(isinstance(code, (list, tuple)) for code in codes):
        return [tuple(codes)]
    return [tuple(code) if isinstance(code, list) else code for code in codes]


def _problems(pairs: Sequence[tuple[Any, Any]], by_colour: bool) -> list[str]:
    """What is wrong with names and codes."""
    problems = [] if pairs else ["there are none"]
    used: dict[Any, Any] = {}
    for name, code in pairs:
        if not isinstance(name, str) or not name.strip():
            problems.append(f"{name!r} is no name")
            continue
        wrong = _wrong(code, by_colour)
        if wrong:
            problems.append(f"{name!r}: {wrong}")
        elif code in used:
            problems.append(f"{code} stands for {used[code]!r} and for {name!r}")
        else:
            used[code] = name
    return problems


def _wrong(code: Any, by_colour: bool) -> str:
    """What is wrong with a value or colour; empty: nothing."""
    if by_colour:
        if isinstance(code, tuple) and len(code) == 3 and all(_is_value(channel, 255) for channel in code):
            return ""
        return f"{code!r:.60} is no colour (red, green, blue), each 0 to 255"
    return "" if _is_value(code, LARGEST_VALUE) else f"{code!r:.60} is no value of 0 to {LARGEST_VALUE}"


def _is_value(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
