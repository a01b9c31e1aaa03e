"""Which parts of a graph become integers, on which photographs they are calibrated, and what is refused beforehand."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_checkpoints import write_checkpoint
from tiny_masks import write_masks

from transfer.engine.checkpoint import load_checkpoint
from transfer.export import command
from transfer.export.command import export_checkpoint
from transfer.export.integers import Photographs, _spread, _tell_loss
from transfer.export.quantize import _not_of_the_network, quantized
from transfer.restoring import restore
from transfer.types import UserError


def two_stages() -> onnx.ModelProto:
    """As of a two-stage detector: scores of 64 cells choose 3 of them, which a box head reads."""
    generator = np.random.default_rng(0)

    def constant(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array((scale * generator.normal(size=shape)).astype(np.float32), name)

    nodes = [
        ("Cast", ["images"], ["pixels"], {"to": TensorProto.FLOAT}),
        ("Conv", ["pixels", "w1"], ["c1"], {}),
        ("Relu", ["c1"], ["r1"], {}),
        ("Conv", ["r1", "w2"], ["c2"], {}),
        ("Add", ["c1", "c2"], ["sum"], {}),  # a residual
        ("Conv", ["sum", "w3"], ["objectness"], {}),  # [1, 1, 8, 8]
        ("Sigmoid", ["objectness"], ["scores"], {}),  # after the last weights of the first stage
        ("Add", ["scores", "tiny"], ["decoded"], {}),
        ("Reshape", ["decoded", "flat"], ["row"], {}),
        ("TopK", ["row", "three"], ["best", "places"], {"axis": 1}),
        ("Gemm", ["best", "w4"], ["hidden"], {}),
        ("Relu", ["hidden"], ["active"], {}),
        ("Softmax", ["hidden"], ["share"], {}),
        ("Mul", ["active", "share"], ["gated"], {}),  # with what is none of the network's sums
        ("Gemm", ["gated", "w5"], ["last"], {}),
        ("Transpose", ["last"], ["turned"], {}),
        ("MatMul", ["last", "turned"], ["products"], {}),  # without weights
        ("Add", ["last", "tiny"], ["logits"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, ins, outs, name=outs[0], **more) for kind, ins, outs, more in nodes],
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("logits", "best", "products")],
        [
            *(constant("w1", 4, 3, 1, 1, scale=0.003), constant("w2", 4, 4, 1, 1), constant("w3", 1, 4, 1, 1)),
            *(constant("w4", 3, 5), constant("w5", 5, 2), constant("tiny", 1)),
            onnx.numpy_helper.from_array(np.array([1, 64]), "flat"),
            onnx.numpy_helper.from_array(np.array([3]), "three"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_what_lies_between_weights_becomes_integers_and_nothing_else() -> None:
    graph = two_stages().graph
    spared = set(_not_of_the_network(graph))
    assert {node.name for node in graph.node} - spared == {
        *("c1", "r1", "c2", "sum", "objectness"),
        *("hidden", "last"),
    }


def test_the_choice_among_equal_scores_is_made_in_float32() -> None:
    """Of 64 scores in 256 steps several would be equal; the best three stay the best three to within a step."""
    from onnxruntime import InferenceSession

    generator = np.random.default_rng(1)
    feeds = [{"images": generator.integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)} for _ in range(8)]
    model = two_stages()
    integers = quantized(model, iter(feeds), gives="detections")
    kinds = {node.op_type: node for node in integers.graph.node}
    quantized_places = {
        name for node in integers.graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds.keys()
    for kind in ("TopK", "Reshape"):
        assert not quantized_places.intersection(kinds[kind].input), kind
    sessions = [
        InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]) for each in (model, integers)
    ]
    for feed in feeds:
        (_, exact, _), (_, rough, _) = (session.run(None, feed) for session in sessions)
        assert 0 < np.abs(exact - rough).max() < 0.05


@pytest.mark.parametrize(
    ("length", "count", "places"),
    [(10, 3, [0, 3, 6]), (10, 10, list(range(10))), (3, 100, [0, 1, 2]), (5, 4, [0, 1, 2, 3]), (7, 1, [0])],
)
def test_images_are_spread_over_the_whole(length: int, count: int, places: list[int]) -> None:
    assert _spread(length, count) == places


def test_every_class_of_a_folder_is_met() -> None:
    """168 images of 14 classes, 12 each, one class after another: a hundred of them hold 7 or 8 of each."""
    classes = np.array(_spread(168, 100)) // 12
    assert set(np.bincount(classes, minlength=14)) == {7, 8} or min(np.bincount(classes, minlength=14)) >= 7


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks(tmp_path_factory.mktemp("pictures"), train=6, test=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "a.pth", "segmentation", pictures)


def test_photographs_are_of_the_config_or_given(checkpoint: Path, pictures: Path) -> None:
    restored = restore(load_checkpoint(checkpoint), torch.device("cpu"))
    found = Photographs.found(restored, calibration=(), count=3, data=None)
    names = [Path(found.train.record(place).path).name for place in range(3)]
    every = sorted(path.name for path in (pictures / "train").iterdir())
    assert names == [every[0], every[2], every[4]]
    assert (len(found.test), found.files) == (3, [])
    assert [Path(sample.path).name for sample in found.samples()] == names
    given = Photographs.found(restored, calibration=[str(pictures / "train")], count=2, data=None)
    assert [path.name for path in given.files] == [every[0], every[3]]
    assert [Path(sample.path).name for sample in given.samples()] == [every[0], every[3]]
    assert len(given.test) == 2


@pytest.mark.parametrize(
    ("after", "warned"), [(0.75, False), (0.68, False), (0.67, True), (0.0, True)], ids=lambda value: str(value)
)
def test_a_loss_beyond_a_tenth_is_warned_of(after: float, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    _tell_loss("mAP50 of 9 test images", 0.75, after)
    assert f"int8 loses {75 - 100 * after:.2f} points of mAP50 of 9 test images" in caplog.text
    assert (f"int8 keeps only {after / 0.0075:.0f} % of mAP50" in caplog.text) == warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": ["nowhere"]}, "neither a file nor a folder"),
        ({"data": "nowhere"}, "nowhere"),
        ({"size": (96, 95)}, None),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_exported(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str | None
) -> None:
    class Reached(Exception):
        pass

    def reached(*arguments: object, **options: object) -> None:
        raise Reached

    monkeypatch.setattr(command, "_write", reached)
    with pytest.raises(UserError if message else Reached, match=message):
        export_checkpoint(checkpoint, tmp_path / "a.onnx", int8=True, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
