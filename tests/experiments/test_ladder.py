"""Ablation files, the arms of each mode, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from transfer.build import build, check_arguments, load_config, resolve
from transfer.engine.settings import TrainingSettings
from transfer.experiments.ladder import (
    MODES,
    Ablation,
    Arm,
    Mode,
    Plan,
    Rung,
    changed,
    choose,
    configs_of,
    plan,
    read_ablation,
)
from transfer.types import UserError

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "ablations").glob("*.py"))
BASE: dict[str, Any] = {"optimizer": {"lr": 0.1, "momentum": 0.9}, "schedule": {"then": {"kind": "step"}}}


def ablation(*rungs: Rung) -> Ablation:
    return Ablation("base.py", (), None, rungs)


A, B, C = (Rung(name, (f"optimizer.{name}=1",), published) for name, published in (("a", 0.5), ("b", None), ("c", 1.0)))


def arms(planned: Plan) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(arm.name, arm.processes, arm.rungs) for arm in planned.arms]


def compared(planned: Plan) -> list[tuple[str, str, str, str]]:
    return [(c.rung, c.better, c.reference, c.row) for c in planned.comparisons]


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_with_classes_as_names(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
from transfer.optim.schedules import Cosine
_lr = 0.01
base = "configs/x.py"
baseline = {"loader.mixup": None, "model.norm": "batch"}
source = "a table"
rungs = [
    dict(name="cosine", changes={"schedule.then": dict(type=Cosine, pair=(1, 2)), "optimizer.lr": _lr}, published=0.5),
    dict(name="SyncBN", changes=["model.norm=synchronized"], processes=2, gpus=2),
]
""",
    )
    found = read_ablation(path)
    assert (found.base, found.source) == ("configs/x.py", "a table")
    assert found.baseline == ("loader.mixup=None", "model.norm='batch'")
    cosine, synchronized = found.rungs
    assert cosine == Rung(
        "cosine",
        ("schedule.then={'type': 'transfer.optim.schedules.Cosine', 'pair': [1, 2]}", "optimizer.lr=0.01"),
        0.5,
    )
    assert synchronized == Rung("SyncBN", ("model.norm=synchronized",), None, 2, 2)
    config = changed(BASE, cosine.changes, "cosine")
    assert config["schedule"]["then"] == {"type": "transfer.optim.schedules.Cosine", "pair": [1, 2]}
    assert BASE["schedule"]["then"] == {"kind": "step"}


def test_everything_wrong_in_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
bases = "configs/x.py"
rungs = [
    dict(name="a", changes={}, publishd=0.5),
    dict(name="b", changes=["optimizer.lr=1"], published="0.5", processes=0, gpus=True),
    dict(name="b", changes=7),
    dict(changes=["optimizer.lr=1"]),
    dict(name="baseline", changes=["optimizer.lr=1"]),
    "c",
]
""",
    )
    with pytest.raises(UserError) as refused:
        read_ablation(path)
    message = str(refused.value)
    for part in (
        "mine.py",
        "unknown top-level name 'bases', did you mean 'base'?",
        "rungs[0] has an unknown key 'publishd', did you mean 'published'?",
        "rungs[0].changes is empty",
        "rungs[1].published='0.5' must be a number",
        "rungs[1].processes=0 must be a whole number, 1 or more",
        "rungs[1].gpus=True",
        "rungs[2].changes=7",
        "rungs[3] needs 'name'",
        "rungs[4].name='baseline'",
        "rungs[5]='c' must be a dict(name, changes",
        "two rungs are named 'b'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [("base = 1\n", "rungs=None must be a list"), ("rungs = []\n", "one at least"), ("rungs = [\n", "SyntaxError")],
)
def test_files_without_rungs(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem.replace("[", r"\[")):
        read_ablation(written(tmp_path, text))


def test_a_mistyped_path(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    with pytest.raises(UserError, match="did you mean"):
        read_ablation(path.with_name("mime.py"))


def test_ladder() -> None:
    planned = plan(ablation(A, B, C), "ladder", 0)
    assert arms(planned) == [
        ("baseline", 1, ()),
        ("+ a", 1, ("a",)),
        ("+ b", 1, ("a", "b")),
        ("+ c", 1, ("a", "b", "c")),
    ]
    assert [arm.changes for arm in planned.arms][2] == ("optimizer.a=1", "optimizer.b=1")
    assert compared(planned) == [
        ("a", "+ a", "baseline", "+ a"),
        ("b", "+ b", "+ a", "+ b"),
        ("c", "+ c", "+ b", "+ c"),
    ]
    assert [c.published for c in planned.comparisons] == [0.5, None, 1.0]


def test_each() -> None:
    planned = plan(ablation(A, B), "each", 0)
    assert arms(planned) == [("baseline", 1, ()), ("+ a", 1, ("a",)), ("+ b", 1, ("b",))]
    assert compared(planned) == [("a", "+ a", "baseline", "+ a"), ("b", "+ b", "baseline", "+ b")]


def test_all_but_one() -> None:
    planned = plan(ablation(A, B, C), "all-but-one", 0)
    assert arms(planned) == [
        ("all", 1, ("a", "b", "c")),
        ("all but a", 1, ("b", "c")),
        ("all but b", 1, ("a", "c")),
        ("all but c", 1, ("a", "b")),
    ]
    assert compared(planned)[1] == ("b", "all", "all but b", "all but b")


def test_both_arms_of_a_comparison_are_made_by_as_many_processes() -> None:
    two = Rung("b", ("optimizer.b=1",), None, processes=2)
    first = plan(ablation(two, A), "ladder", 0)
    assert arms(first) == [("baseline", 2, ()), ("+ b", 2, ("b",)), ("+ a", 2, ("b", "a"))]
    later = plan(ablation(A, two), "ladder", 0)
    assert arms(later) == [
        ("baseline", 1, ()),
        ("+ a", 1, ("a",)),
        ("+ a (2 processes)", 2, ("a",)),
        ("+ b (2 processes)", 2, ("a", "b")),
    ]
    assert compared(later)[1] == ("b", "+ b (2 processes)", "+ a (2 processes)", "+ b (2 processes)")
    each = plan(ablation(two, A), "each", 0)
    assert ("a", "+ a", "baseline", "+ a") in compared(each)
    assert ("b", "+ b (2 processes)", "baseline (2 processes)", "+ b (2 processes)") in compared(each)
    for planned in (first, later, each):
        processes = {arm.name: arm.processes for arm in planned.arms}
        assert all(processes[c.better] == processes[c.reference] for c in planned.comparisons)


@pytest.mark.parametrize(("gpus", "why"), [(0, None), (1, "needs 2 GPUs, there is 1"), (2, None), (3, None)])
def test_two_processes_need_two_gpus_or_none(gpus: int, why: str | None) -> None:
    planned = plan(ablation(Rung("b", ("optimizer.b=1",), None, processes=2), A), "ladder", gpus)
    assert planned.not_applicable == ({} if why is None else {"b": why})
    if why is not None:
        assert arms(planned) == [("baseline", 1, ()), ("+ a", 1, ("a",))]  # the ladder goes on without it


def test_rungs_that_need_gpus() -> None:
    many = Rung("b", ("optimizer.b=1",), None, gpus=4)
    assert plan(ablation(A, many), "each", 2).not_applicable == {"b": "needs 4 GPUs, there are 2"}
    with pytest.raises(UserError, match="no rung can be run here: b: needs 4 GPUs, there are 0"):
        plan(ablation(many), "ladder", 0)


def test_choosing_arms() -> None:
    planned = plan(ablation(A, B, C), "ladder", 0)
    chosen = choose(planned, ["baseline", "a", "+ c"])
    assert [arm.name for arm in chosen.arms] == ["baseline", "+ a", "+ c"]
    assert [arm.rungs for arm in chosen.arms][-1] == ("a", "b", "c")
    assert compared(chosen) == [("a", "+ a", "baseline", "+ a")]
    with pytest.raises(UserError, match="no arm 'basline', did you mean 'baseline'"):
        choose(planned, ["basline"])
    without = plan(ablation(A, Rung("SyncBN", ("optimizer.b=1",), None, gpus=2)), "ladder", 0)
    with pytest.raises(UserError, match="'SyncBN' is not applicable: needs 2 GPUs"):
        choose(without, ["SyncBN"])


def test_mistakes_in_changes_are_told_once_and_by_their_rung() -> None:
    wrong = Rung("b", ("optimizer.lrr=1", "optimiser.lr=2"))
    planned = plan(ablation(A, wrong, Rung("c", ("optimizer.lr",))), "ladder", 0)
    with pytest.raises(UserError) as refused:
        configs_of(BASE, planned.arms, (wrong, Rung("c", ("optimizer.lr",))))
    message = str(refused.value)
    assert message.count("optimizer has no key 'lrr', did you mean 'lr'?") == 1
    assert "rung 'b': override 'optimiser.lr': the config has no key 'optimiser'" in message
    assert "rung 'c': override 'optimizer.lr' is not of the form" in message


def test_two_equal_arms_are_refused() -> None:
    same, other = Rung("same", ("optimizer.lr=0.1",)), Rung("other", ("optimizer.lr=0.2",))
    planned = plan(ablation(same, other), "ladder", 0)
    with pytest.raises(UserError, match=r"'\+ same' is the same as 'baseline'"):
        configs_of(BASE, planned.arms, (same, other))
    configs = configs_of(BASE, plan(ablation(other), "ladder", 0).arms, (other,))
    assert [config["optimizer"]["lr"] for config in configs.values()] == [0.1, 0.2]
    twins = (Arm("one", (), ()), Arm("two", (), (), processes=2))
    assert configs_of(BASE, twins, ())["one"] == BASE  # the same config by more processes is another arm


def test_there_are_ablations() -> None:
    assert "bof_yolov3" in [path.stem for path in SHIPPED]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_ablations_fit_their_base(path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    text = path.read_text(encoding="utf-8")
    assert f"tools/ablate.py configs/ablations/{path.name}" in text
    found = read_ablation(path)
    assert found.base is not None
    base = changed(load_config(found.base), found.baseline, "baseline")
    keys = [change.partition("=")[0] for rung in found.rungs for change in rung.changes]
    takes_each_other_s_place = len(set(keys)) < len(keys)  # as forms of a network do: leaving one out changes nothing
    modes: tuple[Mode, ...] = MODES[:2] if takes_each_other_s_place else MODES
    for mode in modes:
        configs = configs_of(base, plan(found, mode, 8).arms, found.rungs)
        assert len(configs) >= len(found.rungs) + 1
        for config in configs.values():  # what the rungs put in can be built
            teacher = config["criterion"].pop("teacher", None)  # reads a checkpoint
            if teacher is not None:
                check_arguments(resolve(teacher["type"]), {"path": teacher["path"]}, "criterion.teacher")
            for part in ("criterion", "schedule", "loader"):
                build(config[part])
            check_arguments(resolve("transfer.loading.LoaderSettings"), config["loader"], "loader")
            total = TrainingSettings(**config["training"]).total(500)
            build(config["schedule"]).check(total=total, per_epoch=500)


def test_the_freebies_are_those_of_the_paper(repository: Path) -> None:
    found = read_ablation(repository / "configs" / "ablations" / "bof_yolov3.py")
    assert [(rung.name, rung.published) for rung in found.rungs] == [
        ("SyncBN", 0.56),
        ("random shapes", 0.42),
        ("cosine", 0.46),
        ("class smoothing", 0.45),
        ("mixup", 1.54),
    ]
    assert sum(rung.published or 0 for rung in found.rungs) == pytest.approx(83.68 - 80.25)


@pytest.mark.parametrize(
    ("name", "gain"), [("bot_table4", 76.21 - 75.17), ("bot_table5", 77.16 - 76.21), ("bot_table6", 79.29 - 77.16)]
)
def test_the_refinements_add_up_to_the_tables(repository: Path, name: str, gain: float) -> None:
    found = read_ablation(repository / "configs" / "ablations" / f"{name}.py")
    assert sum(rung.published or 0 for rung in found.rungs) == pytest.approx(gain)
