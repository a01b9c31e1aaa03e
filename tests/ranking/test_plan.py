"""Rankings' files: what they may say, their mistakes, and that the shipped ones fit the configs they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer.experiments.ladder import changed
from transfer.ranking.plan import Halving, Search, read_plan
from transfer.ranking.single_runs import overrides_of
from transfer.ranking_run.configs import graft, prepare
from transfer.types import UserError

GOOD = """
tasks = {"boxes": dict(config="configs/sample_yolov3_lite0.py", changes={"training.epochs": 2})}
backbones = [dict(name="a"), dict(name="b", arm="random")]
"""


def plan_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_plan(plan_of(tmp_path, text))
    return str(caught.value)


def test_what_a_file_leaves_out(tmp_path: Path) -> None:
    plan = read_plan(plan_of(tmp_path, GOOD))
    assert (plan.name, plan.seeds, plan.pictures, plan.costs, plan.forecast_images) == ("mine", 3, 4, True, 500)
    assert plan.search == Search((0.3, 1.0, 3.0), 0, 0.5, 0.2)
    assert plan.halving is None
    assert plan.tasks[0].changes == ("training.epochs=2",)
    assert [backbone.arm for backbone in plan.backbones] == ["pretrained", "random"]


def test_what_a_file_says(tmp_path: Path) -> None:
    more = (
        "search = None\nseeds = 4\nforecasts = 30\ncosts = False\npictures = 0\n"
        "halving = dict(rungs=[1, 2], keep=0.4, margin=2)\n"
        "published = [dict(source='s', task='boxes', backbone='a', top1=70, value=30.5)]\n"
    )
    plan = read_plan(plan_of(tmp_path, GOOD + more))
    assert (plan.search, plan.seeds, plan.forecast_images, plan.costs, plan.pictures) == (None, 4, 30, False, 0)
    assert plan.halving == Halving((1, 2), 0.4, 2)
    assert plan.published[0].value == 30.5


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    message = refused(
        tmp_path,
        """
tasks = {"boxes": dict(config="c.py", chnages={}), "masks": dict()}
backbones = [
    dict(name="a", tim="resnet18"),
    dict(name="a", arm="randm", top1=170),
    dict(name="c", arm="random", weights="w.pth", norm="frozen", changes_by_task={"maks": {}}),
    dict(name="d", arm="grown", adds_to="e"),
    dict(arm="grown", grow=dict(confg="x.py")),
]
seach = dict()
search = dict(factors=(1.0, -1), budget=0, held_out=1, sed=3)
seeds = 0
halving = dict(rungs=(2, 1))
""",
    )
    for part in (
        "unknown top-level name 'seach', did you mean 'search'?",
        "tasks['boxes'] has an unknown key 'chnages', did you mean 'changes'?",
        "tasks['masks'] needs 'config'",
        "backbones[0] has an unknown key 'tim', did you mean 'timm'?",
        "two backbones are named 'a'",
        "arm='randm' is none of pretrained, random, grown, frozen, did you mean 'random'?",
        "backbones[1].top1=170",
        "arm='random' has no weights: leave out weights='w.pth'",
        "arm='random' with norm='frozen' is a straw man",
        "there is no task 'maks', did you mean 'masks'?",
        "backbones[3]: arm='grown' and grow=dict(config=...) go together",
        "backbones[3].adds_to='e' is no other backbone",
        "backbones[4] needs 'name'",
        "search has an unknown key 'sed', did you mean 'seed'?",
        "search.factors=(1.0, -1) must be numbers above 0",
        "search.budget=0",
        "search.held_out=1",
        "seeds=0 must be a whole number, 1 or more",
        "halving.rungs=(2, 1) must be rising numbers of seeds",
    ):
        assert part in message, part


def test_no_such_file_and_one_backbone(tmp_path: Path) -> None:
    plan_of(tmp_path, GOOD)
    with pytest.raises(UserError, match=r"did you mean .*mine\.py"):
        read_plan(tmp_path / "mien.py")
    assert "two at least" in refused(tmp_path, GOOD.replace(', dict(name="b", arm="random")', ""))


@pytest.fixture
def in_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)


@pytest.mark.usefixtures("in_repository")
@pytest.mark.parametrize("name", ["sample", "fruit_camvid", "bot_table8", "bot_table9"])
def test_shipped_rankings_fit_their_configs(name: str, tmp_path: Path) -> None:
    path = Path("configs/rank") / f"{name}.py"
    plan = read_plan(path)
    prepared = prepare(plan, path, tmp_path)
    assert set(prepared.grid.configs) == {(b.name, t.name) for b in plan.backbones for t in plan.tasks}
    for slot in (*prepared.grid.grown(), *prepared.grid.searches(), *prepared.grid.runs([1])):
        config = prepared.grid.description(slot).config
        base = prepared.bases[slot.task or slot.backbone][1]
        assert changed(base, overrides_of(base, config), "said") == config  # as the single run's command has it
    for backbone in plan.backbones:
        if backbone.arm == "random":
            for task in plan.tasks:
                config = prepared.grid.configs[backbone.name, task.name]
                node = config["model"]["backbone"]
                assert (node["weights"], node["norm"], node["frozen_stages"]) == (None, "batch", 0)
                assert "backbone" not in config["optimizer"]["lr_factors"]


@pytest.mark.usefixtures("in_repository")
def test_the_tables_of_bag_of_tricks_give_each_row_its_recipe(tmp_path: Path) -> None:
    path = Path("configs/rank/bot_table8.py")
    prepared = prepare(read_plan(path), path, tmp_path)
    assert [(point.top1, point.value) for point in prepared.plan.published] == [
        (76.14, 77.54), (77.16, 78.30), (77.91, 79.23), (78.34, 80.71), (78.67, 80.96), (79.16, 81.10), (79.29, 81.33),
    ]  # fmt: skip
    rows = []
    for config in prepared.grid.growths.values():
        schedule = config["schedule"]
        then = schedule.get("then", schedule)["type"].rpartition(".")[2]
        blend, teacher = config["loader"]["blend"] is not None, config["criterion"]["teacher"] is not None
        name, smoothing = config["model"]["backbone"]["name"], config["criterion"]["label_smoothing"]
        rows.append((name, then, smoothing, teacher, blend))
    assert rows == [
        ("resnet50b", "Step", 0.0, False, False),
        ("resnet50d", "Step", 0.0, False, False),
        ("resnet50d", "Cosine", 0.0, False, False),
        ("resnet50d", "Cosine", 0.1, False, False),
        ("resnet50d", "Cosine", 0.1, True, False),
        ("resnet50d", "Cosine", 0.1, False, True),
        ("resnet50d", "Cosine", 0.1, True, True),
    ]
    names = [prepared.grid.configs[b.name, "detection"]["model"]["backbone"]["name"] for b in prepared.plan.backbones]
    assert names == [row[0] for row in rows]  # what was grown is what it is loaded into


def grafted(tmp_path: Path, backbone: str) -> dict[str, object]:
    from transfer.build import load_config

    plan = read_plan(plan_of(tmp_path, GOOD.replace('dict(name="a")', backbone)))
    base = load_config("configs/sample_yolov3_lite0.py")
    return graft(base, plan.backbones[0], "boxes", plan.backbones[0].weights)


@pytest.mark.usefixtures("in_repository")
def test_a_timm_name_takes_the_place_of_the_network(tmp_path: Path) -> None:
    config = grafted(tmp_path, 'dict(name="r", timm="resnet18d", weights="mine.pth", model_options={"act_layer": "x"})')
    assert config["model"]["backbone"] == {  # type: ignore[index]
        "type": "backbones.timm_backbone.TimmBackbone",
        "name": "resnet18d",
        "weights": "mine.pth",
        "norm": "frozen",  # of the task
        "frozen_stages": 1,
        "model_options": {"act_layer": "x"},
    }
    with pytest.raises(UserError, match="without weights has random values"):
        grafted(tmp_path, 'dict(name="r", timm="resnet18d")')


@pytest.mark.usefixtures("in_repository")
def test_a_straw_man_is_refused(tmp_path: Path) -> None:
    for change in ('"model.backbone.norm": "frozen"', '"model.backbone.frozen_stages": 2'):
        with pytest.raises(UserError, match="trains all of a network from random values"):
            grafted(tmp_path, f'dict(name="r", arm="random", changes={{{change}}})')


@pytest.mark.usefixtures("in_repository")
def test_a_frozen_arm_freezes_every_stage(tmp_path: Path) -> None:
    from transfer.build import build

    node = dict(grafted(tmp_path, 'dict(name="r", arm="frozen", norm="batch")')["model"]["backbone"])  # type: ignore[index]
    network = build({**node, "weights": None})
    assert node["norm"] == "frozen"
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.usefixtures("in_repository")
def test_what_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("sample_yolov3_lite0", "sample_yolov3_lite1").replace(
        "}\nback", ', "masks": dict(config="configs/sample_fcn_lite0.py", changes={"training.epoch": 1})}\nback'
    )
    path = plan_of(tmp_path, text)
    with pytest.raises(UserError) as caught:
        prepare(read_plan(path), path, tmp_path, roots={"boxs": {"all": "x"}})
    assert "did you mean 'configs/sample_yolov3_lite0.py'" in str(caught.value)
    assert "has no key 'epoch', did you mean 'epochs'?" in str(caught.value)
    assert "there is no task 'boxs', did you mean 'boxes'?" in str(caught.value)
    path = plan_of(tmp_path, GOOD.replace('arm="random"', "norm='frozen'"))
    with pytest.raises(UserError, match="'b' is the same as 'a' on task 'boxes'"):
        prepare(read_plan(path), path, tmp_path)
