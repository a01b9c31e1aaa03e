"""tools/rank_backbones.py as its user calls it: mistakes before anything runs, the script for Slurm, its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from transfer.ranking.plan import Halving, RankingPlan, read_plan
from transfer.ranking_run.command import chosen, command_words, roots_of
from transfer.types import UserError

Tool = Callable[..., tuple[int, str]]

RANKING = """
tasks = {"boxes": dict(config="CONFIG", changes={"training.preflight": False})}
backbones = [dict(name="a"), dict(name="b", arm="random", norm="group")]
seeds = 4
halving = dict(rungs=(1, 2))
"""


@pytest.fixture
def ranking(tmp_path: Path, tiny_config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a ranking's file, with something replaced, in an empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def write(old: str = "CONFIG", new: str = "CONFIG") -> Path:
        path = tmp_path / "mine.py"
        path.write_text(RANKING.replace(old, new).replace("CONFIG", str(tiny_config_file)), encoding="utf-8")
        return path

    return write


def refused(run_tool: Tool, *arguments: str | Path) -> str:
    code, errors = run_tool("rank_backbones", *arguments)
    assert code == 2, errors
    assert "Traceback" not in errors
    assert list(Path.cwd().iterdir()) == []  # nothing was begun
    return errors


def test_mistyped_words(run_tool: Tool, ranking: Callable[..., Path]) -> None:
    path = ranking()
    assert f"did you mean {str(path)!r}" in refused(run_tool, path.with_name("mien.py"))
    message = refused(run_tool, path, "--backbones", "aa", "--tasks", "box")
    assert "--backbones aa: the ranking has no such, did you mean 'a'?" in message
    assert "--tasks box: the ranking has no such, did you mean 'boxes'?" in message
    assert "--data 'boxes': give TASK=FOLDER" in refused(run_tool, path, "--data", "boxes")
    assert "task 'boxes': override 'training.epoch'" in refused(run_tool, path, "--cfg-options", "training.epoch=1")


def test_what_a_config_alone_does_not_show(run_tool: Tool, ranking: Callable[..., Path]) -> None:
    message = refused(run_tool, ranking(), "--cfg-options", "schedule.iterations=100")
    assert "a on boxes, b on boxes: WarmUp: 100 iterations of warm-up" in message
    message = refused(run_tool, ranking(), "--data", "boxes=nowhere")
    assert message.count("nowhere") == 1
    broken = ranking('dict(name="a")', 'dict(name="a", weights="nowhere.pth")')
    assert "a: " in (message := refused(run_tool, broken))
    assert "nowhere.pth" in message
    assert "has no run of this ranking" in refused(run_tool, ranking(), "--report-only")
    assert "the search of its lr is not over" in refused(run_tool, ranking(), "--only", "7")


def test_without_ray(run_tool: Tool, ranking: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)  # as where it is not installed
    assert "pip install 'trickstack[cluster]'" in refused(run_tool, ranking(), "--cluster", "ray")


def test_the_script_for_slurm_has_every_run_once(run_tool: Tool, ranking: Callable[..., Path]) -> None:
    path = ranking()
    code, told = run_tool("rank_backbones", path, "--slurm-script", "grid.sh", "--work-dir", "w")
    assert code == 0, told
    assert "14 runs" in told  # 2 backbones at 3 factors, and at 4 seeds
    lines = Path("grid.sh").read_text().splitlines()
    arrays = [line.split("--array=")[1].split()[0] for line in lines if "--array=" in line]
    assert arrays == ["0-5", "6-7", "8-9", "10-13"]  # a rung of halving begins when the one before ended
    assert f"--wrap='tools/rank_backbones.py {path} --work-dir w'" in lines[-1]
    assert sorted(entry.name for entry in Path.cwd().iterdir()) == ["grid.sh"]


def test_roots_of_the_data() -> None:
    assert roots_of(["a=x/y", "b.train=t", "b.test=u=v", "c.d=z"]) == {
        "a": {"all": "x/y"},
        "b": {"train": "t", "test": "u=v"},
        "c.d": {"all": "z"},
    }
    with pytest.raises(UserError, match="give TASK=FOLDER"):
        roots_of(["=x"])


def test_the_command_that_repeats() -> None:
    words = ["r.py", "--report-only", "--only", "3", "--seeds", "4", "--slurm-script=f", "--data", "a=b"]
    assert command_words(words) == ["tools/rank_backbones.py", "r.py", "--seeds", "4", "--data", "a=b"]


def test_what_the_command_line_changes(ranking: Callable[..., Path]) -> None:
    def plan(**options: object) -> RankingPlan:
        asked = {"seeds": None, "backbones": None, "tasks": None, **options}
        arguments: argparse.Namespace = SimpleNamespace(**asked)  # type: ignore[assignment]
        return chosen(read_plan(ranking()), arguments)

    assert plan().halving == Halving((1, 2))
    assert (plan(seeds=2).seeds, plan(seeds=2).halving) == (2, None)  # no seed would be left to save
    assert [backbone.name for backbone in plan(backbones=["b"]).backbones] == ["b"]
