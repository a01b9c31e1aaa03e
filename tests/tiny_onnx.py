"""Exported files of a few operations, written by hand: to be read, changed and read again in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from whole_checkpoint import whole_checkpoint

from transfer.export.onnx_file import ExportFacts, describe

CLASS_NAMES = ["red", "green", "blue"]
_HEADS, _AUGMENT = "transfer.heads", "transfer.augment"
KINDS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "classification": (
        "classification",
        {"gives": "logits"},
        f"{_HEADS}.classification.ClassificationPostprocess",
        {"type": f"{_AUGMENT}.classification_presets.classification_test", "size": 16},
    ),
    "segmentation": (
        "segmentation",
        {"gives": "logits"},
        f"{_HEADS}.segmentation.SegmentationPostprocess",
        {"type": f"{_AUGMENT}.presets.segmentation_test"},
    ),
    "scored": (
        "detection",
        {"gives": "scored"},
        f"{_HEADS}.yolov3_postprocess.YOLOv3Postprocess",
        {"type": f"{_AUGMENT}.presets.square_test", "size": 16},
    ),
    "detections": (
        "detection",
        {"gives": "detections"},
        f"{_HEADS}.ssd_postprocess.SSDPostprocess",
        {"type": f"{_AUGMENT}.presets.square_test", "size": 16},
    ),
    "regions": (
        "detection",
        {"gives": "regions", "box_code": (10.0, 10.0, 5.0, 5.0)},
        f"{_HEADS}.faster_rcnn.FasterRCNNPostprocess",
        {"type": f"{_AUGMENT}.presets.two_stage_test", "short": 16, "long_max": 32},
    ),
}
"""Task, facts, postprocess and test pipeline."""
_LOGITS = np.array([[[0, 9, 0, 0], [0, 0, 5, 0]]], np.float32)
_BOXES = np.array([[[1, 2, 9, 10], [4, 4, 12, 14]]], np.float32)
_CONSTANT: dict[str, dict[str, np.ndarray]] = {
    "scored": {"boxes": _BOXES, "scores": np.array([[[0.1, 0.9, 0.0], [0.7, 0.0, 0.2]]], np.float32)},
    "detections": {
        "boxes": _BOXES,
        "scores": np.array([[0.9, 0.7]], np.float32),
        "labels": np.array([[1, 2]], np.int64),
    },
    "regions": {
        "regions": _BOXES,
        "found": np.array([[True, True]]),
        "logits": _LOGITS,
        "deltas": np.zeros((1, 2, 1, 4), np.float32),
    },
}


def facts_of(kind: str, **changes: Any) -> ExportFacts:
    """Of a detector the graph gives the same for one image after the other."""
    batch = 1 if kind in _CONSTANT else None
    return ExportFacts(**{"multiple": 4, "batch": batch, **KINDS[kind][1], **changes})


def graph_model(kind: str) -> Any:
    """A graph without description: the mean of R, G and B of each image or cell as logits; or given detections."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, "height", "width"])
    inputs, outputs, constants = [images], [], []
    if kind in _CONSTANT:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, ["batch", 2]))
        nodes = []
        for name, value in _CONSTANT[kind].items():
            constants.append(numpy_helper.from_array(value, f"given_{name}"))
            nodes.append(helper.make_node("Identity", [f"given_{name}"], [name]))
            shape = [f"{name}_{axis}" for axis in range(value.ndim)]
            outputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape))
    else:
        nodes = [helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT)]
        if kind == "classification":
            constants = [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])]
            nodes.append(helper.make_node("ReduceMean", ["numbers", "axes"], ["logits"], keepdims=0))
        else:
            nodes.append(helper.make_node("AveragePool", ["numbers"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]))
        shape = ["batch", 3] if kind == "classification" else ["batch", 3, "h", "w"]
        outputs.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, kind, inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def config_of_file(kind: str) -> dict[str, Any]:
    """What the description of such a file says of the config."""
    task, _, postprocess, pipeline = KINDS[kind]
    return {
        "task": task,
        "postprocess": {"type": postprocess},
        "augment": {"train": {}, "test": pipeline},
        "loader": {"batch_size": 1, "size_divisor": 4, "test_time": None},
        **{name: {} for name in ("model", "criterion", "data", "optimizer", "schedule", "training")},
        "metrics": [],
    }


def file_model(kind: str, *, facts: ExportFacts | None = None) -> Any:
    """A whole file: graph and description."""
    model = graph_model(kind)
    config = json.dumps(config_of_file(kind))
    ids = {"category_ids": [1, 2, 3] if KINDS[kind][0] == "detection" else []}
    describe(model, whole_checkpoint() | {"config": config, "class_names": CLASS_NAMES} | ids, facts or facts_of(kind))
    return model


def description(model: Any) -> dict[str, Any]:
    """The description of a file, its config as a dict."""
    about = json.loads(model.metadata_props[0].value)
    return about | {"config": json.loads(about["config"])}


def described_as(model: Any, about: dict[str, Any]) -> Any:
    """The model with another description, in place; a config that is no dict stands there as it is."""
    config = about.get("config")
    text = json.dumps(config) if isinstance(config, dict) else config
    model.metadata_props[0].value = json.dumps(about | ({"config": text} if "config" in about else {}))
    return model


def write_file(
    path: Path,
    kind: str,
    *,
    facts: ExportFacts | None = None,
    change: Callable[[Any, dict[str, Any]], object] = lambda model, about: None,
) -> Path:
    """Write such a file.

    Args:
        path: ends in .onnx.
        kind: a key of KINDS.
        facts: in place of `facts_of(kind)`.
        change: called with the model and its description, to be changed in place.
    """
    model = file_model(kind, facts=facts)
    about = description(model)
    change(model, about)
    path.write_bytes(described_as(model, about).SerializeToString())
    return path
