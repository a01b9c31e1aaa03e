"""Checkpoints are whole or not there, are checked before they are believed, and run nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from whole_checkpoint import whole_checkpoint

from transfer.engine import checkpoint as module
from transfer.engine.checkpoint import library_versions, load_checkpoint, save_checkpoint
from transfer.types import UserError


def content(value: float = 1.0) -> dict[str, Any]:
    return {**whole_checkpoint(), "model": {"weight": torch.full((300, 7), value)}, "names": ["a", "b"]}


class WritesAFile:
    """Runs code when unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content(2.5))
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"].pop("weight"), torch.full((300, 7), 2.5))
    assert loaded == {**whole_checkpoint(), "model": {}, "names": ["a", "b"]}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_a_flipped_byte_is_found_and_its_member_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content(2.5))
    data = bytearray(path.read_bytes())
    place = data.find(torch.full((4,), 2.5).numpy().tobytes()) + 5  # inside the tensor's own bytes
    data[place] ^= 0x10
    path.write_bytes(bytes(data))
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["weight"], content(2.5)["model"]["weight"])
    with pytest.raises(UserError, match=r"last\.pth.*damaged.*member '.*data/0'"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"last\.pth.*(cut short|damaged)"):
        load_checkpoint(path)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pth", content())
    with pytest.raises(UserError, match=r"no checkpoint .*lats\.pth'.*did you mean .*last\.pth'"):
        load_checkpoint(tmp_path / "lats.pth")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        load_checkpoint(tmp_path / "nowhere" / "last.pth")
    with pytest.raises(UserError, match=r"no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "was_run", tmp_path / "last.pth"
    torch.save({**content(), "extra": WritesAFile(mark)}, path)  # torch's own zip, all in order but for one object
    with pytest.raises(UserError, match=r"last\.pth.*more than tensors and plain types.*If you trust it"):
        load_checkpoint(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(WritesAFile(mark)))
    with pytest.raises(UserError, match=r"plain\.pth"):
        load_checkpoint(plain)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert mark.exists()


@pytest.mark.parametrize("foreign", [{"state_dict": {}}, {"format": "trickstack/99"}, [1, 2], torch.zeros(3)])
def test_another_kind_of_file_is_refused_by_name(tmp_path: Path, foreign: Any) -> None:
    path = tmp_path / "resnet.pth"
    torch.save(foreign, path)
    with pytest.raises(UserError, match=r"resnet\.pth' is not a checkpoint of this project .*model\.backbone\.weights"):
        load_checkpoint(path)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64")])
def test_a_failed_write_keeps_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content(1.0))
    before = path.read_bytes()

    def half(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise failure

    monkeypatch.setattr(module.torch, "save", half)
    with pytest.raises(UserError, match=r"cannot write checkpoint .*last\.pth.*the one before is kept"):
        save_checkpoint(path, content(2.0))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_a_write_that_is_killed_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, content(1.0))

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, content(2.0))
    assert load_checkpoint(path)["model"]["weight"][0, 0] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_versions_name_what_computes() -> None:
    versions = library_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "timm", "torchvision", "albumentations", "numpy", "trickstack"} <= set(versions)
