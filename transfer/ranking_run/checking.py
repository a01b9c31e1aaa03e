"""Builds all of a ranking once before anything runs, so that a mistake costs no run; and says what was built."""

from __future__ import annotations

import copy
import logging
import os
import platform
from pathlib import Path
from typing import Any

import torch

from backbones.contract import Backbone, BackboneError
from backbones.cost import multiply_adds
from transfer.assemble import backbone_of, build_data, build_run, task_name
from transfer.build import Node, build
from transfer.engine.distributed import World
from transfer.experiments.description import state_of_code
from transfer.experiments.pool import cores, processor
from transfer.provenance import git_state
from transfer.ranking.grid import for_search
from transfer.ranking.plan import BackbonePlan
from transfer.ranking.record import BackboneRecord, TaskRecord
from transfer.ranking_run.configs import Prepared
from transfer.types import UserError

logger = logging.getLogger("trickstack")

COUNTED_SIZE = (224, 224)
"""(height, width) that multiply-adds are counted at: the same for all, whatever each was pretrained at."""


def task_records(prepared: Prepared) -> list[TaskRecord]:
    """The tasks and the numbers of their images.

    Raises:
        UserError: data that cannot be read.
    """
    records, problems = [], []
    for task in prepared.plan.tasks:
        config = prepared.task_configs[task.name]
        try:
            data = build_data(config)
        except UserError as error:
            problems.append(f"task {task.name!r}: {error}")
            continue
        path, _ = prepared.bases[task.name]
        sizes = (len(data.train), len(data.test))
        changes = prepared.task_changes[task.name]
        records.append(TaskRecord(task.name, task_name(config), path, "figure", "", *sizes, changes))
    if problems:
        raise UserError("\n".join(problems))
    return records


def backbone_records(prepared: Prepared) -> list[BackboneRecord]:
    """The backbones as the first task has them."""
    first = prepared.plan.tasks[0].name
    records = []
    for plan in prepared.plan.backbones:
        node = prepared.grid.configs[plan.name, first]["model"]["backbone"]
        built = _built(node)
        weights = node.get("weights") if plan.grow is None else f"grown here by {plan.grow.config}"
        changes = [*plan.changes, *(f"{task}: {c}" for task, each in plan.changes_by_task.items() for c in each)]
        records.append(
            BackboneRecord(
                name=plan.name,
                description=plan.description or describe(plan, built, node),
                arm=plan.arm,
                weights="random values" if weights is None else str(weights),
                top1=None if plan.top1 is None else float(plan.top1),
                top1_source=plan.top1_source,
                parameters=sum(parameter.numel() for parameter in built.parameters()),
                multiply_adds=multiply_adds(built, COUNTED_SIZE),
                input_size=list(COUNTED_SIZE),
                changes=changes,
                adds_to=plan.adds_to,
            )
        )
    return records


def describe(plan: BackbonePlan, backbone: Backbone, node: Node) -> str:
    """A backbone in a few words."""
    frozen = int(node.get("frozen_stages") or 0)
    stages = {0: "all trained", 1: "first stage frozen"}.get(frozen, f"first {frozen} stages frozen")
    return f"{backbone.name}, {'all frozen' if plan.arm == 'frozen' else stages}, norm {backbone.norm}"


def _built(node: Node) -> Backbone:
    node = copy.deepcopy(node)
    without_weights(node)
    built = build(node, "model.backbone")
    assert isinstance(built, Backbone), "checked with the runs"
    return built


def check(prepared: Prepared, *, on_gpu: bool) -> None:
    """Build every backbone on every task, a search and what is grown; and load the weights of every backbone once.

    Raises:
        UserError: with all that is wrong.
    """
    wanted: list[tuple[str, Node]] = [
        (f"{backbone} on {task}", config) for (backbone, task), config in prepared.grid.configs.items()
    ]
    if prepared.plan.search is not None:
        first = prepared.plan.backbones[0].name
        for task in prepared.plan.tasks:
            searched = for_search(prepared.grid.configs[first, task.name], prepared.plan.search)
            wanted.append((f"search of the lr on {task.name}", searched))
    wanted += [(f"{name}, grown", config) for name, config in prepared.grid.growths.items()]
    logger.info("checking %d configs", len(wanted))
    problems: dict[str, list[str]] = {}
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for name, config in wanted:
            if (problem := _problem_of(config, on_gpu)) is not None:
                problems.setdefault(problem, []).append(name)
        if not problems:
            problems = _weight_problems(prepared)
    finally:
        logger.setLevel(level)
    if problems:
        raise UserError("\n".join(f"{', '.join(names)}: {problem}" for problem, names in problems.items()))


def _problem_of(config: Node, on_gpu: bool) -> str | None:
    config = copy.deepcopy(config)
    without_weights(config["model"])
    if on_gpu:
        config["training"]["precision"] = "float32"  # the CPU it is built on may not have the run's
    try:
        run, _, _ = build_run(config, World(0, 1, torch.device("cpu")))
        backbone_of(run.task.model)
    except (UserError, BackboneError) as error:
        return str(error)
    return None


def _weight_problems(prepared: Prepared) -> dict[str, list[str]]:
    """Weights that are not there, or of another network: found (and fetched) now, not by each run."""
    problems: dict[str, list[str]] = {}
    tried: dict[str, str | None] = {}
    for plan in prepared.plan.backbones:
        for task in prepared.plan.tasks:
            node = prepared.grid.configs[plan.name, task.name]["model"]["backbone"]
            weights = node.get("weights")
            if plan.grow is not None or weights is None:
                continue
            key = f"{node.get('name')} {weights} {node.get('width')} {node.get('model_options')}"
            if key not in tried:
                try:
                    build(copy.deepcopy(node), "model.backbone")
                    tried[key] = None
                except (UserError, BackboneError) as error:
                    tried[key] = str(error)
            if (problem := tried[key]) is not None and plan.name not in problems.setdefault(problem, []):
                problems[problem].append(plan.name)
    return {problem: names for problem, names in problems.items() if names}


def without_weights(node: Any) -> None:
    """Let what a config describes be built with random values, in place."""
    if isinstance(node, dict):
        if "weights" in node:
            node["weights"] = None
        for value in node.values():
            without_weights(value)


def machine_facts(gpus: list[str]) -> dict[str, str]:
    """This machine and this code."""
    facts = {"hardware": f"{processor()}, {cores()} cores", "system": f"{platform.system()} {platform.machine()}"}
    if gpus:
        facts["GPUs"] = f"{len(gpus)} x {torch.cuda.get_device_name()}"
    if threads := os.environ.get("OMP_NUM_THREADS"):
        facts["OMP_NUM_THREADS"] = threads
    commit = git_state(Path(__file__).resolve().parents[2])
    return {**facts, **state_of_code(), **({"commit": commit} if commit else {})}
