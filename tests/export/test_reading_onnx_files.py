"""ONNX files from anywhere: read where this project wrote them, refused by one message elsewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_checkpoints import config_of
from whole_checkpoint import whole_checkpoint

from transfer.export.onnx_file import ExportFacts, describe, read, save
from transfer.export.session import restore_exported
from transfer.types import RefusedCheckpoint, UserError

FACTS = ExportFacts(gives="logits", multiple=4)


def a_model(*, output: str = "logits") -> Any:
    """Each image's mean of R, G and B as logits."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "factor"], [output]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("factor", TensorProto.FLOAT, [1], [1.0]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, "height", "width"])
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "means", [images], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def a_checkpoint(tmp_path: Path) -> dict[str, Any]:
    config = json.dumps(config_of("classification", tmp_path))
    names = {"class_names": ["red", "green", "blue"], "category_ids": []}
    return whole_checkpoint() | {"config": config} | names


def written(tmp_path: Path, change: Callable[[Any], None] = lambda model: None, **options: Any) -> Path:
    """A file of this project's, changed before it is written."""
    model = a_model(**options)
    describe(model, a_checkpoint(tmp_path), FACTS)
    change(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_sound_file_computes_and_says_what_it_is(tmp_path: Path) -> None:
    checkpoint, restored = restore_exported(written(tmp_path))
    assert checkpoint["class_names"] == ["red", "green", "blue"]
    assert restored.task.model.backbone.pad_value == (128, 128, 128)
    images = torch.zeros(2, 3, 8, 4, dtype=torch.uint8)
    images[1, 2] = 7
    output = restored.task.model(images, [(8, 4)] * 2)
    assert output.logits.tolist() == [[0, 0, 0], [0, 0, 7]]


def test_images_of_a_size_that_the_file_does_not_take_are_refused(tmp_path: Path) -> None:
    _, restored = restore_exported(written(tmp_path))
    with pytest.raises(UserError, match=r"images of 6x4 px: this file takes images that have sides of multiples of 4"):
        restored.task.model(torch.zeros(1, 3, 6, 4, dtype=torch.uint8), [(6, 4)])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    model, facts = a_model(), ExportFacts(gives="logits", multiple=2, size=(4, 6), precision="int8")
    describe(model, a_checkpoint(tmp_path), facts)
    save(model, tmp_path / "a.onnx")
    checkpoint, found, content = read(tmp_path / "a.onnx")
    assert found == facts
    assert checkpoint["format"] == "trickstack/1"
    assert content == (tmp_path / "a.onnx").read_bytes()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    onnx.save(a_model(), tmp_path / "foreign.onnx")
    with pytest.raises(RefusedCheckpoint, match=r"does not say how its images are prepared .*tools/export.py"):
        read(tmp_path / "foreign.onnx")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(RefusedCheckpoint):
        restore_exported(path)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(RefusedCheckpoint, match="is no ONNX file, or is cut short"):
        read(tmp_path / "a.onnx")
    with pytest.raises(RefusedCheckpoint, match="no file"):
        read(tmp_path / "nowhere.onnx")


def elsewhere(tensor: Any, location: str) -> None:
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def in_a_constant(model: Any) -> None:
    tensor = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [1.0])
    elsewhere(tensor, "../secret")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))


def in_a_function(model: Any) -> None:
    tensor = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [1.0])
    elsewhere(tensor, "../secret")
    node = helper.make_node("Constant", [], ["hidden"], value=tensor)
    model.functions.append(helper.make_function("own", "f", [], ["hidden"], [node], model.opset_import))


@pytest.mark.parametrize("location", ["beside.bin", "../secret", "/etc/hostname"])
def test_numbers_in_other_files_are_never_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "beside.bin").write_bytes(np.float32([3]).tobytes())
    path = written(tmp_path, lambda model: elsewhere(model.graph.initializer[1], location))
    with pytest.raises(RefusedCheckpoint, match="keeps numbers in other files, which are not read"):
        read(path)


@pytest.mark.parametrize("change", [in_a_constant, in_a_function])
def test_nor_where_they_are_hidden_deeper(tmp_path: Path, change: Callable[[Any], None]) -> None:
    with pytest.raises(RefusedCheckpoint, match="keeps numbers in other files"):
        read(written(tmp_path, change))


def described(**changes: Any) -> Callable[[Any], None]:
    """Another value in the description."""

    def change(model: Any) -> None:
        about = json.loads(model.metadata_props[0].value)
        about["export"] |= changes.pop("export", {})
        model.metadata_props[0].value = json.dumps(about | changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (described(class_names=3), "'class_names' is of type int"),
        (described(config="[]"), "'config' is of type str"),
        (described(format="trickstack/0"), "another version"),
        (described(export={"gives": "anything"}), "description is damaged"),
        (described(export={"size": [1, 2, 3]}), "description is damaged"),
        (described(export={"multiple": 10**9}), "description is damaged"),
        (described(export={"more": 1}), "description is damaged"),
        (described(export={"gives": "detections"}), "gives logits, where boxes, scores, labels is due"),
    ],
)
def test_a_description_that_this_project_does_not_write_is_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(RefusedCheckpoint, match=message):
        read(written(tmp_path, change))


def test_a_class_that_is_not_trusted_is_not_built(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        about = json.loads(model.metadata_props[0].value)
        config = json.loads(about["config"])
        config["postprocess"] = {"type": "os.system", "command": "true"}
        model.metadata_props[0].value = json.dumps(about | {"config": json.dumps(config)})

    with pytest.raises(UserError, match=r"'os.system' is not of the modules trusted here"):
        restore_exported(written(tmp_path, change))


def test_an_operation_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.node[2].op_type = "Frobnicate"

    with pytest.raises(RefusedCheckpoint, match="ONNX Runtime does not take this graph"):
        restore_exported(written(tmp_path, change))


@pytest.mark.parametrize("tool", ["predict", "evaluate"])
def test_the_tools_say_it_in_one_message(tmp_path: Path, run_tool: Callable[..., tuple[int, str]], tool: str) -> None:
    onnx.save(a_model(), tmp_path / "foreign.onnx")
    code, said = run_tool(tool, tmp_path / "foreign.onnx", *([tmp_path] if tool == "predict" else []))
    assert code == 2
    assert "error: " in said
    assert "Traceback" not in said


def test_without_onnxruntime_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else found(name, *rest)
    )
    with pytest.raises(UserError, match=r"need onnxruntime, not installed here: pip install 'trickstack\[export\]'"):
        read(path)


def test_facts_are_plain() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(FACTS)))["multiple"] == 4
