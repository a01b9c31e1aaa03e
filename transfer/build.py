"""From a config file to objects.

A config is a Python file of nested `dict(type=Class, ...)`, read by mmengine's `Config` (`read_base` for parts that
configs share, class references that are not imported until used). Here it becomes a plain nested dict in which a class
is its dotted name, so that it can be kept as JSON in a checkpoint; `build` makes the objects, innermost first.

Deviations from mmengine: an unknown key is an error that names the nearest known one (mmengine accepts it in silence),
overrides reach existing keys only, top-level names are fixed, and names with an underscore are private to the file.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer.types import UserError

TOP_LEVEL: dict[str, str] = {
    "task": "detection (where it is left out), segmentation or classification",
    "model": "the network, built with num_classes",
    "criterion": "output and targets to losses",
    "postprocess": "output to predictions",
    "data": "dict of the data sets: train, val (or None: the test set is used), test",
    "loader": "batch size, shapes, workers",
    "augment": "dict of the pipelines: train, test",
    "optimizer": "SGD, AdamW or another, with lr and the base_batch it holds for",
    "schedule": "lr factor at each iteration",
    "training": "length of the run, precision, seed, checkpoints",
    "metrics": "list of what is measured on the validation and test set; the first one's main figure ranks runs",
}

TRUSTED_MODULES = (
    "backbones",
    *(f"transfer.{folder}" for folder in ("augment", "batch", "data", "heads", "losses", "metrics", "optim")),
)
"""Where a class named in a checkpoint may come from without --trust."""

TRUSTED_FUNCTIONS = (
    "transfer.heads.faster_rcnn.faster_rcnn_fpn",
    "transfer.heads.c4.faster_rcnn_c4",
    "transfer.heads.dilated_c5.faster_rcnn_c5",
    "transfer.heads.yolov3.yolov3",
    "transfer.heads.ssd.ssd",
    "transfer.heads.fcn.fcn",
    "transfer.heads.smp_decoder.smp_decoder",
    "transfer.heads.classification.classifier",
    "transfer.data.held_out.held_out",
    "transfer.augment.classification_presets.classification_train",
    "transfer.augment.classification_presets.classification_test",
    *(
        f"transfer.augment.presets.{name}"
        for name in (
            "two_stage_train",
            "two_stage_test",
            "square_train",
            "square_test",
            "one_stage_train",
            "segmentation_train",
            "segmentation_test",
        )
    ),
)
"""Functions of this project that a checkpoint may name: they build. Others write, read or connect."""

SETTINGS = {"loader": "transfer.loading.LoaderSettings", "training": "transfer.engine.settings.TrainingSettings"}
"""The top-level dicts without a `type`, and the class whose arguments they hold; imported only when asked for."""

Node = dict[str, Any]


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint ", did you mean 'x'?" for the known name most like `name`; empty where none is near."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Node:
    """Read a config file.

    Args:
        path: a `.py` file.
        overrides: "key.subkey=value" strings; the key must exist, values are Python literals or plain strings.
    Returns:
        Nested dict of plain types; classes as dotted names under "type".
    Raises:
        UserError: no such file, an error in it, unknown top-level names or override keys.
    """
    path = Path(path)
    if not path.is_file():
        known = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"no config file {str(path)!r}{nearest(str(path), known)}")
    for folder in (str(path.resolve().parent), os.getcwd()):  # a user's own backbone beside the config
        if folder not in sys.path:
            sys.path.append(folder)
    from mmengine.config import Config

    try:
        raw = Config.fromfile(str(path), lazy_import=True)._to_lazy_dict()
    except Exception as error:  # the file is a program: whatever it raises is a mistake in it
        if _asks_for_a_package(error):
            raise UserError(
                f"config {path}: read_base() joins files that lie beside this one or below it, by a relative import "
                "(from ._base_.part import *), or those of installed packages: put the file into the folder configs/"
            ) from error
        raise UserError(f"config {path}: {type(error).__name__}: {error}") from error
    config = {key: as_plain_node(value, key, f"config {path}") for key, value in raw.items() if not key.startswith("_")}
    unknown = [f"{key!r}{nearest(key, TOP_LEVEL)}" for key in config if key not in TOP_LEVEL]
    missing = [f"{key!r} ({TOP_LEVEL[key]})" for key in TOP_LEVEL if key not in config and key != "task"]
    if unknown or missing:
        parts = ["unknown top-level name " + ", ".join(unknown)] if unknown else []
        parts += ["missing " + ", ".join(missing)] if missing else []
        raise UserError(f"config {path}: {'; '.join(parts)}. Private helpers start with an underscore")
    for override in overrides:
        apply_override(config, override)
    kinds: dict[str, type] = {**dict.fromkeys(TOP_LEVEL, dict), "metrics": list, "task": str}
    wrong = [
        f"{key} is {value!r}, it must be a {kinds[key].__name__} ({TOP_LEVEL[key]})"
        for key, value in config.items()
        if not isinstance(value, kinds[key])
    ]
    if wrong:
        raise UserError(f"config {path}: {'; '.join(wrong)}")
    return config


def _asks_for_a_package(error: Exception) -> bool:
    """Whether mmengine looked for an installed package to join a file of, by setuptools' help."""
    if isinstance(error, ModuleNotFoundError) and error.name == "pkg_resources":
        return True
    return type(error).__name__ == "DistributionNotFound" or "namespace package" in str(error)


def as_plain_node(value: Any, where: str, source: str) -> Any:
    """A config's value as plain types: classes become dotted names, tuples lists, as in JSON.

    Args:
        value: what stands in the config.
        where: its dotted key, for messages.
        source: begins messages.
    Raises:
        UserError: what has no plain form.
    """
    if isinstance(value, Mapping):
        return {str(key): as_plain_node(item, f"{where}.{key}", source) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain_node(item, f"{where}[{i}]", source) for i, item in enumerate(value)]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "mmengine.config.lazy":
        module, name = _lazy_names(value)
        if where.endswith(".type"):
            return f"{module}.{name}"
        try:  # a constant
            return as_plain_node(getattr(importlib.import_module(module), name), where, source)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{source}: {where}: {error}") from error
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    raise UserError(f"{source}: {where} is a {type(value).__name__}; give numbers, strings, lists, dicts or classes")


def _lazy_names(value: Any) -> tuple[str, str]:
    """Module and name of what mmengine's lazy import stands for."""
    if type(value).__name__ == "LazyObject":  # from module import name
        return value.module, str(value)
    return value.module, value.name  # import module; module.name


def apply_override(config: Node, override: str) -> None:
    """Set one existing key, in place.

    Args:
        config: nested dicts and lists.
        override: "key.subkey=value"; an index of a list is a key, too. The value is a Python literal where it reads
            as one, else a string; a dotted class name is a string.
    Raises:
        UserError: not of that form, or no such key.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"override {override!r} is not of the form key.subkey=value")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    value = as_plain_node(value, key, f"override {override!r}")
    node: Any = config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth]) or "the config"
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(f"override {key!r}: {where} is a list of {len(node)}, {part!r} is no index of it")
            step: Any = int(part)
        elif isinstance(node, dict):
            known = {*node, *_arguments(node, where)}
            if part not in known:
                raise UserError(f"override {key!r}: {where} has no key {part!r}{nearest(part, sorted(known))}")
            if part not in node and depth < len(parts) - 1:
                raise UserError(
                    f"override {key!r}: {where} does not set {part!r}: give it whole, as {where}.{part}=..."
                )
            step = part
        else:
            raise UserError(f"override {key!r}: {where} is {node!r} and has no keys")
        if depth == len(parts) - 1:
            node[step] = value
        else:
            node = node[step]


def _arguments(node: Node, where: str) -> Iterable[str]:
    """Arguments of the class that `node` stands for, those that the config left at their default, too."""
    name = node.get("type", SETTINGS.get(where))
    return () if name is None else parameters_of(resolve(name)) or ()


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a class or function; None where it does not say (some of those written in C)."""
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return None


def resolve(dotted: str, trusted: Sequence[str] | None = None) -> Callable[..., Any]:
    """The class or function of a dotted name.

    Args:
        dotted: "package.module.Name".
        trusted: module prefixes it may come from; None: any (a config file is the user's own program). Given, private
            names and functions other than TRUSTED_FUNCTIONS are refused, too: they may write, read or connect.
    Raises:
        UserError: not to be found, not callable, or not trusted.
    """
    module_name, _, name = str(dotted).rpartition(".")
    if not module_name:
        known = getattr(builtins, str(dotted), None)
        if known is None or trusted is not None:
            raise UserError(f"type={dotted!r} is not a class: give 'package.module.Name'")
        return known
    if trusted is not None and not any(module_name == t or module_name.startswith(t + ".") for t in trusted):
        raise UserError(
            f"{dotted!r} is not of the modules trusted here ({', '.join(trusted)}): "
            f"if you know the code, add --trust {module_name.split('.')[0]}"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"type={dotted!r}: cannot import {module_name!r}: {error}") from error
    found = getattr(module, name, None)
    defined_in = getattr(found, "__module__", module_name) or module_name
    if trusted is not None and defined_in.split(".")[0] not in {t.split(".")[0] for t in trusted}:
        raise UserError(f"{dotted!r} leads to {defined_in!r}, which is not trusted here")
    own = module_name.split(".")[0] in ("transfer", "backbones")
    acts = own and not inspect.isclass(found) and dotted not in TRUSTED_FUNCTIONS
    if trusted is not None and (name.startswith("_") or acts):
        raise UserError(f"{dotted!r} is not a class or function that a config of a checkpoint may name")
    if not callable(found):
        raise UserError(f"type={dotted!r}: {module_name!r} has no class {name!r}{nearest(name, dir(module))}")
    return found


def build(node: Any, where: str = "config", *, trusted: Sequence[str] | None = None, **given: Any) -> Any:
    """The object that nested dicts describe, innermost first.

    Args:
        node: a dict with "type" becomes an object; lists and other dicts are walked; anything else is itself.
        where: name of the node in messages.
        trusted: see `resolve`.
        given: further arguments of the outermost object, such as num_classes; they win over the node's.
    Raises:
        UserError: unknown or missing arguments, by name.
    """
    if isinstance(node, list):
        return [build(item, f"{where}[{i}]", trusted=trusted) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value, f"{where}.{key}", trusted=trusted) for key, value in node.items() if key != "type"}
    if "type" not in node:
        return {**arguments, **given}
    target = resolve(node["type"], trusted)
    arguments.update(given)
    check_arguments(target, arguments, where)
    try:
        return target(**arguments)
    except TypeError as error:
        raise UserError(f"{where} ({node['type']}): {error}") from error


def check_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> None:
    """Raises: UserError where `arguments` do not fit the signature of `target`, naming all that do not."""
    parameters = parameters_of(target)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    name = getattr(target, "__name__", str(target))
    problems = [f"{name} takes no {key!r}{nearest(key, parameters)}" for key in arguments if key not in parameters]
    problems += [
        f"{name} needs {key!r}"
        for key, p in parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and key not in arguments
    ]
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def to_json(config: Node) -> str:
    """The config as JSON text; `from_json` gives it back."""
    return json.dumps(config, indent=1, sort_keys=True)


def from_json(text: str) -> Node:
    """The config that `to_json` wrote. Raises: UserError where the text is no such thing."""
    try:
        config = json.loads(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's config is not JSON: {error}") from error
    if not isinstance(config, dict) or set(config) - set(TOP_LEVEL):
        raise UserError("the checkpoint's config does not have the names of a config")
    return config
