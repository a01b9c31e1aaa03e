"""Whether what a checkpoint holds is what a checkpoint has to hold: every field by name, before anything uses it.

`weights_only=True` keeps a file from running code; it says nothing of what the file holds. A checkpoint that was
edited, or made by a stranger, is refused here with the fields that are wrong, not by whatever stumbles over them later.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from transfer.build import TOP_LEVEL

_DEEPEST = 50
_MOST_VALUES = 100_000
_LARGEST_INTEGER = 1 << 63
_SHOWN = 10


def wrong_fields(checkpoint: Mapping[Any, Any], *, file_bytes: int) -> list[str]:
    """What is wrong with the fields, one text each.

    Args:
        checkpoint: as it was read.
        file_bytes: size of its file: no tensor can be larger.
    """
    problems = [f"{name!r} is missing" for name in _NEEDED if name not in checkpoint]
    for name, (fits, wanted) in {**_NEEDED, **_OPTIONAL}.items():
        if name in checkpoint and not fits(checkpoint[name]):
            problems.append(f"{name!r} is {_kind(checkpoint[name])}, it must be {wanted}")
    problems += [] if problems else _contradictions(checkpoint)
    for place, tensor in _tensors(checkpoint):
        if len(problems) >= _SHOWN:
            break
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            problems.append(f"{place} is no plain tensor ({tensor.layout}, {tensor.device})")
        elif tensor.numel() * tensor.element_size() > file_bytes:
            problems.append(f"{place} states {list(tensor.shape)}, which is more than the whole file holds")
    return problems[:_SHOWN]


def _contradictions(checkpoint: Mapping[Any, Any]) -> list[str]:
    """Fields that do not fit each other, of a checkpoint whose fields are each as they must be."""
    problems = []
    names, ids = checkpoint["class_names"], checkpoint["category_ids"]
    if ids and len(ids) != len(names):  # masks and whole images have none
        problems.append(f"'category_ids' has {len(ids)} numbers for {len(names)} 'class_names'")
    if checkpoint["ema"] is not None:
        own = {name: tensor.shape for name, tensor in checkpoint["model"].items()}
        average = {name: tensor.shape for name, tensor in checkpoint["ema"]["module"].items()}
        other = sorted(name for name in {**own, **average} if own.get(name) != average.get(name))
        if other:
            problems.append(f"'ema' and 'model' differ in {', '.join(other[:5])}")
    return problems


def _kind(value: object) -> str:
    """The type's name: the value itself may be larger than any screen."""
    return "None" if value is None else f"of type {type(value).__name__}"


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its place; each container once, for a file can make them contain each other."""
    waiting, seen = [("", content)], set()
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Tensor):
            yield place or "it", value
        elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{place}.{key}"[:80].lstrip("."), item) for key, item in pairs if _may_hold(item, key)]


def _may_hold(item: object, key: object) -> bool:
    return isinstance(item, (Tensor, Mapping, list, tuple, set)) and isinstance(key, (str, int))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_INTEGER


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_INTEGER
    )


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    )


def _is_average(value: object) -> bool:
    return isinstance(value, Mapping) and _is_whole(value.get("updates")) and _is_state(value.get("module"))


def _is_optimizer(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        return False
    # torch numbers the parameters of a state from 0
    return all(isinstance(group.get("params"), list) and all(map(_is_whole, group["params"])) for group in groups)


def _is_scaler(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("mode"), str) and _is_plain(value.get("scaler"), dict)


def _is_config(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        node = json.loads(value)
    except (ValueError, RecursionError):
        return False
    if not isinstance(node, dict) or _depth(node) > _DEEPEST:
        return False
    kinds: dict[str, type] = {**dict.fromkeys(TOP_LEVEL, dict), "metrics": list, "task": str}
    present = all(name in node for name in TOP_LEVEL if name != "task")
    return present and all(name in kinds and isinstance(item, kinds[name]) for name, item in node.items())


def _depth(node: object) -> int:
    level, depth = [node], 0
    while level:
        inner = [each for each in level if isinstance(each, (dict, list))]
        level = [item for each in inner for item in (each.values() if isinstance(each, dict) else each)]
        depth += 1
    return depth


def _is_names(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(name, str) and name.strip() and not _is_unprintable(name) for name in value)
        and len(set(value)) == len(value)
    )


def _is_unprintable(name: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and abs(item) < _LARGEST_INTEGER for item in value)


def _is_backbone(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and all(_is_triple(value.get(name)) for name in ("mean", "std"))
        and isinstance(value.get("interpolation"), (str, type(None)))
        and _is_plain(value, dict)
    )


def _is_triple(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    return all(_is_number(item) and math.isfinite(item) for item in value)


def _is_metrics(value: object) -> bool:
    return isinstance(value, list) and all(_is_metric(each) for each in value)


def _is_metric(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("values"), Mapping):
        return False
    named = all(isinstance(value.get(name), str) for name in ("protocol", "main"))
    return named and all(isinstance(key, str) and _is_number(item) for key, item in value["values"].items())


def _is_versions(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _is_plain(value: object, kind: type) -> bool:
    """Of this type, and nothing but texts, numbers, lists and dicts in it; not too many, for they can be repeated."""
    if not isinstance(value, kind):
        return False
    level, count = [value], 0
    while level:
        count += len(level)
        if count > _MOST_VALUES:
            return False
        inner = []
        for each in level:
            if isinstance(each, Mapping) and all(isinstance(key, (str, int)) for key in each):
                inner += list(each.values())
            elif isinstance(each, (list, tuple)):
                inner += list(each)
            elif not (each is None or isinstance(each, (str, bool)) or _is_number(each)):
                return False
        level = inner
    return True


_Check = tuple[Callable[[object], bool], str]


def _or_none(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


def _plain(kind: type) -> Callable[[object], bool]:
    return lambda value: _is_plain(value, kind)


_STATE = "a dict of names and tensors"
_NEEDED: dict[str, _Check] = {
    "model": (_is_state, _STATE),
    "ema": (_or_none(_is_average), f"None or a dict of 'updates' (a whole number) and 'module' ({_STATE})"),
    "optimizer": (_or_none(_is_optimizer), "None or an optimizer's dict of 'state' and 'param_groups'"),
    "scaler": (_or_none(_is_scaler), "None or a dict of 'mode' (a text) and 'scaler' (a dict)"),
    "iteration": (_is_whole, "a whole number"),
    "seed": (_is_whole, "a whole number"),
    "world_size": (_is_whole, "a whole number"),
    "best": (_or_none(_is_number), "None or a number"),
    "config": (_is_config, f"the JSON text of a config, with its top-level names and at most {_DEEPEST} levels deep"),
    "class_names": (_is_names, "a list of different texts that can be printed"),
    "category_ids": (_is_ids, "a list of whole numbers"),
    "backbone": (_is_backbone, "a dict of plain values with 'mean' and 'std' (three numbers each) and 'interpolation'"),
    "metrics": (_is_metrics, "a list of dicts of 'protocol', 'main' (texts) and 'values' (numbers by name)"),
    "measured_at": (_is_whole, "a whole number"),
    "versions": (_is_versions, "a dict of texts"),
}
_OPTIONAL: dict[str, _Check] = {
    "schedule": (_plain(dict), "a dict of plain values"),
    "early_stopping": (_or_none(_plain(dict)), "None or a dict of plain values"),
    "card": (_or_none(_plain(dict)), "None or a dict of plain values"),
    "git": (_or_none(_plain(str)), "None or a text"),
    "data": (_or_none(_plain(dict)), "None or a dict of plain values"),
    "averaged": (_or_none(_plain(list)), "a list of texts"),
}
