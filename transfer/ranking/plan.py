"""A ranking as its file says it: tasks, backbones, how the lr is searched, how many seeds.

A ranking is a Python file read as the configs are (mmengine's `Config`; classes may be named, none is imported):

    tasks = {
        "detection": dict(config="configs/sample_yolov3_lite0.py", changes={"training.epochs": 4}),
        "segmentation": dict(config="configs/camvid_fcn_lite0.py", root="data/camvid"),
    }
    backbones = [
        dict(name="lite0", top1=75.5, top1_source="timm's results"),               the tasks' own backbone
        dict(name="resnet18d", timm="resnet18d", weights="timm", top1=72.3),       any timm name
        dict(name="mine", changes={"model.backbone": dict(type=My, weights="weights/mine.pth")}),
        dict(name="random", arm="random"),                                         nothing loaded, nothing frozen
        dict(name="grown", timm="resnet26d", grow=dict(config="configs/class_folder_r14.py", changes={...})),
        dict(name="+ mixup", ..., adds_to="grown"),                                what mixup brought is told
    ]
    search = dict(factors=(0.3, 1.0, 3.0), seed=0, budget=0.5, held_out=0.2)       None: every task's own lr
    seeds = 3

The figure of a task is the main one of its first metric. What each key is: the classes below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from transfer.build import as_plain_node, nearest
from transfer.types import UserError, is_number

NAMES = {
    "tasks": "dict of task name -> dict(config=..., changes=..., root=...)",
    "backbones": "list of dict(name=..., ...), two at least",
    "search": "dict(factors=..., seed=..., budget=..., held_out=...), or None: every task's own lr",
    "seeds": "number of seeds",
    "forecasts": "True, False, or the number of training images that the scores are computed on",
    "costs": "True or False",
    "pictures": "test images of each task that are drawn under every backbone; 0: none",
    "halving": "dict(rungs=..., keep=..., margin=...), or None: every backbone gets all seeds",
    "published": "list of dict(source=..., task=..., backbone=..., top1=..., value=...)",
}
"""Top-level names of a ranking's file."""
ARMS = ("pretrained", "random", "grown", "frozen")
FORECAST_IMAGES = 500
Changes = tuple[str, ...]
"""As `transfer.build.apply_override` takes them."""


@dataclass(frozen=True)
class TaskPlan:
    """A task that backbones are grafted onto."""

    name: str
    config: str
    """Path: from the current folder, or from the ranking's."""
    changes: Changes = ()
    root: Mapping[str, str] = field(default_factory=dict)
    """Folders of the data: of "all" data sets, or of "train", "val", "test"; empty: the config's."""


@dataclass(frozen=True)
class Growth:
    """How a backbone is grown before it is grafted: once, whatever the seeds of what follows."""

    config: str
    """Of a classifier; its checkpoint becomes `model.backbone.weights`."""
    changes: Changes = ()
    root: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class BackbonePlan:
    """A backbone and what it changes in every task's config."""

    name: str
    arm: str = "pretrained"
    """"pretrained"; "random": no weights, nothing frozen, norms trained; "grown": by `grow`; "frozen": all stages."""
    timm: str | None = None
    """timm's name: takes the place of the task's network."""
    weights: str | None = None
    """Of that network, or of the task's own."""
    norm: str | None = None
    """Norm policy; None: the task's, or "batch" where random values may not stay frozen."""
    model_options: Mapping[str, Any] | None = None
    """Of the timm network."""
    changes: Changes = ()
    """After all that."""
    changes_by_task: Mapping[str, Changes] = field(default_factory=dict)
    lr_factors: Mapping[str, float] | None = None
    """In place of the task's `optimizer.lr_factors`; None: the task's, but without those of the backbone where its
    values are random."""
    grow: Growth | None = None
    description: str | None = None
    top1: float | None = None
    """ImageNet top-1, percent."""
    top1_source: str | None = None
    adds_to: str | None = None
    """The backbone that differs from this one by one trick of its training: what the trick brought is told."""


@dataclass(frozen=True)
class Search:
    """How the lr of each backbone on each task is chosen: the same grid for all, on validation data."""

    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Of the task's own lr."""
    seed: int = 0
    budget: float = 0.5
    """Share of the task's length."""
    held_out: float = 0.2
    """Share of the training images that is the validation data, where the task's config names no data set for that."""


@dataclass(frozen=True)
class Halving:
    """When a hopeless backbone is given up on a task; off unless a ranking asks for it.

    After `rungs[0]` seeds of all backbones, those are given up that are not among the best `keep` of them by their mean
    and lie more than `margin` points behind the best; so again after `rungs[1]` seeds, among those that are left. It
    saves runs and costs certainty: the given up keep fewer seeds, and their intervals are wide or missing.
    """

    rungs: tuple[int, ...] = (1,)
    keep: float = 0.5
    """Share, rounded up."""
    margin: float = 5.0
    """Points."""


@dataclass(frozen=True)
class Published:
    """A figure of a paper."""

    source: str
    task: str
    backbone: str
    top1: float
    value: float


@dataclass(frozen=True)
class RankingPlan:
    """What a ranking's file says."""

    name: str
    tasks: tuple[TaskPlan, ...]
    backbones: tuple[BackbonePlan, ...]
    search: Search | None = field(default_factory=Search)
    seeds: int = 3
    forecast_images: int = FORECAST_IMAGES
    """0: no forecasts."""
    costs: bool = True
    pictures: int = 4
    halving: Halving | None = None
    published: tuple[Published, ...] = ()

    def task(self, name: str) -> TaskPlan:
        """The task of this name."""
        return next(task for task in self.tasks if task.name == name)

    def backbone(self, name: str) -> BackbonePlan:
        """The backbone of this name."""
        return next(backbone for backbone in self.backbones if backbone.name == name)


def read_plan(path: str | Path) -> RankingPlan:
    """Read a ranking's file.

    Raises:
        UserError: with everything that is wrong in it.
    """
    path = Path(path)
    if not path.is_file():
        known = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"no ranking file {str(path)!r}{nearest(str(path), known)}")
    from mmengine.config import Config

    try:
        raw = Config.fromfile(str(path), lazy_import=True)._to_lazy_dict()
    except Exception as error:  # the file is a program: whatever it raises is a mistake in it
        raise UserError(f"ranking {path}: {type(error).__name__}: {error}") from error
    where = f"ranking {path}"
    content = {key: as_plain_node(value, key, where) for key, value in raw.items() if not key.startswith("_")}
    reader = _Reader([f"unknown top-level name {key!r}{nearest(key, NAMES)}" for key in content if key not in NAMES])
    plan = reader.plan(path.stem, content)
    if reader.problems:
        raise UserError(f"{where}: " + "; ".join(reader.problems))
    return plan


Part = TypeVar("Part")


class _Reader:
    """Turns the file's plain values into a plan; what is wrong with them goes to `problems`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def plan(self, name: str, content: Mapping[str, Any]) -> RankingPlan:
        nodes = content.get("tasks")
        if not isinstance(nodes, dict) or not nodes:
            self.problems.append(f"tasks={nodes!r} must be a {NAMES['tasks']}, one at least")
            nodes = {}
        tasks = tuple(self.task(key, node) for key, node in nodes.items())
        listed = content.get("backbones")
        if not isinstance(listed, list) or len(listed) < 2:
            self.problems.append(f"backbones={listed!r} must be a {NAMES['backbones']}")
            listed = []
        backbones = tuple(
            self.backbone(node, f"backbones[{place}]", [task.name for task in tasks])
            for place, node in enumerate(listed)
        )
        names = [backbone.name for backbone in backbones]
        self.problems += [
            f"two backbones are named {name!r}" for name in sorted({n for n in names if names.count(n) > 1})
        ]
        for place, backbone in enumerate(backbones):
            others = [name for name in names if name != backbone.name]
            if backbone.adds_to is not None and backbone.adds_to not in others:
                near = nearest(backbone.adds_to, others)
                self.problems.append(f"backbones[{place}].adds_to={backbone.adds_to!r} is no other backbone{near}")
        seeds = self.whole(content.get("seeds", 3), "seeds", 1)
        forecasts = content.get("forecasts", True)
        images = FORECAST_IMAGES if forecasts is True else 0 if forecasts is False else forecasts
        costs = content.get("costs", True)
        if not isinstance(costs, bool):
            self.problems.append(f"costs={costs!r} must be {NAMES['costs']}")
        return RankingPlan(
            name,
            tasks,
            backbones,
            self.optional(content, "search", Search, self.search),
            seeds,
            self.whole(images, "forecasts", 0),
            bool(costs),
            self.whole(content.get("pictures", 4), "pictures", 0),
            self.optional(content, "halving", Halving, lambda halving: self.halving(halving, seeds)),
            self.published(content.get("published", [])),
        )

    def task(self, name: str, node: Any) -> TaskPlan:
        where = f"tasks[{name!r}]"
        if not self.known(node, TaskPlan, where, without=("name",)) or not self.text(node, where, "config"):
            return TaskPlan(name, "")
        return TaskPlan(name, node["config"], self.changes(node, where), self.root(node, where))

    def backbone(self, node: Any, where: str, tasks: list[str]) -> BackbonePlan:
        if not self.known(node, BackbonePlan, where) or not self.text(node, where, "name"):
            return BackbonePlan(where)
        for key in ("timm", "weights", "norm", "description", "top1_source", "adds_to"):
            if node.get(key) is not None:
                self.text(node, where, key)
        by_task = node.get("changes_by_task", {})
        if not isinstance(by_task, dict):
            self.problems.append(f"{where}.changes_by_task={by_task!r} must be a dict of task -> changes")
            by_task = {}
        for task in by_task:
            if task not in tasks:
                self.problems.append(f"{where}.changes_by_task: there is no task {task!r}{nearest(task, tasks)}")
        for key in ("lr_factors", "model_options"):
            if node.get(key) is not None and not isinstance(node[key], dict):
                self.problems.append(f"{where}.{key}={node[key]!r} must be a dict")
        top1 = node.get("top1")
        if top1 is not None and not (is_number(top1) and 0 <= top1 <= 100):
            self.problems.append(f"{where}.top1={top1!r} must be a number of percent, or None")
        growth = self.growth(node["grow"], f"{where}.grow") if node.get("grow") is not None else None
        rest = {key: node[key] for key in _PLAIN if key in node}
        backbone = BackbonePlan(
            **{**rest, "arm": node.get("arm", "pretrained" if growth is None else "grown")},
            changes=self.changes(node, where),
            changes_by_task={key: self.changes({"changes": value}, f"{where}.{key}") for key, value in by_task.items()},
            grow=growth,
        )
        self.check_arm(backbone, where)
        return backbone

    def check_arm(self, backbone: BackbonePlan, where: str) -> None:
        arm = backbone.arm
        if arm not in ARMS:
            self.problems.append(f"{where}.arm={arm!r} is none of {', '.join(ARMS)}{nearest(str(arm), ARMS)}")
        if arm == "random" and backbone.weights is not None:
            self.problems.append(f"{where}: arm='random' has no weights: leave out weights={backbone.weights!r}")
        if arm == "random" and backbone.norm == "frozen":
            self.problems.append(f"{where}: arm='random' with norm='frozen' is a straw man: give 'batch' or 'group'")
        if (arm == "grown") != (backbone.grow is not None):
            self.problems.append(f"{where}: arm='grown' and grow=dict(config=...) go together")
        if backbone.grow is not None and backbone.weights is not None:
            self.problems.append(f"{where}: grow gives the weights: leave out weights={backbone.weights!r}")
        if backbone.model_options is not None and backbone.timm is None:
            self.problems.append(f"{where}.model_options are of a timm network: give timm='...', too")

    def growth(self, node: Any, where: str) -> Growth | None:
        if not self.known(node, Growth, where) or not self.text(node, where, "config"):
            return None
        seed = self.whole(node.get("seed", 0), f"{where}.seed", 0)
        return Growth(node["config"], self.changes(node, where), self.root(node, where), seed)

    def search(self, search: Search) -> None:
        factors = search.factors if isinstance(search.factors, tuple) else ()
        if not factors or not all(is_number(factor) and 0 < factor < math.inf for factor in factors):
            self.problems.append(f"search.factors={search.factors!r} must be numbers above 0, one at least")
        elif len(set(factors)) < len(factors):
            self.problems.append(f"search.factors={search.factors!r} has a factor twice")
        self.whole(search.seed, "search.seed", 0)
        if not (is_number(search.budget) and 0 < search.budget <= 1):
            self.problems.append(f"search.budget={search.budget!r} must be a share of the length, above 0 and up to 1")
        if not (is_number(search.held_out) and 0 < search.held_out < 1):
            self.problems.append(f"search.held_out={search.held_out!r} must be a share of the images, between 0 and 1")

    def halving(self, halving: Halving, seeds: int) -> None:
        rungs = halving.rungs if isinstance(halving.rungs, tuple) else ()
        whole = bool(rungs) and all(type(rung) is int for rung in rungs)
        if not whole or list(rungs) != sorted(set(rungs)) or not 1 <= rungs[0] <= rungs[-1] < seeds:
            self.problems.append(
                f"halving.rungs={halving.rungs!r} must be rising numbers of seeds, from 1 to below {seeds}"
            )
        if not (is_number(halving.keep) and 0 < halving.keep <= 1):
            self.problems.append(f"halving.keep={halving.keep!r} must be a share of the backbones, above 0 and up to 1")
        if not (is_number(halving.margin) and halving.margin >= 0):
            self.problems.append(f"halving.margin={halving.margin!r} must be a number of points, 0 or more")

    def published(self, nodes: Any) -> tuple[Published, ...]:
        if not isinstance(nodes, list):
            self.problems.append(f"published={nodes!r} must be a {NAMES['published']}")
            return ()
        points = []
        for place, node in enumerate(nodes):
            where = f"published[{place}]"
            if not self.known(node, Published, where):
                continue
            texts = [self.text(node, where, key) for key in ("source", "task", "backbone")]
            numbers = [key for key in ("top1", "value") if not is_number(node.get(key))]
            self.problems += [f"{where}.{key}={node.get(key)!r} must be a number of percent" for key in numbers]
            if all(texts) and not numbers:
                points.append(Published(**{field.name: node[field.name] for field in fields(Published)}))
        return tuple(points)

    def optional(
        self, content: Mapping[str, Any], key: str, kind: type[Part], check: Callable[[Part], None]
    ) -> Part | None:
        """A part that is a dict of its class's arguments, or None."""
        node = content.get(key, {} if kind is Search else None)
        if node is None or not self.known(node, kind, key):
            return None
        part = kind(**{name: _as_tuple(value) for name, value in node.items() if name in kind.__annotations__})
        check(part)
        return part

    def known(self, node: Any, kind: type, where: str, without: tuple[str, ...] = ()) -> bool:
        """Whether a node is a dict; names each of its keys that the class does not have."""
        names = [each.name for each in fields(kind) if each.name not in without]
        if not isinstance(node, dict):
            self.problems.append(f"{where}={node!r} must be a dict({', '.join(f'{name}=...' for name in names)})")
            return False
        self.problems += [
            f"{where} has an unknown key {key!r}{nearest(key, names)}" for key in node if key not in names
        ]
        return True

    def text(self, node: Mapping[str, Any], where: str, key: str) -> bool:
        if isinstance(node.get(key), str) and node[key]:
            return True
        self.problems.append(f"{where}.{key}={node[key]!r} must be text" if key in node else f"{where} needs {key!r}")
        return False

    def whole(self, value: Any, where: str, least: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        self.problems.append(f"{where}={value!r} must be a whole number, {least} or more")
        return least

    def changes(self, node: Mapping[str, Any], where: str) -> Changes:
        changes = node.get("changes", {})
        if isinstance(changes, dict):
            return tuple(f"{key}={value!r}" for key, value in changes.items())
        if isinstance(changes, list) and all(isinstance(each, str) for each in changes):
            return tuple(changes)
        self.problems.append(f"{where}.changes={changes!r} must be a dict of keys and values, or a list of 'key=value'")
        return ()

    def root(self, node: Mapping[str, Any], where: str) -> dict[str, str]:
        root = node.get("root", {})
        if isinstance(root, str):
            return {"all": root}
        if isinstance(root, dict) and set(root) <= {"train", "val", "test"} and all(map(_is_text, root.values())):
            return dict(root)
        self.problems.append(
            f"{where}.root={root!r} must be a folder, or dict(train=..., val=..., test=...) of folders"
        )
        return {}


_PLAIN = (
    "name",
    "timm",
    "weights",
    "norm",
    "model_options",
    "lr_factors",
    "description",
    "top1",
    "top1_source",
    "adds_to",
)
"""Of a backbone: taken as they stand."""


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
