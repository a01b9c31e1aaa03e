"""A run with preflight equals the run without it, bit for bit; so do generators, modes, gradients and statistics."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned_runs import CPU, changed, checked, run_of

from transfer import training
from transfer.build import Node
from transfer.engine.checkpoint import load_checkpoint
from transfer.engine.distributed import World
from transfer.engine.train import Run
from transfer.preflight.preflight import preflight
from transfer.preflight.sandbox import random_states_kept
from transfer.types import UserError

DROPBLOCK = {"keep": 0.5, "block": 2}


def everything(run: Run) -> dict[str, Any]:
    """All that a preflight might change, in values of its own."""
    model = run.task.model
    return {
        "state": copy.deepcopy(model.state_dict()),
        "optimizer": copy.deepcopy(run.optimizer.state_dict()),
        "modes": [module.training for module in model.modules()],
        "progress": [module.progress for module in model.modules() if hasattr(module, "progress")],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "versions": [tensor._version for tensor in (*model.parameters(), *model.buffers())],
        "scaler": run.precision.state_dict(),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),  # noqa: NPY002
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_nothing_of_the_run_or_the_generators_is_changed(tiny_config: Node) -> None:
    run, dataset = run_of(tiny_config, training__dropblock=DROPBLOCK)
    run.task.model.eval()  # a mode that training would change: it must stay
    before = everything(run)
    assert not preflight(run, dataset).errors
    after = everything(run)
    for name, value in before.items():
        assert same(value, after[name]), name


def test_a_run_with_preflight_equals_the_run_without(tiny_config: Node, tmp_path: Path) -> None:
    config = changed(tiny_config, training__epochs=None, training__pictures=0, training__dropblock=DROPBLOCK)
    config["training"].update(iterations=3, ema={"decay": 0.9})
    checkpoints, states = [], []
    for switch in (True, False):
        config["training"]["preflight"] = switch
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        assert training.run(copy.deepcopy(config), name=f"preflight_{switch}", work_dir=tmp_path, device="cpu")
        checkpoints.append(load_checkpoint(tmp_path / f"preflight_{switch}" / "001" / "last.pth"))
        states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()))  # noqa: NPY002
    for part in ("model", "ema", "optimizer", "metrics", "iteration"):
        assert same(checkpoints[0][part], checkpoints[1][part]), part
    assert any("running_mean" in name for name in checkpoints[0]["model"])
    assert same(*states)
    assert (tmp_path / "preflight_True" / "001" / "preflight.json").is_file()
    assert not (tmp_path / "preflight_False" / "001" / "preflight.json").exists()


def test_the_same_run_gives_the_same_report(tiny_config: Node) -> None:
    first, second = (checked(tiny_config) for _ in range(2))
    assert [outcome.facts for outcome in first.outcomes] == [outcome.facts for outcome in second.outcomes]


def test_generators_are_set_back_after_an_exception_too() -> None:
    before = torch.get_rng_state(), random.getstate()

    def draw_and_fail() -> None:
        with random_states_kept():
            torch.rand(5)
            random.random()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw_and_fail()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_an_error_stops_the_run_and_says_how_to_go_on(tiny_config: Node, tmp_path: Path) -> None:
    config = changed(tiny_config, optimizer__lr=5.0)
    with pytest.raises(UserError, match=r"lr-too-high: at lr 5 .*\n.*lower optimizer.lr.*\n.*training.preflight=False"):
        training.run(copy.deepcopy(config), name="a", work_dir=tmp_path, device="cpu")
    folder = tmp_path / "a" / "001"
    found = json.loads((folder / "preflight.json").read_text(encoding="utf-8"))
    assert found["counts"]["error"] == 1
    assert (folder / "preflight.jpg").is_file()
    assert not (folder / "last.pth").exists()
    config["training"].update(preflight=False, epochs=None, iterations=3)
    assert training.run(config, name="a", work_dir=tmp_path, device="cpu")


def test_a_resumed_run_is_not_checked_again(tiny_config: Node, tmp_path: Path) -> None:
    config = changed(tiny_config, training__epochs=None, training__pictures=0)
    config["training"]["iterations"] = 3
    assert training.run(copy.deepcopy(config), name="a", work_dir=tmp_path, device="cpu")
    folder = tmp_path / "a" / "001"
    (folder / "preflight.json").unlink()  # was made for the new run
    (folder / "results.json").unlink()  # as if killed before the report
    assert training.run(config, name="a", work_dir=tmp_path, device="cpu", resume="latest")
    assert not (folder / "preflight.json").exists()


def test_with_several_processes_only_the_data_are_checked(tiny_config: Node) -> None:
    run, dataset = run_of(tiny_config)
    run.world = World(0, 2, CPU.device)
    report = preflight(run, dataset)
    assert {outcome.name for outcome in report.outcomes} == {
        "labels",
        "boxes",
        "augmentation",
        "normalisation",
        "network",
    }
    assert "2 processes" in next(finding.message for finding in report.findings if finding.code == "not-checked")


def test_the_switch_is_true_or_false(tiny_config: Node) -> None:
    with pytest.raises(UserError, match="preflight='no' must be True or False"):
        run_of(tiny_config, training__preflight="no")
