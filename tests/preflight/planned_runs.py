"""Runs of the tiny config, with something changed, and what a preflight says of them."""

from __future__ import annotations

import copy
from typing import Any

import torch

from transfer.assemble import build_run
from transfer.build import Node
from transfer.engine.distributed import World
from transfer.engine.train import Run
from transfer.preflight.preflight import Report, preflight

CPU = World(0, 1, torch.device("cpu"))


def changed(config: Node, **changes: Any) -> Node:
    """A copy with values at dotted keys, written with two underscores for a dot."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


def run_of(config: Node, **changes: Any) -> tuple[Run, Any]:
    """A run that has not begun, and its training set."""
    run, _, data = build_run(changed(config, **changes), CPU)
    return run, data.train


def checked(config: Node, **changes: Any) -> Report:
    """The preflight of a run."""
    return preflight(*run_of(config, **changes))


def codes(report: Report, severity: str = "error") -> list[str]:
    """The codes of a severity, each once."""
    return list(dict.fromkeys(finding.code for finding in report.findings if finding.severity == severity))


def message(report: Report, code: str) -> str:
    """The first message of a code, with its remedy."""
    finding = next(finding for finding in report.findings if finding.code == code)
    return f"{finding.message} -> {finding.remedy}"
