"""What a file computes in the place of a model, on graphs of a few operations whose results are known by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from tiny_onnx import KINDS, file_model, write_file

from transfer.evaluation import evaluate_checkpoint
from transfer.export.onnx_file import ExportFacts
from transfer.export.session import restore_exported
from transfer.prediction import predict_paths
from transfer.restoring import restore
from transfer.types import RefusedCheckpoint, UserError

SAMPLE = "transfer.data.sample_dataset.SampleDetection"
ONE = ExportFacts(gives="logits", multiple=4, batch=1)


def of_one_image(model: Any, _: dict[str, Any]) -> None:
    """The graph takes a single image, as a file does that could not be exported for more."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def test_a_file_for_single_images_computes_a_batch_in_its_order(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.onnx", "classification", facts=ONE, change=of_one_image)
    model = restore_exported(path)[1].task.model
    images = torch.zeros(3, 3, 4, 8, dtype=torch.uint8)
    images[1, 0], images[2, 2] = 5, 9
    assert model(images, [(4, 8)] * 3).logits.tolist() == [[0, 0, 0], [5, 0, 0], [0, 0, 9]]


def sees_sizes(model: Any, _: dict[str, Any]) -> None:
    """Its one box is that of the image's valid part, [height, width, height, width]."""
    _only_constants(model, "scores", "labels")
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["sizes"], ["sides"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["sides", "sides"], ["row"], axis=1),
            helper.make_node("Unsqueeze", ["row", "one"], ["boxes"]),
        ]
    )


def _only_constants(model: Any, *names: str) -> None:
    """Of these outputs one detection is left, of class "green"; the others are to be computed."""
    kept = [node for node in model.graph.node if node.output[0] in names]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("given_scores", TensorProto.FLOAT, [1, 1], [0.9]),
            helper.make_tensor("given_labels", TensorProto.INT64, [1, 1], [1]),
        ]
    )


def test_each_image_goes_with_its_own_size(tmp_path: Path) -> None:
    model = restore_exported(write_file(tmp_path / "a.onnx", "detections", change=sees_sizes))[1].task.model
    found = model(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [(8, 4), (6, 8)])
    assert found.boxes.tolist() == [[[8, 4, 8, 4]], [[6, 8, 6, 8]]]
    assert found.labels.tolist() == [[1], [1]]


@pytest.mark.parametrize("size", [None, (8, 12)], ids=["any size", "one size"])
def test_padding_holds_the_backbone_s_mean_colour(tmp_path: Path, size: tuple[int, int] | None) -> None:
    def change(_: Any, about: dict[str, Any]) -> None:
        about["backbone"]["mean"] = [0.2, 0.4, 0.6]

    facts = ExportFacts(gives="logits", multiple=4, size=size)
    model = restore_exported(write_file(tmp_path / "a.onnx", "segmentation", facts=facts, change=change))[1].task.model
    output = model(torch.full((2, 3, 4, 6), 10, dtype=torch.uint8), [(4, 6)] * 2)
    rows, columns = (2, 3) if size else (1, 2)
    assert output.size == (4 * rows, 4 * columns)
    for channel, colour in enumerate((51, 102, 153)):
        cells = np.full((rows, columns), float(colour))
        cells[0, :2] = 10, (10 + colour) / 2
        assert output.logits[:, channel].tolist() == [cells.tolist()] * 2


def test_a_stranger_s_file_does_not_choose_where_the_sample_is_drawn(tmp_path: Path) -> None:
    place = str(tmp_path / "anywhere")

    def change(_: Any, about: dict[str, Any]) -> None:
        part = {"type": SAMPLE, "split": "test", "root": place}
        about["config"]["data"] = {"train": part, "test": {"type": "a.part.of.data", "of": [dict(part)]}}
        about["config"]["metrics"] = [{"type": SAMPLE, "root": place}]

    path = write_file(tmp_path / "a.onnx", "classification", change=change)
    assert place not in json.dumps(restore_exported(path)[1].config)
    assert place not in json.dumps(restore_exported(path, trust=["mine"])[1].config)
    assert json.dumps(restore_exported(path, trust=None)[1].config).count(place) == 3  # one's own


def test_what_stands_where_the_postprocess_is_due_is_not_built_elsewhere(tmp_path: Path) -> None:
    def change(_: Any, about: dict[str, Any]) -> None:
        about["config"]["postprocess"] = {"type": SAMPLE, "root": str(tmp_path / "anywhere"), "split": "nowhere"}

    with pytest.raises(UserError):
        restore_exported(write_file(tmp_path / "a.onnx", "classification", change=change))
    assert not (tmp_path / "anywhere").exists()


MODULE = """
from transfer.heads.classification import ClassificationPostprocess


class Mine(ClassificationPostprocess):
    pass
"""


def test_a_module_of_one_s_own_beside_the_work_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_postprocess.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def change(_: Any, about: dict[str, Any]) -> None:
        about["config"]["postprocess"] = {"type": "own_postprocess.Mine"}

    path = write_file(tmp_path / "a.onnx", "classification", change=change)
    with pytest.raises(UserError, match="--trust own_postprocess"):
        restore_exported(path)
    assert type(restore_exported(path, trust=["own_postprocess"])[1].task.postprocess).__name__ == "Mine"


# What is wrong with a file is said before it predicts, or at the first image.


CLASSIFIES, SEGMENTS, DETECTS = ({"type": KINDS[kind][2]} for kind in ("classification", "segmentation", "regions"))


def in_config(**parts: Any) -> Callable[[Any, dict[str, Any]], None]:
    return lambda _, about: about["config"].update(parts)


def retyped(model: Any, _: dict[str, Any]) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def in_halves(model: Any, _: dict[str, Any]) -> None:
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Cast", ["before"], ["logits"], to=TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("classification", in_config(task="segmentation"), r"logits as .*\[batch, 3\], where .*\[B, K, h, w\] is due"),
        ("segmentation", in_config(task="classification"), r"where .*\[B, K\] is due in classification"),
        ("segmentation", in_config(task="detection"), "the file is for detection, but gives logits"),
        ("detections", in_config(task="classification"), "for classification, but gives detections"),
        ("classification", in_config(postprocess={}), r"postprocess=\{\} makes no predictions"),
        ("detections", in_config(postprocess={}), r"postprocess=\{\} makes no predictions"),
        ("classification", in_config(task="segmentation", postprocess=SEGMENTS), r"\[B, K, h, w\] is due in segmen"),
        ("classification", in_config(postprocess=DETECTS), "the file's config cannot be built: AttributeError"),
        ("scored", in_config(postprocess=DETECTS), "the file's config cannot be built: AttributeError"),
        ("segmentation", in_config(postprocess=CLASSIFIES), "is no postprocess for segmentation"),
        ("classification", lambda _, about: about.update(class_names=["a"]), "its class names, which are 1"),
        ("segmentation", lambda _, about: about.update(class_names=["a", "b"]), "its class names, which are 2"),
        ("scored", lambda _, about: about.update(class_names=["a", "b"], category_ids=[]), "gives scores as"),
        ("regions", lambda _, about: about.update(class_names=["a", "b"], category_ids=[]), "gives logits as"),
        ("classification", retyped, r"takes images \(uint8\) and sizes \(int64\), this one images \(tensor\(float\)\)"),
        ("classification", in_halves, "gives logits as tensor.float16"),
        ("regions", lambda _, about: about["export"].pop("box_code"), "description is damaged"),
        ("regions", lambda _, about: about["export"].update(box_code=[1, 1, 1, 10**400]), "description is damaged"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_itself_is_refused(
    tmp_path: Path, kind: str, change: Callable[[Any, dict[str, Any]], None], message: str
) -> None:
    path = write_file(tmp_path / "a.onnx", kind, change=change)
    _without_shapes(path)  # as a graph is that states none: what it names is checked where it is computed
    with pytest.raises(RefusedCheckpoint):
        predict_paths(path, [_photograph(tmp_path)], output=str(tmp_path / "out"), pictures=False)
    path = write_file(tmp_path / "a.onnx", kind, change=change)
    with pytest.raises(RefusedCheckpoint, match=message):
        restore_exported(path)


def _without_shapes(path: Path) -> None:
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, path)


def _photograph(folder: Path, column: int = 8) -> str:
    """32x16 pixels, black; two columns are white."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, column : column + 2] = 255
    Image.fromarray(pixels).save(folder / "photograph.png")
    return str(folder / "photograph.png")


def labels_of_no_class(model: Any, _: dict[str, Any]) -> None:
    model.graph.initializer[2].CopyFrom(helper.make_tensor("given_labels", TensorProto.INT64, [1, 2], [1, 1000]))


def boxes_of_nothing(model: Any, _: dict[str, Any]) -> None:
    nothing = helper.make_tensor("given_boxes", TensorProto.FLOAT, [1, 2, 4], [float("nan")] * 8)
    model.graph.initializer[0].CopyFrom(nothing)


def fails_later(model: Any, _: dict[str, Any]) -> None:
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [7, 3]))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Reshape", ["before", "shape"], ["logits"]))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "other"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("detections", labels_of_no_class, "labels from 1 to 1000; its class names are 3"),
        ("detections", boxes_of_nothing, "boxes that are no numbers"),
        ("scored", boxes_of_nothing, "boxes that are no numbers"),
        ("classification", fails_later, r"this file fails on images \[1x3x16x16\]: .*Reshape"),
        ("segmentation", in_config(augment={"train": {}, "test": {}}), r"augment.test=\{\} prepares no images"),
        (
            "detections",
            in_config(loader={"batch_size": 1, "test_time": {"scales": [1e9]}}),
            "16000000000x16000000000 px, at most",
        ),
        ("segmentation", in_config(loader={"batch_size": 1, "size_divisor": 10**9}), "size_divisor=1000000000 must"),
    ],
)
def test_what_shows_at_the_first_image_is_one_message(
    tmp_path: Path,
    run_tool: Callable[..., tuple[int, str]],
    kind: str,
    change: Callable[[Any, dict[str, Any]], None],
    message: str,
) -> None:
    path = write_file(tmp_path / "a.onnx", kind, change=change)
    restore_exported(path)
    with pytest.raises(UserError, match=message):
        predict_paths(path, [_photograph(tmp_path)], output=str(tmp_path / "out"), pictures=False)
    code, said = run_tool("predict", path, tmp_path / "photograph.png", "--output", tmp_path / "out")
    assert code == 2
    assert "error: " in said
    assert "Traceback" not in said


def test_names_in_a_graph_move_no_terminal(tmp_path: Path) -> None:
    def change(model: Any, _: dict[str, Any]) -> None:
        model.graph.input[0].name = model.graph.node[0].input[0] = "\x1b[2J"

    with pytest.raises(RefusedCheckpoint) as refused:
        restore_exported(write_file(tmp_path / "a.onnx", "classification", change=change))
    assert "\x1b" not in str(refused.value)
    assert r"\x1b[2J" in str(refused.value)


def test_a_file_is_read_as_what_was_checked(tmp_path: Path) -> None:
    """ONNX Runtime takes a file for its own format by four letters in it, and reads that by other rules."""
    letters = b"\x12\x06xxORTM"  # the producer's name; the last of several counts
    (tmp_path / "a.onnx").write_bytes(letters + file_model("classification").SerializeToString())
    model = restore_exported(tmp_path / "a.onnx")[1].task.model
    assert model(torch.ones(1, 3, 4, 4, dtype=torch.uint8), [(4, 4)]).logits.tolist() == [[1, 1, 1]]


def test_a_checkpoint_s_config_without_parts_is_refused_too() -> None:
    from tiny_checkpoints import config_of
    from whole_checkpoint import whole_checkpoint

    for part, message in (("model", "is no network"), ("postprocess", "makes no predictions")):
        config = {**config_of("segmentation", Path()), part: {}}
        checkpoint = whole_checkpoint() | {"config": json.dumps(config), "class_names": ["a", "b"], "category_ids": []}
        with pytest.raises(UserError, match=message):
            restore(checkpoint, torch.device("cpu"))


# A detector that sees pixels: the brightest column of its image is the left side of its box, one pixel wide.


def sees_columns(model: Any, about: dict[str, Any]) -> None:
    _only_constants(model, "scores", "labels")
    model.graph.initializer.extend(
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("left", TensorProto.FLOAT, [1, 4], [1, 0, 1, 0]),
            helper.make_tensor("rest", TensorProto.FLOAT, [1, 4], [0, 0, 1, 16]),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers", "axes"], ["columns"], keepdims=0),  # [1, W]
            helper.make_node("ArgMax", ["columns"], ["place"], axis=1, keepdims=1),  # [1, 1]
            helper.make_node("Cast", ["place"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "left"], ["moved"]),
            helper.make_node("Add", ["moved", "rest"], ["row"]),
            helper.make_node("Unsqueeze", ["row", "one"], ["boxes"]),
        ]
    )
    about["config"]["metrics"] = [{"type": "transfer.metrics.voc_map.VOCMeanAP"}]


TRUTH = (
    "<annotation><filename>photograph.png</filename><object><name>green</name><bndbox><xmin>9</xmin><ymin>1</ymin>"
    "<xmax>10</xmax><ymax>16</ymax></bndbox></object></annotation>"
)


@pytest.mark.parametrize("test_time", [None, {"scales": [1.0], "flip": True}], ids=["one view", "mirrored, too"])
def test_a_detector_s_file_is_predicted_with_and_measured(tmp_path: Path, test_time: dict[str, Any] | None) -> None:
    data = tmp_path / "data"
    data.mkdir()
    _photograph(data)
    (data / "photograph.xml").write_text(TRUTH)

    def change(model: Any, about: dict[str, Any]) -> None:
        sees_columns(model, about)
        about["config"]["data"]["test"] = {"type": "transfer.data.voc.XMLFolderDataset", "root": str(data)}

    path = write_file(tmp_path / "a.onnx", "detections", change=change)
    options: dict[str, Any] = {"test_time": test_time, "device": "cpu"}
    # The image is squashed from 32x16 to 16x16: columns 8 and 9 become column 4, and go back to 8 and 9.
    (result,) = predict_paths(path, [str(data / "photograph.png")], output=str(tmp_path / "out"), **options)
    assert result["detections"] == [{"class": "green", "score": 0.9, "box": [8, 0, 10, 16]}]
    (metric,) = evaluate_checkpoint(path, output=str(tmp_path / "measured"), **options)
    assert list(metric.values.values()) == [1.0]
    (written,) = json.loads((tmp_path / "measured" / "detections.json").read_text())
    assert written["bbox"] == [8, 0, 2, 16]
    assert written["category_id"] == 2
