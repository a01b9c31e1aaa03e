"""From a ranking's file to the config of each backbone on each task.

What a backbone changes is applied in this order: its network (`timm`, `weights`, `norm`), what its arm means, the
weights that it was grown to, its own changes, those for the task, its lr factors. Afterwards an arm must still be what
it is called: random values without weights, frozen stages or frozen norms (else it is a straw man), and no two
backbones the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.contract import BackboneError
from transfer.assemble import set_data_root, task_name
from transfer.build import Node, build, load_config, nearest, parameters_of, resolve
from transfer.experiments.ladder import changed
from transfer.ranking.grid import Grid, Pair, Slot, check_lr, grown_weights
from transfer.ranking.plan import BackbonePlan, Growth, RankingPlan, TaskPlan
from transfer.types import UserError

TIMM = "backbones.timm_backbone.TimmBackbone"
_OF_THE_TASK = ("output_stride", "out_strides", "frozen_stages", "norm")
"""What a timm network takes over from the network that it replaces."""
_MOST_LEVELS = 16


@dataclass(frozen=True)
class Prepared:
    """A ranking's configs."""

    plan: RankingPlan
    grid: Grid
    bases: dict[str, tuple[str, Node]]
    """Task, or backbone that is grown -> (path of its config file, what the file says)."""
    task_configs: dict[str, Node]
    """With the changes of the task and of the command line, but of no backbone."""
    task_changes: dict[str, list[str]]
    """What these changes are."""


def prepare(
    plan: RankingPlan,
    file: Path,
    work_dir: Path,
    *,
    roots: Mapping[str, Mapping[str, str]] | None = None,
    options: Sequence[str] = (),
) -> Prepared:
    """The configs of a ranking.

    Args:
        plan: what the file says.
        file: the ranking's: configs are looked for from the current folder, then from beside it.
        work_dir: of all experiments: what is grown is put there.
        roots: task or grown backbone -> folders of its data, instead of the file's; see `TaskPlan.root`.
        options: overrides for every task's config.
    Raises:
        UserError: with everything that does not fit.
    """
    problems: list[str] = []
    roots = dict(roots or {})
    grows = {backbone.name: backbone.grow for backbone in plan.backbones if backbone.grow is not None}
    known = [*(task.name for task in plan.tasks), *grows]
    problems += [
        f"--data {name}=...: there is no task {name!r}{nearest(name, known)}" for name in roots if name not in known
    ]
    bases: dict[str, tuple[str, Node]] = {}
    tasks: dict[str, Node] = {}
    growths: dict[str, Node] = {}
    wanted: list[tuple[str, str, TaskPlan | Growth, dict[str, Node]]] = []
    wanted += [(f"task {task.name!r}", task.name, task, tasks) for task in plan.tasks]
    wanted += [(f"backbone {name!r}, grow", name, grow, growths) for name, grow in grows.items()]
    for where, name, part, into in wanted:
        try:
            path = _beside(part.config, file)
            bases[name] = (path, load_config(path))
            changes = [*part.changes, *(options if into is tasks else ())]
            into[name] = _with_roots(changed(bases[name][1], changes, where), roots.get(name, part.root))
            check_lr(into[name], where)
            if into is growths and task_name(into[name]) != "classification":
                raise UserError(f"{part.config!r} grows no classifier: give a config with task='classification'")
        except UserError as error:
            problems.append(str(error) if str(error).startswith(where) else f"{where}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    configs = _grafted(plan, tasks, growths, work_dir)
    told = {
        task.name: [
            *task.changes,
            *(f"root of {part} data={root}" for part, root in roots.get(task.name, task.root).items()),
            *options,
        ]
        for task in plan.tasks
    }
    return Prepared(plan, Grid(plan, configs, growths), bases, tasks, told)


def _beside(path: str, file: Path) -> str:
    """A config's path: from the current folder, or from the ranking's."""
    beside = file.parent / path
    return str(beside) if not Path(path).is_file() and beside.is_file() else path


def _with_roots(config: Node, roots: Mapping[str, str]) -> Node:
    for part, root in roots.items():
        set_data_root(config, root, parts=("train", "val", "test") if part == "all" else (part,))
    return config


def _grafted(
    plan: RankingPlan, tasks: Mapping[str, Node], growths: Mapping[str, Node], work_dir: Path
) -> dict[Pair, Node]:
    """Every backbone on every task. Raises: UserError with all that does not fit."""
    problems: dict[str, None] = {}
    configs: dict[Pair, Node] = {}
    empty = Grid(plan, {}, growths)
    for backbone in plan.backbones:
        weights = backbone.weights
        if backbone.grow is not None:
            slot = Slot("grow", backbone.name, "", backbone.grow.seed)
            weights = str(grown_weights(work_dir, empty.description(slot)))
        for task, base in tasks.items():
            try:
                configs[backbone.name, task] = graft(base, backbone, task, weights)
            except (UserError, BackboneError) as error:
                problems[str(error)] = None
    for task in tasks:
        seen: dict[str, Node] = {}
        for backbone in plan.backbones:
            config = configs.get((backbone.name, task))
            same = [name for name, other in seen.items() if other == config]
            if config is not None and same:
                problems[f"backbone {backbone.name!r} is the same as {same[0]!r} on task {task!r}"] = None
            if config is not None:
                seen[backbone.name] = config
    if problems:
        raise UserError("\n".join(problems))
    return configs


def graft(base: Node, backbone: BackbonePlan, task: str, weights: str | None) -> Node:
    """The config of a backbone on a task.

    Args:
        base: the task's.
        backbone: what the plan says of it.
        task: its name.
        weights: of the network, or where it will have been grown to.
    Raises:
        UserError: it does not fit.
    """
    where = f"backbone {backbone.name!r} on task {task!r}"
    config = copy.deepcopy(base)
    node = config["model"].get("backbone")
    if not isinstance(node, dict) or "type" not in node:
        raise UserError(f"{where}: the task's config has no model.backbone=dict(type=...) to replace")
    if backbone.timm is not None:
        node = {"type": TIMM, "name": backbone.timm, **{key: node[key] for key in _OF_THE_TASK if key in node}}
        node["weights"] = weights
        if backbone.model_options is not None:
            node["model_options"] = dict(backbone.model_options)
        if weights is None and backbone.arm in ("pretrained", "frozen"):
            raise UserError(
                f"{where}: timm={backbone.timm!r} without weights has random values: give weights='timm' or a file, or "
                "arm='random'"
            )
    elif weights is not None:
        node["weights"] = weights
    if backbone.norm is not None:
        node["norm"] = backbone.norm
    if backbone.arm == "random":
        _without_pretraining(config, node, backbone)
    config["model"]["backbone"] = node
    config = changed(config, backbone.changes, where)
    config = changed(config, backbone.changes_by_task.get(task, ()), where)
    if backbone.grow is not None:
        config["model"]["backbone"]["weights"] = weights  # also where a change brought another network
    if backbone.lr_factors is not None:
        config = changed(config, [f"optimizer.lr_factors={dict(backbone.lr_factors)!r}"], where)
    if backbone.arm == "random":
        _check_random(config["model"]["backbone"], where)
    if backbone.arm == "frozen":
        _freeze(config["model"]["backbone"], where)
    return config


def _without_pretraining(config: Node, node: Node, backbone: BackbonePlan) -> None:
    """Random values that are given their chance: everything is trained, at the lr of the rest."""
    node.update({key: value for key, value in (("weights", None), ("frozen_stages", 0)) if key in node})
    if node.get("norm") == "frozen":
        node["norm"] = backbone.norm or "batch"
    factors = config["optimizer"].get("lr_factors")
    if factors and backbone.lr_factors is None:
        config["optimizer"]["lr_factors"] = {
            prefix: factor for prefix, factor in factors.items() if prefix.split(".")[0] != "backbone"
        }


def _check_random(node: Node, where: str) -> None:
    """Raises: UserError for an arm of random values that is a straw man, or not random."""
    wrong = [
        f"{key}={node[key]!r}"
        for key, fits in (("weights", node.get("weights") is None), ("norm", node.get("norm") != "frozen"),
                          ("frozen_stages", not node.get("frozen_stages")))
        if not fits
    ]  # fmt: skip
    if wrong:
        raise UserError(
            f"{where}: arm='random' trains all of a network from random values; take away {', '.join(wrong)}"
        )


def _freeze(node: Node, where: str) -> None:
    """Freeze all stages and norms of a backbone. Raises: UserError where it has no stages to freeze."""
    if "frozen_stages" not in (parameters_of(resolve(node["type"])) or ()):
        raise UserError(f"{where}: arm='frozen': {node['type']} takes no frozen_stages: freeze it by `changes`")
    node["norm"] = "frozen"
    problem: Any = None
    for stages in range(_MOST_LEVELS, 0, -1):  # it tells by refusing more than it has
        try:
            build({**node, "weights": None, "frozen_stages": stages}, f"{where}: model.backbone")
        except BackboneError as error:
            problem = error
            continue
        node["frozen_stages"] = stages
        return
    raise UserError(f"{where}: arm='frozen': {problem}")
