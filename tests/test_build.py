"""From config files to objects: names, overrides, messages, and what a checkpoint's config may not name."""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from transfer.augment.geometry import HorizontalFlip
from transfer.augment.pipeline import Pipeline
from transfer.build import (
    TOP_LEVEL,
    TRUSTED_FUNCTIONS,
    TRUSTED_MODULES,
    apply_override,
    build,
    check_arguments,
    from_json,
    load_config,
    nearest,
    resolve,
    to_json,
)
from transfer.optim.optimizers import SGD, AdamW
from transfer.optim.schedules import Cosine, WarmUp
from transfer.types import UserError

SMALL = """
import transfer.optim.schedules
from transfer.data.voc import VOC_CLASSES
from transfer.optim.optimizers import SGD

_private = [1, 2]
model = dict(kind="m")
criterion = dict(kind="c", pair=(1, (2.5, None)))
postprocess = dict()
data = dict(names=VOC_CLASSES, numbers=_private)
loader = dict()
augment = dict()
optimizer = dict(type=SGD, lr=0.1, base_batch=4)
schedule = dict(type=transfer.optim.schedules.Cosine)
training = dict(epochs=1)
metrics = [dict(kind="first"), dict(kind="second")]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(SMALL, encoding="utf-8")
    return path


def test_classes_become_dotted_names_and_constants_their_values(small: Path) -> None:
    config = load_config(small)
    assert config["optimizer"] == {"type": "transfer.optim.optimizers.SGD", "lr": 0.1, "base_batch": 4}
    assert config["schedule"] == {"type": "transfer.optim.schedules.Cosine"}
    assert config["criterion"] == {"kind": "c", "pair": [1, [2.5, None]]}  # tuples are lists, as in JSON
    assert len(config["data"]["names"]) == 20
    assert config["data"]["names"][:2] == ["aeroplane", "bicycle"]
    assert config["data"]["numbers"] == [1, 2]
    assert set(config) == set(TOP_LEVEL) - {"task"}  # which may be left out; _private stayed in the file


def test_a_file_that_is_joined_from_elsewhere_is_answered_with_how_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from mmengine.config import read_base\nwith read_base():\n    from configs._base_.part import *\n")
    with pytest.raises(
        UserError, match=r"mine\.py: read_base\(\) joins files .* put the file into the folder configs/"
    ):
        load_config(path)


def test_read_base_joins_files_and_later_values_win(tmp_path: Path) -> None:
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_" / "part.py").write_text("training = dict(epochs=1, seed=3)\nloader = dict(a=1)\n", "utf-8")
    head = "from mmengine.config import read_base\nwith read_base():\n    from ._base_.part import *\n"
    body = SMALL.replace("loader = dict()\n", "").replace("training = dict(epochs=1)", "training.update(epochs=7)")
    (tmp_path / "joined.py").write_text(head + body, encoding="utf-8")
    config = load_config(tmp_path / "joined.py")
    assert config["loader"] == {"a": 1}
    assert config["training"] == {"epochs": 7, "seed": 3}


def test_a_class_beside_the_config_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "beside_the_config.py").write_text("class Mine:\n    def __init__(self, *, a): self.a = a\n", "utf-8")
    text = SMALL.replace('model = dict(kind="m")', "model = dict(type=Mine, a=5)")
    (tmp_path / "own.py").write_text("from beside_the_config import Mine\n" + text, encoding="utf-8")
    config = load_config(tmp_path / "own.py")
    assert config["model"] == {"type": "beside_the_config.Mine", "a": 5}
    assert build(config["model"]).a == 5


def test_json_builds_the_same_objects(small: Path) -> None:
    config = load_config(small)
    config["schedule"] = {"type": "transfer.optim.schedules.WarmUp", "iterations": 3, "then": config["schedule"]}
    again = from_json(to_json(config))
    assert again == config
    assert build(again["optimizer"]) == build(config["optimizer"]) == SGD(lr=0.1, base_batch=4)
    assert build(again["schedule"]) == WarmUp(iterations=3, then=Cosine())
    json.loads(to_json(config))  # and nothing but JSON


@pytest.mark.parametrize("text", ["{", "[]", '{"modle": 1}', "12"])
def test_what_is_no_config_is_refused_as_json(text: str) -> None:
    with pytest.raises(UserError, match=r"the checkpoint's config"):
        from_json(text)


def test_build_walks_lists_and_plain_dicts_innermost_first() -> None:
    node = {
        "a": [{"type": "transfer.optim.schedules.Cosine", "final": 0.5}, 3],
        "b": {"c": {"type": "transfer.optim.schedules.Cosine"}},
    }
    before = copy.deepcopy(node)
    assert build(node) == {"a": [Cosine(final=0.5), 3], "b": {"c": Cosine()}}
    assert node == before
    pipeline = build({"type": "transfer.augment.presets.square_train", "size": 32})
    assert isinstance(pipeline, Pipeline)
    assert any(isinstance(step, HorizontalFlip) for step in pipeline.steps)


def test_given_arguments_win() -> None:
    node = {"type": "transfer.optim.optimizers.AdamW", "lr": 1.0, "base_batch": None}
    assert build(node, lr=0.5) == AdamW(lr=0.5, base_batch=None)


def test_unknown_and_missing_arguments_are_named_together_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        build({"type": "transfer.optim.optimizers.SGD", "momentun": 0.9, "base_batch": 4}, "optimizer")
    message = str(caught.value)
    assert message.startswith("optimizer: ")
    assert "SGD takes no 'momentun', did you mean 'momentum'?" in message
    assert "SGD needs 'lr'" in message
    assert "base_batch" not in message


def test_the_place_of_an_inner_mistake_is_named() -> None:
    node = {"type": "transfer.optim.schedules.WarmUp", "iterations": 3}
    with pytest.raises(UserError, match=r"config\.b\[1\]\.then: Cosine takes no 'finall', did you mean 'final'\?"):
        build({"b": [0, {**node, "then": {"type": "transfer.optim.schedules.Cosine", "finall": 0.0}}]})


def test_arguments_of_a_function_with_free_keywords_are_left_to_it() -> None:
    def free(a: int, **others: int) -> dict[str, int]:
        return {"a": a, **others}

    check_arguments(free, {"anything": 1}, "here")
    assert build({"type": "builtins.dict", "anything": 1}) == {"anything": 1}  # a class whose signature is not known


def test_unknown_and_missing_top_level_names_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(SMALL.replace("optimizer = ", "optimiser = ").replace("metrics = ", "_metrics = "), "utf-8")
    with pytest.raises(UserError) as caught:
        load_config(path)
    message = str(caught.value)
    assert str(path) in message
    assert "unknown top-level name 'optimiser', did you mean 'optimizer'?" in message
    assert "missing 'optimizer'" in message
    assert "'metrics'" in message


def test_sections_of_the_wrong_kind_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(SMALL.replace("loader = dict()", "loader = 3").replace("metrics = [", "metrics = (1), ["), "utf-8")
    load_config(path, ["loader={}"])
    with pytest.raises(UserError, match=r"loader is 3, it must be a dict .*; model is None|model is None.*loader is 3"):
        load_config(path, ["model=None"])


def test_a_mistake_in_the_file_and_a_missing_file(tmp_path: Path, small: Path) -> None:
    (tmp_path / "broken.py").write_text("model = dict(\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.py.*SyntaxError"):
        load_config(tmp_path / "broken.py")
    with pytest.raises(UserError, match=r"no config file .*smal\.py.*did you mean .*small\.py"):
        load_config(tmp_path / "smal.py")
    (tmp_path / "value.py").write_text(SMALL.replace('kind="m"', "kind={1, 2}"), encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.kind is a set"):
        load_config(tmp_path / "value.py")


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("optimizer.lr=0.25", ("optimizer", "lr"), 0.25),
        ("optimizer.lr=1e-3", ("optimizer", "lr"), 1e-3),
        ("optimizer.base_batch=None", ("optimizer", "base_batch"), None),
        ("model.kind=a=b", ("model", "kind"), "a=b"),
        ("model.kind='7'", ("model", "kind"), "7"),
        ("model.kind=", ("model", "kind"), ""),
        ("model.kind=(1, (2, 3))", ("model", "kind"), [1, [2, 3]]),
        ("model.kind=dict", ("model", "kind"), "dict"),
        ("metrics.1.kind=[]", ("metrics", 1, "kind"), []),
        ("criterion.pair.1.0=9", ("criterion", "pair", 1, 0), 9),
        ("optimizer.nesterov=False", ("optimizer", "nesterov"), False),  # left at its default in the file
        ("training.accumulate=2", ("training", "accumulate"), 2),  # no type, but settings of a known class
        ("loader.workers=3", ("loader", "workers"), 3),
    ],
)
def test_overrides_reach_existing_keys_and_arguments(
    small: Path, override: str, where: tuple[Any, ...], value: Any
) -> None:
    node: Any = load_config(small, [override])
    for step in where:
        node = node[step]
    assert node == value
    assert type(node) is type(value)


def test_an_argument_left_at_its_default_is_given_whole(small: Path) -> None:
    with pytest.raises(UserError, match=r"training does not set 'ema': give it whole, as training\.ema=\.\.\."):
        load_config(small, ["training.ema.decay=0.5"])
    config = load_config(small, ["training.ema={'decay': 0.5}", "training.ema.decay=0.25"])
    assert config["training"]["ema"] == {"decay": 0.25}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", r"'optimizer\.lrr': optimizer has no key 'lrr', did you mean 'lr'\?"),
        ("optimizer.nesterof=1", r"optimizer has no key 'nesterof', did you mean 'nesterov'\?"),
        ("optimiser.lr=1", r"the config has no key 'optimiser', did you mean 'optimizer'\?"),
        ("training.epoch=1", r"training has no key 'epoch', did you mean 'epochs'\?"),
        ("metrics.2.kind=1", r"metrics is a list of 2, '2' is no index"),
        ("metrics.-1.kind=1", r"metrics is a list of 2, '-1' is no index"),
        ("optimizer.lr.x=1", r"optimizer\.lr is 0\.1 and has no keys"),
        ("optimizer.lr", r"not of the form key\.subkey=value"),
        ("=3", r"not of the form key\.subkey=value"),
        ("model.kind={1, 2}", r"model\.kind is a set"),
    ],
)
def test_wrong_overrides_say_what_there_is(small: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(small, [override])


def test_an_override_changes_nothing_else(small: Path) -> None:
    config = load_config(small)
    expected = copy.deepcopy(config)
    expected["optimizer"]["lr"] = 3
    apply_override(config, "optimizer.lr=3")
    assert config == expected


@pytest.mark.parametrize(
    "dotted",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "eval",
        "torch.load",
        "transfer.build.load_config",  # project code, but not a part of a model
        "transfer.training.run",
        "transfer.report.pages.write_picture",
        "transfer.data.voc.Path",  # defined in pathlib
        "backbones.weights.torch.load",
        "backbones_of_mine.Thing",  # only looks like a trusted prefix
        "transfer.heads_of_mine.Thing",
        "transfer.metrics.detections.write_coco_detections",  # would overwrite a file of the checkpoint's choice
        "transfer.metrics.detections._write_whole",
        "transfer.data.sample.make_sample",  # returns something, but writes files
        "transfer.data.image.read_image",
        "backbones.weights.load_weights",
        "backbones.weight_sources.reachable",  # connects to a host
    ],
)
def test_a_checkpoints_config_cannot_name(dotted: str) -> None:
    with pytest.raises(UserError):
        resolve(dotted, TRUSTED_MODULES)
    with pytest.raises(UserError):
        build({"a": [{"type": dotted}]}, trusted=TRUSTED_MODULES)


def test_every_command_can_be_run_by_its_name(repository: Path) -> None:
    tools = [path for path in (repository / "tools").glob("*.py") if path.name != "__init__.py"]
    assert len(tools) >= 13
    assert [path.name for path in tools if not os.access(path, os.X_OK)] == []


@pytest.mark.parametrize("dotted", TRUSTED_FUNCTIONS)
def test_a_checkpoints_config_can_name_what_builds(dotted: str) -> None:
    """Every part that configs of this project are made of; the two parts of a search's data among them."""
    assert callable(resolve(dotted, TRUSTED_MODULES))
    assert "transfer.data.held_out.held_out" in TRUSTED_FUNCTIONS


def test_an_untrusted_module_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "was_imported"
    (tmp_path / "evil_on_import.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass A: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"--trust evil_on_import"):
        resolve("evil_on_import.A", TRUSTED_MODULES)
    assert not mark.exists()
    assert resolve("evil_on_import.A", (*TRUSTED_MODULES, "evil_on_import")).__name__ == "A"
    assert mark.exists()


def test_every_part_that_a_config_names_is_trusted() -> None:
    for dotted in (
        "backbones.timm_backbone.TimmBackbone",
        "transfer.heads.faster_rcnn.faster_rcnn_fpn",
        "transfer.augment.presets.two_stage_test",
        "transfer.metrics.coco_map.COCOMeanAP",
        "transfer.data.voc.VOCDataset",
        "transfer.optim.schedules.Cosine",
    ):
        module, _, name = dotted.rpartition(".")
        assert resolve(dotted, TRUSTED_MODULES) is getattr(importlib.import_module(module), name)


def test_unresolvable_names_say_why() -> None:
    with pytest.raises(UserError, match=r"no class 'Cosin', did you mean 'Cosine'\?"):
        resolve("transfer.optim.schedules.Cosin")
    with pytest.raises(UserError, match=r"cannot import 'transfer\.optim\.schedule'"):
        resolve("transfer.optim.schedule.Cosine")
    with pytest.raises(UserError, match=r"'Nothing' is not a class"):
        resolve("Nothing")
    assert resolve("builtins.dict") is dict


def test_nearest_is_silent_where_nothing_is_near() -> None:
    assert nearest("optimiser", TOP_LEVEL) == ", did you mean 'optimizer'?"
    assert nearest("qqq", TOP_LEVEL) == ""
