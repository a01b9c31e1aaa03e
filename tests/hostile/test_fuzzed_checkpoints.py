"""Checkpoints and weights with anything changed are restored or refused in this project's words, and run nothing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import ATTEMPTS, ByteEdits, TreeEdits, changed_bytes, changed_tree, fuzz, read_or_refused
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones.contract import BackboneError
from backbones.weights import load_weights
from transfer.assemble import build_run
from transfer.engine.checkpoint import load_checkpoint, save_checkpoint
from transfer.engine.distributed import World
from transfer.restoring import restore

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, _loaded_tiny_config: dict[str, Any]) -> Path:
    """What a run of the tiny detector would save before its first step, with a moving average."""
    config = json.loads(json.dumps(_loaded_tiny_config))
    config["training"]["ema"] = {"decay": 0.9}
    run, _, _ = build_run(config, World(0, 1, CPU))
    path = tmp_path_factory.mktemp("checkpoints") / "whole.pth"
    save_checkpoint(path, run.state())
    assert restore(load_checkpoint(path), CPU).class_names  # it is sound as it is
    return path


def restored(path: Path) -> None:
    """As evaluate.py and predict.py do."""
    checkpoint = load_checkpoint(path)
    assert all(isinstance(name, str) for name in restore(checkpoint, CPU).class_names)


@given(edits=ByteEdits)
@fuzz(15)
def test_bytes_of_a_checkpoint(checkpoint: Path, edits: list[Any]) -> None:
    path = checkpoint.with_name("bytes.pth")
    path.write_bytes(changed_bytes(checkpoint.read_bytes(), edits))
    read_or_refused(lambda: load_checkpoint(path))


@given(edits=TreeEdits)
@fuzz(20)
def test_anything_in_its_config(checkpoint: Path, edits: list[Any]) -> None:
    content = load_checkpoint(checkpoint)
    config = changed_tree(json.loads(content["config"]), edits, leave=("data", "loader"))
    path = checkpoint.with_name("config.pth")
    torch.save({**content, "config": json.dumps(config)}, path)
    read_or_refused(lambda: restored(path))


@given(edits=ByteEdits)
@fuzz(20)
def test_bytes_of_its_pickle_with_check_sums_that_agree(checkpoint: Path, edits: list[Any]) -> None:
    path = checkpoint.with_name("pickle.pth")
    _zip_again(checkpoint, path, edits)
    read_or_refused(lambda: load_checkpoint(path))


def _zip_again(source: Path, target: Path, edits: list[Any]) -> None:
    """A copy whose pickle is changed; half of the changes fall into its first two thousand bytes."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as changed:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith("data.pkl"):
                size = 2000 if edits[0][1] % 2 else len(data)
                data = changed_bytes(data[:size], edits) + data[size:]
            changed.writestr(name, data)


TENSORS = (
    torch.zeros(3),
    torch.tensor(float("nan")),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(1).expand(10**12),
    torch.zeros(3).to_sparse(),
    torch.empty(4, device="meta"),
    torch.zeros(0, 4, dtype=torch.bool),
)


@given(edits=TreeEdits, tensor=st.none() | st.sampled_from(TENSORS), place=st.integers(0, 1000))
@fuzz(16)
def test_fields_of_a_checkpoint(checkpoint: Path, edits: list[Any], tensor: Tensor | None, place: int) -> None:
    content = torch.load(checkpoint, weights_only=True)
    large = {name: content.pop(name) for name in ("model", "optimizer", "ema")}
    content = changed_tree({**content, **dict.fromkeys(large, 0)}, edits)
    content.update({name: large[name] for name in large if content.get(name) == 0})
    if tensor is not None and isinstance(content.get("model"), dict):
        name = sorted(content["model"])[place % len(content["model"])]
        content["model"] = {**content["model"], name: tensor}
    path = checkpoint.with_name("fields.pth")
    torch.save(content, path)
    read_or_refused(lambda: restored(path))


@given(edits=TreeEdits, which=st.sampled_from(("optimizer", "ema", "model")))
@fuzz(8)
def test_states_in_a_checkpoint(checkpoint: Path, edits: list[Any], which: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content[which] = changed_tree({**content[which]}, edits)
    path = checkpoint.with_name("states.pth")
    torch.save(content, path)
    read_or_refused(lambda: restored(path))


NAMES = (
    *("os.system", "builtins.exec", "exec", "subprocess.Popen", "torch.load", "pathlib.Path.touch", "pickle.loads"),
    *("transfer.build.importlib.import_module", "transfer.data.image.open", "transfer.data.sample.make_sample"),
    *(
        "transfer.metrics.detections.write_coco_detections",
        "transfer.heads.faster_rcnn.torch.load",
        "transfer.data..os",
    ),
    *("transfer.data.os.system", "backbones.weights.torch.hub.load", "transfer.cli.run", "__import__('os').system"),
    *("transfer.heads.faster_rcnn.__builtins__", "transfer.heads.faster_rcnn._private", "backbones", ".", "", "a b.c"),
    *("transfer.data.voc.VOCDataset", "transfer.heads.fcn.fcn", "transfer.optim.optimizers.SGD"),
)
"""Classes that a config may not name, or not there."""


@given(name=st.sampled_from(NAMES), place=st.integers(0, 50))
@fuzz(12)
def test_names_in_the_config_of_a_checkpoint(checkpoint: Path, name: str, place: int) -> None:
    content = torch.load(checkpoint, weights_only=True)
    config = json.loads(content["config"])
    nodes = [node for part in ("model", "criterion", "postprocess") for node in _typed(config[part])]
    nodes[place % len(nodes)]["type"] = name
    path = checkpoint.with_name("names.pth")
    torch.save({**content, "config": json.dumps(config)}, path)
    before = sorted(checkpoint.parent.iterdir())
    assert read_or_refused(lambda: restored(path)) is None
    assert sorted(checkpoint.parent.iterdir()) == before


def _typed(node: Any) -> list[dict[str, Any]]:
    """All dicts that name a class."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node] if isinstance(node, dict) and "type" in node else []
    return [*own, *(each for item in inner for each in _typed(item))]


@given(edits=ByteEdits, how=st.sampled_from(("bytes", "pickle", "legacy", "safetensors", "fields")), values=TreeEdits)
@fuzz(24)
def test_weights_of_a_backbone(checkpoint: Path, edits: list[Any], how: str, values: list[Any]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = network.state_dict()
    content = {"state_dict": state, "backbone": {"mean": [0.5] * 3, "std": [0.5] * 3, "name": "tiny"}}
    source = checkpoint.with_name("source.pth")
    path = checkpoint.with_name("weights.safetensors" if how == "safetensors" else "weights.pth")
    if how == "safetensors":
        from safetensors.torch import save

        path.write_bytes(changed_bytes(save(state), edits))
    elif how == "fields":
        torch.save(changed_tree(content, values), path)
    else:
        torch.save(content, source, _use_new_zipfile_serialization=how != "legacy")
        if how == "pickle":
            _zip_again(source, path, edits)
        else:
            path.write_bytes(changed_bytes(source.read_bytes(), edits))
    try:
        report = load_weights(network, path)
    except BackboneError:
        ATTEMPTS.append(False)
        return
    ATTEMPTS.append(True)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values() if value.is_floating_point())
    assert report.mean is None or len(report.mean) == 3
