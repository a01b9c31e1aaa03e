"""tools/ablate.py as its user calls it: mistakes before anything runs, and a whole ablation of a tiny detector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from transfer.experiments.ledger import Ledger

Tool = Callable[..., tuple[int, str]]

ABLATION = '''"""Of a tiny detector."""

from transfer.optim.schedules import Cosine

base = "BASE"
rungs = [
    dict(name="cosine", changes={"schedule.then": dict(type=Cosine)}, published=0.46),
    dict(name="clipping", changes=["training.clip_norm=1.0"]),
]
'''


@pytest.fixture
def ablation(tmp_path: Path, tiny_config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes an ablation's file, with something replaced, in an empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def write(old: str = "BASE", new: str = "") -> Path:
        text = ABLATION.replace("BASE", str(tiny_config_file))
        assert old == "BASE" or old in text
        path = tmp_path / "mine.py"
        path.write_text(text if old == "BASE" else text.replace(old, new), encoding="utf-8")
        return path

    return write


def refused(run_tool: Tool, *arguments: str | Path) -> str:
    code, errors = run_tool("ablate", *arguments)
    assert code == 2, errors
    assert "Traceback" not in errors
    assert list(Path.cwd().iterdir()) == []  # nothing was begun
    return errors


def test_mistyped_ablation_base_and_arm(run_tool: Tool, ablation: Callable[..., Path], tiny_config_file: Path) -> None:
    path = ablation()
    assert f"did you mean {str(path)!r}" in refused(run_tool, path.with_name("mien.py"))
    mistyped = tiny_config_file.with_name("tinny.py")
    assert f"did you mean {str(tiny_config_file)!r}" in refused(run_tool, path, "--config", mistyped)
    assert "no arm 'cosin', did you mean 'cosine'?" in refused(run_tool, path, "--arms", "cosin", "baseline")
    assert "give --config" in refused(run_tool, ablation("base = ", "_base = "))


def test_mistyped_keys(run_tool: Tool, ablation: Callable[..., Path]) -> None:
    message = refused(run_tool, ablation("training.clip_norm", "training.clip_nrom"))
    assert "rung 'clipping'" in message
    assert "did you mean 'clip_norm'?" in message
    assert "--cfg-options: override 'optimizer.l'" in refused(run_tool, ablation(), "--cfg-options", "optimizer.l=1")


def test_what_a_config_alone_does_not_show_is_found_by_building_every_arm(
    run_tool: Tool, ablation: Callable[..., Path]
) -> None:
    message = refused(run_tool, ablation("dict(type=Cosine)", "dict(type=Cosine, finall=0.1)"))
    assert "+ cosine, + clipping: " in message
    assert "Cosine takes no 'finall', did you mean 'final'?" in message


def test_equal_arms_wrong_data_and_no_runs(run_tool: Tool, ablation: Callable[..., Path]) -> None:
    message = refused(run_tool, ablation("clip_norm=1.0", "clip_norm=10.0"))
    assert "'+ clipping' is the same as '+ cosine'" in message
    message = refused(run_tool, ablation(), "--data", "nowhere")
    assert "baseline, + cosine, + clipping: " in message
    assert message.count("nowhere") == 1
    assert "has no run of this ablation" in refused(run_tool, ablation(), "--report-only")


def test_numbers_out_of_range(run_tool: Tool, ablation: Callable[..., Path]) -> None:
    assert "--seeds 0: give 1 or more" in refused(run_tool, ablation(), "--seeds", "0")


@pytest.mark.slow
def test_two_arms_at_two_seeds_from_end_to_end(ablation: Callable[..., Path], repository: Path) -> None:
    def ablate(*more: str) -> subprocess.CompletedProcess[str]:
        options = ["--arms", "baseline", "cosine", "--seeds", "2", "--work-dir", "work", "--jobs", "2"]
        shorter = ["--cfg-options", "training.evaluate_every=0", "training.pictures=0"]
        command = [sys.executable, str(repository / "tools" / "ablate.py"), str(ablation()), *options, *shorter, *more]
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)

    made = ablate()
    assert made.returncode == 0, made.stderr
    assert "| + cosine |" in made.stdout
    (folder,) = Path("work").glob("mine-tiny-ladder-*")
    assert sorted(path.name for path in folder.iterdir()) == ["gains.png", "report.md", "results.json"]
    assert made.stdout.strip() in (folder / "report.md").read_text()
    summary = json.loads((folder / "results.json").read_text())
    runs = {path.parent.parent.name.rpartition("-")[0]: path for path in Path("work/runs").glob("*/001/results.json")}
    assert set(runs) == {"baseline-seed0", "baseline-seed1", "cosine-seed0", "cosine-seed1"}
    for arm, name in zip(summary["arms"], ("baseline", "cosine")):
        for seed in "01":
            metric = json.loads(runs[f"{name}-seed{seed}"].read_text())["metrics"][0]
            assert arm["figures"][seed] == pytest.approx(100 * metric["values"][metric["main"]])
    configs = {name: json.loads((path.parent / "config.json").read_text()) for name, path in runs.items()}
    assert configs["cosine-seed1"]["schedule"]["then"]["type"].endswith("Cosine")
    assert configs["cosine-seed1"]["training"]["seed"] == configs["baseline-seed1"]["training"]["seed"] == 1
    assert {name for name, config in configs.items() if config["schedule"]["then"]["type"].endswith("Constant")} == {
        "baseline-seed0",
        "baseline-seed1",
    }
    before = Ledger(Path("work/ledger.sqlite")).rows(_keys(Path("work/ledger.sqlite")))
    again = ablate("--report-only")
    assert again.returncode == 0, again.stderr
    assert again.stdout == made.stdout
    assert Ledger(Path("work/ledger.sqlite")).rows(list(before)) == before


def _keys(path: Path) -> list[str]:
    return [row[0] for row in Ledger(path).connection.execute("SELECT key FROM runs")]
