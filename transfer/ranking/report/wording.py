"""How numbers and lists are written, the same everywhere in a report."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

NOTHING = "-"
_BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 2) -> str:
    """12.345 -> "12.35"; "-" where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def signed(value: float | None, digits: int = 2) -> str:
    """With its sign: "+1.20"."""
    text = number(value, digits)
    return text if text == NOTHING or text.startswith("-") or not text.strip("0.") else f"+{text}"


def interval(ends: tuple[float | None, float | None], *, with_sign: bool = False, digits: int = 2) -> str:
    """ "70.12 to 72.30"; "-" where there is none."""
    low, high = ends
    if not is_known(low) or not is_known(high):
        return NOTHING
    write = signed if with_sign else number
    return f"{write(low, digits)} to {write(high, digits)}"


def p_value(p: float | None) -> str:
    """Three digits, or "< 0.001"."""
    if p is None or not math.isfinite(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_phrase(p: float) -> str:
    """ "Holm p = 0.012"."""
    text = p_value(p)
    return f"Holm p {text}" if text.startswith("<") else f"Holm p = {text}"


def rank(value: float) -> str:
    """A rank, or a mean of ranks: "1", "1.5", "2.33"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def amount(value: float | None) -> str:
    """A cost, to three digits at the least: "4.65", "43.2", "5,600"."""
    size = abs(value) if value is not None and math.isfinite(value) else 0
    return number(value, 0 if size >= 100 else 1 if size >= 10 else 2)


def millions(value: float | None) -> str:
    """4652008 -> "4.65"."""
    return NOTHING if value is None else amount(value / 1e6)


def counted(count: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """ "a, b and c"."""
    *others, last = list(names) or [""]
    return f"{', '.join(others)} and {last}" if others else last


def tasks_phrase(count: int) -> str:
    """ "both tasks"."""
    return "both tasks" if count == 2 else f"all {count} tasks"


def shown(text: str) -> str:
    """A foreign text with control characters, halves of characters and marks that turn the direction as escapes."""
    return "".join(
        each
        if each in "\n\t" or (unicodedata.category(each) not in ("Cc", "Cs") and each not in _BIDI)
        else ascii(each)[1:-1]
        for each in text
    )


def last_line(text: str | None) -> str:
    """What a traceback ends with."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def shortened(text: str, most: int) -> str:
    """At most so many characters: the middle is left out."""
    if len(text) <= most:
        return text
    head = (most - 1 + 1) // 2
    tail = most - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :]}"


def seeds_phrase(seeds: Sequence[int]) -> str:
    """ "seeds 0, 1 and 2"."""
    return f"seed{'' if len(seeds) == 1 else 's'} {listed(map(str, seeds))}"
