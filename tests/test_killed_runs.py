"""Runs killed by SIGKILL go on as if nothing had happened: three kills; thirty in benchmarks/killed_runs.py."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def killed_runs(repository: Path) -> Any:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("killed_runs", repository / "benchmarks" / "killed_runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["killed_runs"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["killed_runs"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="starts its processes by fork, which spares them the imports")
def test_a_run_killed_three_times_ends_with_the_same_bits(
    killed_runs: Any, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    tiny_config["data"]["val"] = {**tiny_config["data"]["test"], "splits": "val"}
    tiny_config["loader"]["workers"] = 1
    tiny_config["training"].update(
        epochs=None, iterations=12, accumulate=2, checkpoint_every=0.25, ema={"decay": 0.9}, preflight=False
    )
    found = killed_runs.killed_run(tiny_config, tmp_path, kills=3, draw=random.Random(1))
    assert found.kills == 3
    assert found.differences == []


def test_the_comparison_sees_a_bit(killed_runs: Any) -> None:
    import torch

    ours = {"model": {"weight": torch.tensor([1.0, 2.0])}, "best": float("nan"), "metrics": [{"values": 1.0}]}
    theirs = {"model": {"weight": torch.tensor([1.0, 2.0])}, "best": float("nan"), "metrics": [{"values": 1.0}]}
    assert killed_runs.unequal(ours, theirs) == []
    theirs["model"]["weight"][1] = torch.nextafter(torch.tensor(2.0), torch.tensor(3.0))  # type: ignore[index]
    theirs["metrics"] = [{"values": 1.5}]
    assert killed_runs.unequal(ours, theirs) == [".model.weight", ".metrics[0].values"]
    assert killed_runs.unequal(ours, {**ours, "more": 1}) == [".more"]
