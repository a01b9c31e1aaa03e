"""An ablation: a base config and its rungs, each a few changed keys; as a ladder, each alone, or each left out.

An ablation is a Python file read as the configs are (mmengine's `Config`; classes may be named, none is imported):

    base = "configs/voc_yolov3.py"                     the config that everything is changed from
    baseline = {"schedule.then": dict(type=Step, ...)}  what makes it the baseline: every trick off
    source = "Bag of Freebies, table 1"                where the published gains are from
    rungs = [
        dict(name="cosine", changes={"schedule.then": dict(type=Cosine)}, published=0.46),
        dict(name="SyncBN", changes=["model.backbone.norm=synchronized"], published=0.56, processes=2, gpus=2),
    ]

`changes` are keys of the config with their values, or the same as text, as --cfg-options takes them. `published` is the
gain in points. `processes`: how many make the run; both arms of that comparison use as many, so that nothing but the
rung differs. `gpus`: where there are fewer, the rung is not applicable, and the others go on without it; so it is where
there are GPUs, but fewer than processes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from transfer.build import Node, apply_override, as_plain_node, nearest
from transfer.types import UserError, is_number

Mode = Literal["ladder", "each", "all-but-one"]
MODES: tuple[Mode, ...] = ("ladder", "each", "all-but-one")
NAMES = {
    "base": "path of a config",
    "baseline": "changes that make the base the baseline",
    "source": "where the published gains are from",
    "rungs": "list of dict(name=..., changes=..., ...)",
}
"""Top-level names of an ablation's file."""
BASELINE = "baseline"


@dataclass(frozen=True)
class Rung:
    """One trick."""

    name: str
    changes: tuple[str, ...]
    """As `transfer.build.apply_override` takes them."""
    published: float | None = None
    """Gain, points."""
    processes: int = 1
    gpus: int = 0


_Key = tuple[tuple[Rung, ...], int]
"""What makes an arm: rungs and processes."""


@dataclass(frozen=True)
class Ablation:
    """What an ablation's file says."""

    base: str | None
    baseline: tuple[str, ...]
    source: str | None
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Arm:
    """One config of the experiment: the baseline with the changes of some rungs."""

    name: str
    rungs: tuple[str, ...]
    changes: tuple[str, ...]
    processes: int = 1


@dataclass(frozen=True)
class Comparison:
    """What a rung gives: the figures of the arm with it, minus those of the arm without."""

    rung: str
    better: str
    """Arm with the rung."""
    reference: str
    """Arm without."""
    row: str
    """Arm that shows it in the table."""
    published: float | None


@dataclass(frozen=True)
class Plan:
    """Arms and comparisons of one mode."""

    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    not_applicable: dict[str, str]
    """Rung -> reason."""


def read_ablation(path: str | Path) -> Ablation:
    """Read an ablation's file.

    Raises:
        UserError: with everything that is wrong in it.
    """
    path = Path(path)
    if not path.is_file():
        known = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"no ablation file {str(path)!r}{nearest(str(path), known)}")
    from mmengine.config import Config

    try:
        raw = Config.fromfile(str(path), lazy_import=True)._to_lazy_dict()
    except Exception as error:  # the file is a program: whatever it raises is a mistake in it
        raise UserError(f"ablation {path}: {type(error).__name__}: {error}") from error
    content = {
        key: as_plain_node(value, key, f"ablation {path}") for key, value in raw.items() if not key.startswith("_")
    }
    problems = [f"unknown top-level name {key!r}{nearest(key, NAMES)}" for key in content if key not in NAMES]
    texts = [key for key in ("base", "source") if not isinstance(content.get(key, ""), str)]
    problems += [f"{key}={content[key]!r} must be text ({NAMES[key]})" for key in texts]
    baseline = _changes(content.get("baseline", {}), "baseline", problems)
    nodes = content.get("rungs")
    if not isinstance(nodes, list) or not nodes:
        problems.append(f"rungs={nodes!r} must be a {NAMES['rungs']}, one at least")
        nodes = []
    rungs = [_rung(node, f"rungs[{place}]", problems) for place, node in enumerate(nodes)]
    names = [rung.name for rung in rungs]
    problems += [f"two rungs are named {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise UserError(f"ablation {path}: " + "; ".join(problems))
    return Ablation(content.get("base"), baseline, content.get("source"), tuple(rungs))


def _rung(node: Any, where: str, problems: list[str]) -> Rung:
    """The rung of a dict; what is wrong with it goes to `problems`."""
    known = [field.name for field in fields(Rung)]
    if not isinstance(node, dict):
        problems.append(f"{where}={node!r} must be a dict({', '.join(known)})")
        return Rung(where, ())
    problems += [f"{where} has an unknown key {key!r}{nearest(key, known)}" for key in node if key not in known]
    problems += [f"{where} needs {key!r}" for key in ("name", "changes") if key not in node]
    name = node.get("name", where)
    if not isinstance(name, str) or not name or name == BASELINE:
        problems.append(f"{where}.name={name!r} must be text, and not {BASELINE!r}")
    published = node.get("published")
    if published is not None and not is_number(published):
        problems.append(f"{where}.published={published!r} must be a number of points, or None")
    counts = {"processes": 1, "gpus": 0}
    for key, least in counts.items():
        value = counts[key] = node.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            problems.append(f"{where}.{key}={value!r} must be a whole number, {least} or more")
    changes = _changes(node.get("changes", {}), f"{where}.changes", problems)
    if "changes" in node and not changes:
        problems.append(f"{where}.changes is empty: it would be the arm before it once more")
    return Rung(str(name), changes, published, counts["processes"], counts["gpus"])


def _changes(node: Any, where: str, problems: list[str]) -> tuple[str, ...]:
    """Changes as overrides in text."""
    if isinstance(node, dict):
        return tuple(f"{key}={value!r}" for key, value in node.items())
    if isinstance(node, list) and all(isinstance(each, str) for each in node):
        return tuple(node)
    problems.append(f"{where}={node!r} must be a dict of keys and values, or a list of 'key=value'")
    return ()


def plan(ablation: Ablation, mode: Mode, gpus: int) -> Plan:
    """The arms of a mode, and what is compared with what.

    Args:
        ablation: the rungs.
        mode: "ladder": each rung on top of those before it; "each": the baseline with one alone; "all-but-one": all
            rungs, with one left out.
        gpus: that may be used; 0: everything on the CPU.
    Raises:
        UserError: no rung can be run here.
    """
    reasons = {}
    for rung in ablation.rungs:
        needs = max(rung.gpus, rung.processes if gpus else 0)  # a GPU for each process, or all on the CPU
        if needs > gpus:
            reasons[rung.name] = f"needs {needs} GPUs, there {'is' if gpus == 1 else 'are'} {gpus}"
    rungs = tuple(rung for rung in ablation.rungs if rung.name not in reasons)
    if not rungs:
        raise UserError(f"no rung can be run here: {'; '.join(f'{name}: {why}' for name, why in reasons.items())}")
    needed: list[tuple[Rung, _Key, _Key]] = []  # with the rung, without it
    for place, rung in enumerate(rungs):
        if mode == "ladder":
            without, with_it = rungs[:place], rungs[: place + 1]
        elif mode == "each":
            without, with_it = (), (rung,)
        else:
            without, with_it = tuple(other for other in rungs if other != rung), rungs
        processes = max(each.processes for each in with_it)
        needed.append((rung, (with_it, processes), (without, processes)))
    pairs = [(with_it, without) if mode == "all-but-one" else (without, with_it) for _, with_it, without in needed]
    keys = list(dict.fromkeys(key for pair in pairs for key in pair))  # what others are compared with comes first
    arms = dict(zip(keys, _arms(keys, mode, rungs)))
    comparisons = []
    for rung, better_key, reference_key in needed:
        better, reference = arms[better_key].name, arms[reference_key].name
        row = reference if mode == "all-but-one" else better
        comparisons.append(Comparison(rung.name, better, reference, row, rung.published))
    return Plan(tuple(arms.values()), tuple(comparisons), reasons)


def _arms(keys: Sequence[_Key], mode: Mode, rungs: Sequence[Rung]) -> list[Arm]:
    """The arms of rungs and processes, with names that tell them apart."""
    arms = []
    for chosen, processes in keys:
        if not chosen:
            name = BASELINE
        elif mode == "all-but-one":
            missing = [rung.name for rung in rungs if rung not in chosen]
            name = f"all but {missing[0]}" if missing else "all"
        else:
            name = f"+ {chosen[-1].name}"
        if processes > 1 and any(other == 1 for _, other in keys):
            name += f" ({processes} processes)"
        changes = tuple(change for rung in chosen for change in rung.changes)
        arms.append(Arm(name, tuple(rung.name for rung in chosen), changes, processes))
    return arms


def choose(planned: Plan, names: Sequence[str]) -> Plan:
    """The plan with these arms only, and the comparisons between them.

    Args:
        planned: what `plan` gives.
        names: of arms, or of rungs for the arm whose row shows them.
    Raises:
        UserError: no such arm.
    """
    by_rung = {comparison.rung: comparison.row for comparison in planned.comparisons}
    known = {**by_rung, **{arm.name: arm.name for arm in planned.arms}}
    wrong = [
        f"{name!r} is not applicable: {planned.not_applicable[name]}"
        if name in planned.not_applicable
        else f"no arm {name!r}{nearest(name, known)}"
        for name in names
        if name not in known
    ]
    if wrong:
        raise UserError(f"--arms: {'; '.join(wrong)}; there are {', '.join(arm.name for arm in planned.arms)}")
    chosen = {known[name] for name in names}
    return replace(
        planned,
        arms=tuple(arm for arm in planned.arms if arm.name in chosen),
        comparisons=tuple(c for c in planned.comparisons if {c.better, c.reference} <= chosen),
    )


def changed(base: Node, changes: Sequence[str], where: str) -> Node:
    """A copy of a config with some keys changed.

    Raises:
        UserError: with every change that does not fit.
    """
    config, problems = copy.deepcopy(base), []
    for change in changes:
        try:
            apply_override(config, change)
        except UserError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return config


def configs_of(base: Node, arms: Sequence[Arm], rungs: Sequence[Rung]) -> dict[str, Node]:
    """The arms' configs.

    Args:
        base: the baseline's.
        arms: what to change in it.
        rungs: each is tried alone first, so that a mistake is told once and by its rung.
    Raises:
        UserError: with every change that does not fit, and every two arms that are the same.
    """
    problems = []
    for rung in rungs:
        try:
            changed(base, rung.changes, f"rung {rung.name!r}")
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("the rungs do not fit the config:\n" + "\n".join(problems))
    configs = {arm.name: changed(base, arm.changes, f"arm {arm.name!r}") for arm in arms}
    problems += [
        f"{arm.name!r} is the same as {other.name!r}: what it changes has that value anyway"
        for place, arm in enumerate(arms)
        for other in arms[:place]
        if (configs[arm.name], arm.processes) == (configs[other.name], other.processes)
    ]
    if problems:
        raise UserError("no two arms may be the same:\n" + "\n".join(problems))
    return configs
