"""The command that makes one run of a ranking by itself: the task's config file, and what is changed in it."""

from __future__ import annotations

import ast
import copy
import shlex

from transfer.build import Node, apply_override
from transfer.types import UserError

TOOLS = {
    "detection": "tools/train_det.py",
    "segmentation": "tools/train_seg.py",
    "classification": "tools/train_cls.py",
}


def command_of(path: str, base: Node, config: Node) -> str:
    """A command line of a training tool.

    Args:
        path: of the config file.
        base: what the file says.
        config: the run's.
    """
    words = [TOOLS[config.get("task", "detection")], path]
    if overrides := overrides_of(base, config):
        words += ["--cfg-options", *overrides]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word of a command line; dicts are easier to read between double quotes."""
    needs = shlex.quote(word) != word
    return f'"{word}"' if needs and not set(word) & set('"\\$`!') else shlex.quote(word)


def _override(key: str, value: object) -> str:
    """As `apply_override` reads it: a text that reads as no literal stands for itself."""
    if isinstance(value, str):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return f"{key}={value}"
    return f"{key}={value!r}"


def overrides_of(base: Node, config: Node) -> list[str]:
    """What --cfg-options need to say to turn one config into another: as few and as small as they can be."""
    overrides: list[str] = []
    for key, value in config.items():
        said = _difference(base, base.get(key), value, key)
        overrides += [_override(key, value)] if said is None else said
    return overrides


def _difference(base: Node, ours: object, theirs: object, where: str) -> list[str] | None:
    """The overrides below a key; None where it has to be given whole."""
    if ours == theirs and type(ours) is type(theirs):
        return []
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return None
    if ours.get("type") != theirs.get("type") or set(ours) - set(theirs):  # another class's arguments; keys that go
        return None
    overrides: list[str] = []
    for key, value in theirs.items():
        dotted = f"{where}.{key}"
        said = _difference(base, ours[key], value, dotted) if key in ours else None
        said = [_override(dotted, value)] if said is None else said
        if key not in ours and not _takes(base, said[0]):
            return None
        overrides += said
    return overrides


def _takes(base: Node, override: str) -> bool:
    """Whether a key that the config does not set may be given on the command line."""
    try:
        apply_override(copy.deepcopy(base), override)
    except UserError:
        return False
    return True
