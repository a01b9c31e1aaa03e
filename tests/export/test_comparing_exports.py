"""What an exported file is compared on before it gets its name, and what opens a checkpoint or such a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_checkpoints import write_checkpoint
from tiny_masks import write_masks
from torch import nn

from backbones.contract import BackboneError
from transfer.engine.checkpoint import load_checkpoint
from transfer.export import command
from transfer.export import fused as fused_module
from transfer.export.agreement import Agreement
from transfer.export.command import _compare, _probe, _sizes, export_checkpoint
from transfer.export.fused import fused
from transfer.export.onnx_file import read
from transfer.export.session import ExportedModel
from transfer.export.trained import open_trained
from transfer.restoring import Restored, restore
from transfer.types import UserError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masks(tmp_path_factory.mktemp("pictures"), train=2, test=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    checkpoint = write_checkpoint(tmp_path_factory.mktemp("exported") / "a.pth", "classification", pictures)
    return export_checkpoint(checkpoint, check_on=[str(pictures / "test")])


@pytest.fixture
def restored(file: Path) -> Restored:
    return restore(load_checkpoint(file.with_suffix(".pth")), torch.device("cpu"))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (lambda images: len(images) == 1 and images.shape[2] == 64, "single images"),
        (lambda images: len(images) > 1 and images.shape[2] == 64, "a batch of two"),
        (lambda images: images.shape[2] != 64, "images of 32x32 px"),
    ],
)
def test_a_difference_anywhere_is_found(
    file: Path, restored: Restored, pictures: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, where: str
) -> None:
    probe, facts = _probe(restored, [str(pictures / "test")]), read(file)[1]
    _compare(restored, file, probe, facts)
    forward = ExportedModel.forward

    def off(model: ExportedModel, images: torch.Tensor, *arguments: Any) -> Any:
        output = forward(model, images, *arguments)
        if wrong(images):
            output.logits *= 1.01
        return output

    monkeypatch.setattr(ExportedModel, "forward", off)
    with pytest.raises(UserError, match=f"than the checkpoint on {where}: logits differ by 0.01"):
        _compare(restored, file, probe, facts)


def test_several_images_are_compared(file: Path, restored: Restored, pictures: Path, tmp_path: Path) -> None:
    assert len(_probe(restored, [str(pictures / "test")]).samples) == 4
    assert len(_probe(restored, []).samples) == 4  # scenes of the sample, not its masks
    (tmp_path / "SegmentationClass").mkdir()
    Image.new("RGB", (70, 80)).save(tmp_path / "SegmentationClass" / "a.png")
    assert len(_probe(restored, [str(tmp_path / "SegmentationClass")]).samples) == 1


def test_where_nothing_was_found_nothing_was_compared_and_that_is_a_warning(
    file: Path, restored: Restored, pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    probe, facts = _probe(restored, [str(pictures / "test")]), read(file)[1]
    caplog.set_level(logging.WARNING, "trickstack")
    _compare(restored, file, probe, facts)
    assert not caplog.records
    monkeypatch.setattr(command, "check", lambda *arguments: Agreement())
    _compare(restored, file, probe, facts)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nothing was compared: give images with objects (--check)" in caplog.text


def test_a_classifier_takes_the_size_of_its_test_pipeline(restored: Restored, pictures: Path) -> None:
    probe = _probe(restored, [str(pictures / "test")])
    assert _sizes(restored, probe, (64, 64), 32) == [(64, 64)]
    assert _sizes(restored, probe, None, 32) == [None, (64, 64)]
    assert _sizes(restored, probe, None, 48) == [(64, 64)]  # it is not padded
    with pytest.raises(UserError, match="--size 96 96: the test pipeline makes images of 64 64"):
        _sizes(restored, probe, (96, 96), 32)


def test_an_exported_file_runs_on_the_cpu_and_says_so(file: Path) -> None:
    with pytest.raises(UserError, match="--device cuda: an exported file runs on the CPU here"):
        open_trained(file, "cuda")
    assert open_trained(file, "auto")[2] == torch.device("cpu")


def test_what_cannot_be_fused_predicts_unfused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trickstack")
    nothing = nn.ReLU()
    assert fused(nothing) is nothing
    assert "batch norms are not folded" in caplog.text

    def fails(model: nn.Module) -> nn.Module:
        raise BackboneError("the model gives other values afterwards")

    monkeypatch.setattr(fused_module, "fuse_conv_bn", fails)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    assert fused(network) is network
    assert "the model gives other values afterwards" in caplog.text
