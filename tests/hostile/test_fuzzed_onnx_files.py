"""Exported files with anything changed are read to a prediction or refused in this project's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fuzzing import ByteEdits, TreeEdits, changed_bytes, changed_tree, fuzz, read_or_refused
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_onnx import KINDS, described_as, description, file_model

from transfer.prediction import predict_paths
from transfer.types import RefusedCheckpoint

Kind = st.sampled_from(sorted(KINDS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one photograph; the files are written beside it."""
    path = tmp_path_factory.mktemp("onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "photograph.png")
    return path


def predicted(folder: Path, content: bytes) -> list[dict[str, Any]]:
    """What predict.py does with such a file."""
    (folder / "fuzzed.onnx").write_bytes(content)
    photographs = [str(folder / "photograph.png")]
    (folder / "out" / "predictions.json").unlink(missing_ok=True)
    return predict_paths(folder / "fuzzed.onnx", photographs, output=str(folder / "out"), device="cpu", score=0.0)


def predicted_or_refused(folder: Path, content: bytes) -> None:
    """Raises: whatever is not this project's own error; AssertionError for a prediction that is none."""
    result = read_or_refused(lambda: predicted(folder, content))
    if result is not None:
        assert [(each["width"], each["height"]) for each in result] == [(40, 24)]
        boxes = [row["box"] for row in result[0].get("detections", [])]
        assert np.isfinite(boxes).all()


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_sound_as_they_are(folder: Path, kind: str) -> None:
    (result,) = predicted(folder, file_model(kind).SerializeToString())
    found = result.get("detections") or result.get("areas") or result.get("classes")
    assert len(found) >= 2


@given(kind=Kind, edits=ByteEdits)
@fuzz(30)
def test_bytes_of_a_file(folder: Path, kind: str, edits: list[Any]) -> None:
    predicted_or_refused(folder, changed_bytes(file_model(kind).SerializeToString(), edits))


def test_an_output_whose_name_is_no_text(folder: Path) -> None:
    content = file_model("classification").SerializeToString()
    in_graph = content.replace(b"logits", b"logit\x80", 2)  # the third is in the description
    with pytest.raises(RefusedCheckpoint, match="where logits is due"):
        predicted(folder, in_graph)


@given(kind=Kind, edits=TreeEdits)
@fuzz(30)
def test_anything_in_its_description(folder: Path, kind: str, edits: list[Any]) -> None:
    model = file_model(kind)
    described_as(model, changed_tree(description(model), edits, leave=("config",)))
    predicted_or_refused(folder, model.SerializeToString())


@given(kind=Kind, edits=TreeEdits)
@fuzz(40)
def test_anything_in_its_config(folder: Path, kind: str, edits: list[Any]) -> None:
    model = file_model(kind)
    about = description(model)
    described_as(model, about | {"config": changed_tree(about["config"], edits)})
    predicted_or_refused(folder, model.SerializeToString())


@given(kind=Kind, edits=TreeEdits)
@fuzz(30)
def test_anything_in_its_graph(folder: Path, kind: str, edits: list[Any]) -> None:
    tree = changed_tree(MessageToDict(file_model(kind)), edits, leave=("metadataProps",))
    try:
        content = ParseDict(tree, onnx.ModelProto()).SerializeToString()
    except (ParseError, ValueError, OverflowError):  # no file can say that
        return
    predicted_or_refused(folder, content)


@pytest.mark.parametrize("graph", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_of_one_task_in_the_file_of_another(folder: Path, kind: str, graph: str) -> None:
    if graph == kind:
        return
    model = file_model(graph)
    model.metadata_props[0].value = file_model(kind).metadata_props[0].value
    with pytest.raises(RefusedCheckpoint):
        predicted(folder, model.SerializeToString())


@given(names=st.lists(st.text(min_size=1, max_size=5), max_size=6), kind=Kind)
@fuzz(10)
def test_other_class_names(folder: Path, kind: str, names: list[str]) -> None:
    model = file_model(kind)
    about = description(model) | {"class_names": names, "category_ids": []}
    model.metadata_props[0].value = json.dumps(about | {"config": json.dumps(about["config"])})
    predicted_or_refused(folder, model.SerializeToString())
