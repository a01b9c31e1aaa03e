"""Who may import whom, read from the source: each part of the code names what it may know of the rest.

A part is a folder or a single module directly below `transfer`, or one of the other packages. A new part fails here
until its rule is written down.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

OWN_PACKAGES = ("backbones", "benchmarks", "configs", "tests", "tools", "transfer")
ALL_OF_THE_LIBRARY = ("backbones", "transfer")
BELOW = ("transfer.types", "transfer.ops")

RULES: dict[str, tuple[str, ...]] = {
    "backbones": (),
    "transfer": (),
    "transfer.types": (),
    "transfer.ops": ("transfer.types",),
    "transfer.losses": BELOW,
    "transfer.optim": ("transfer.types",),
    "transfer.data": BELOW,
    "transfer.augment": BELOW,
    "transfer.batch": BELOW,
    "transfer.metrics": BELOW,
    "transfer.heads": (*BELOW, "transfer.losses", "backbones.contract"),
    "transfer.build": ("transfer.types",),
    "transfer.engine": ("transfer.build", "transfer.types", "transfer.optim"),
    "transfer.report": ("transfer.types",),
    "transfer.checking": (*BELOW, "transfer.data", "transfer.build", "transfer.report"),
    "transfer.convert": (*BELOW, "transfer.data"),
    "transfer.preflight": (
        *BELOW,
        *("transfer.engine", "transfer.optim", "transfer.report", "transfer.checking", "backbones.contract"),
    ),
    "transfer.experiments": ("transfer.types", "transfer.build"),
    "transfer.ranking": (*BELOW, "transfer.build", "transfer.experiments", "backbones.contract"),
    "transfer.ranking_run": ALL_OF_THE_LIBRARY,
    "transfer.export": ALL_OF_THE_LIBRARY,
    "transfer.cli": ("transfer.types",),
    "transfer.provenance": ("transfer.types",),
    "transfer.evaluator": ("transfer.types", "transfer.engine", "transfer.report"),
    "transfer.assemble": ALL_OF_THE_LIBRARY,
    "transfer.loading": ALL_OF_THE_LIBRARY,
    "transfer.restoring": ALL_OF_THE_LIBRARY,
    "transfer.averaging": ALL_OF_THE_LIBRARY,
    "transfer.teacher": ALL_OF_THE_LIBRARY,
    "transfer.training": ALL_OF_THE_LIBRARY,
    "transfer.train_command": ALL_OF_THE_LIBRARY,
    "transfer.evaluation": ALL_OF_THE_LIBRARY,
    "transfer.prediction": ALL_OF_THE_LIBRARY,
    "tools": ALL_OF_THE_LIBRARY,
    "benchmarks": ALL_OF_THE_LIBRARY,
    "configs": ALL_OF_THE_LIBRARY,
}
"""What a part may import besides itself and other people's libraries."""


def part_of(module: str) -> str:
    """The part a module belongs to: `transfer.ops.boxes` to `transfer.ops`, `backbones.norms` to `backbones`."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "transfer" else names[0]


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of this repository that a source imports, wherever in it.

    `from a import b` counts as a.b: b may be a module. Imports by a literal name through importlib count, too.
    """
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            above = above[: len(above) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "LazyObject"):
                found = [str(node.args[0].value)]
        for name in found:
            if name.split(".")[0] in OWN_PACKAGES:
                yield node.lineno, name


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """One line for each import that the rule of the module's part does not allow."""
    part = part_of(module)
    if part not in RULES:
        return [f"{part} has no rule: say in RULES what it may import"]
    allowed = (*RULES[part], *(() if part == "transfer" else (part,)))
    return [
        f"{module}, line {line}: {part} must not import {name}"
        for line, name in imported(source, module, is_package)
        if not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)
    ]


def test_every_module_imports_only_what_its_part_may(repository: Path) -> None:
    files = [path for package in OWN_PACKAGES if package != "tests" for path in (repository / package).rglob("*.py")]
    found, seen = [], set()
    for path in files:
        is_package = path.name == "__init__.py"
        names = path.relative_to(repository).with_suffix("").parts
        module = ".".join(names[:-1] if is_package else names)
        seen.add(part_of(module))
        found += violations(path.read_text(encoding="utf-8"), module, is_package=is_package)
    assert not found, "\n".join(found)
    assert {"backbones", "transfer.ops", "transfer.heads", "transfer.engine", "tools"} <= seen


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("transfer.ops.boxes", "from transfer.heads import rpn", "transfer.heads.rpn"),
        ("transfer.ops.boxes", "from transfer import heads", "transfer.heads"),
        ("transfer.ops.boxes", "import transfer.heads.rpn as r", "transfer.heads.rpn"),
        ("transfer.ops.boxes", "from ..heads import rpn", "transfer.heads.rpn"),
        ("transfer.ops.boxes", "from .. import heads", "transfer.heads"),
        ("transfer.ops.boxes", "def f():\n    from transfer.build import build", "transfer.build.build"),
        ("transfer.ops.boxes", "if TYPE_CHECKING:\n    import transfer.build", "transfer.build"),
        ("transfer.ops.boxes", "importlib.import_module('transfer.build')", "transfer.build"),
        ("transfer.types", "import transfer.ops", "transfer.ops"),
        ("transfer.ops.boxes", "import transfer.types_of_others", "transfer.types_of_others"),
        ("transfer.optim.ema", "from transfer.losses.soft_targets import f", "transfer.losses.soft_targets.f"),
        ("transfer.heads.rpn", "from backbones.timm_backbone import T", "backbones.timm_backbone.T"),
        ("transfer.heads.rpn", "from transfer.engine.task import D", "transfer.engine.task.D"),
        ("transfer.engine.train", "from transfer.heads.rpn import R", "transfer.heads.rpn.R"),
        ("transfer.engine.train", "from transfer.assemble import build_run", "transfer.assemble.build_run"),
        ("transfer.data.voc", "from transfer.augment.placing import p", "transfer.augment.placing.p"),
        ("transfer.report.pages", "from transfer.metrics.flat import F", "transfer.metrics.flat.F"),
        ("transfer.assemble", "import configs.sample", "configs.sample"),
        ("transfer.training", "from tools import train_det", "tools.train_det"),
        ("tools.predict", "from configs import sample", "configs.sample"),
        ("benchmarks.speed", "from tests.conftest import x", "tests.conftest.x"),
        ("backbones.norms", "from transfer.types import UserError", "transfer.types.UserError"),
        ("transfer.heads", "from ..engine import train", "transfer.engine.train"),  # the last two: an __init__.py
        ("transfer", "from .heads import rpn", "transfer.heads.rpn"),
    ],
)
def test_a_forbidden_import_is_found_however_it_is_written(module: str, source: str, wrong: str) -> None:
    (message,) = violations(source, module, is_package=module in ("transfer", "transfer.heads"))
    assert message.endswith(f"must not import {wrong}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("transfer.ops.boxes", "import math, torch\nfrom transfer.types import Size\nfrom . import matching"),
        ("transfer.heads.rpn", "from backbones.contract import Backbone\nfrom backbones import contract"),
        ("transfer.heads.rpn", "import transferable\nfrom transfer.losses.soft_targets import s"),
        ("transfer.assemble", "import transfer.heads.rpn\nimport backbones.norms"),
        ("configs.sample", "from ._base_.faster_rcnn import *\nfrom transfer.heads.rpn import R"),
    ],
)
def test_an_allowed_import_is_not_reported(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_new_part_needs_a_rule() -> None:
    assert violations("", "transfer.novelty.thing") == ["transfer.novelty has no rule: say in RULES what it may import"]
