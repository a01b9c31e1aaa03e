"""The command: what it prints and leaves, its exit codes, and a user's mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_devkit import write_config

from transfer.preflight.page import draw_batches
from transfer.types import Batch, Target

Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def call(run_tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Calls the tool in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return lambda *arguments: run_tool("preflight", *arguments, "--device", "cpu")


def test_a_good_config(call: Tool, tiny_config_file: Path, tmp_path: Path) -> None:
    for number in ("001", "002"):
        code, _ = call(tiny_config_file)
        assert code == 0
        folder = tmp_path / "here" / "runs" / "preflight" / "tiny" / number
        assert sorted(path.name for path in folder.iterdir()) == ["preflight.jpg", "preflight.json"]
    found = json.loads((folder / "preflight.json").read_text(encoding="utf-8"))
    assert found["counts"]["error"] == 0
    assert found["measured"]["first_loss"]["loss_class"]["expected"] == pytest.approx(np.log(4))
    assert found["measured"]["labels"]["counts"] == {"blue": 5, "green": 5, "red": 5}
    page = cv2.imread(str(folder / "preflight.jpg"))
    assert page.shape == (3 * 442, 4 * 442, 3)  # 12 images of the batches


def test_errors_have_exit_code_1_and_stop_learning_by_heart(call: Tool, tiny_config_file: Path, tmp_path: Path) -> None:
    code, _ = call(tiny_config_file, "--output", "out", "--overfit", "--cfg-options", "optimizer.lr=5")
    assert code == 1
    found = json.loads(Path("out/preflight.json").read_text(encoding="utf-8"))
    assert [finding["code"] for finding in found["findings"] if finding["severity"] == "error"] == ["lr-too-high"]
    assert "overfit" not in found["measured"]


def test_learning_by_heart(call: Tool, tiny_config_file: Path) -> None:
    code, errors = call(tiny_config_file, "--output", "out", "--overfit", "1")
    assert code == 0
    assert "1 of 1 images learnt" in errors
    found = json.loads(Path("out/preflight.json").read_text(encoding="utf-8"))
    assert found["measured"]["overfit"]["not_learnt"] == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--overfit", "11"], ["--overfit 11", "1 to 10"]),
        (["--overfit", "0"], ["--overfit 0"]),
        (["--data", "my/dta"], ["my/dta", "no such folder"]),
        (["--cfg-options", "optimizer.ler=1"], ["optimizer.ler", "did you mean 'lr'"]),
        (["--cfg-options", "training.preflight=maybe"], ["preflight='maybe'", "True or False"]),
    ],
)
def test_mistakes(call: Tool, tiny_config_file: Path, arguments: list[str], parts: list[str]) -> None:
    code, errors = call(tiny_config_file, *arguments)
    assert code == 2
    assert not [part for part in parts if part not in errors]
    assert not list(Path().iterdir())


def test_an_output_folder_that_is_in_use(call: Tool, tiny_config_file: Path) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine", encoding="utf-8")
    code, errors = call(tiny_config_file, "--output", "out")
    assert code == 2
    assert "'out' is there and not empty" in errors


def test_a_config_that_is_not_there(call: Tool, tiny_config_file: Path) -> None:
    code, errors = call(tiny_config_file.with_name("tinny.py"))
    assert code == 2
    assert "did you mean" in errors


def test_data_of_the_config_s_own_kind(call: Tool, devkit: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "own.py", devkit, ("size=64, flip", "size=32, flip"))
    assert call(config, "--data", devkit, "--output", "out")[0] == 0
    found = json.loads(Path("out/preflight.json").read_text(encoding="utf-8"))
    assert found["measured"]["shapes"]["image"] == [32, 32]


# The page


def target(**values: object) -> Target:
    count = len(values.get("labels", ()))  # type: ignore[arg-type]
    given = {
        "boxes": torch.zeros(count, 4), "labels": torch.zeros(count, dtype=torch.int64), "size": (40, 60), "index": 0,
        "difficult": torch.zeros(count, dtype=torch.bool), "weights": torch.ones(count), "image_id": 0,
        "path": "Größe.jpg", "original_size": (40, 60), "scale": (1.0, 1.0), **values,
    }  # fmt: skip
    return Target(**given)  # type: ignore[arg-type]


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    image = torch.full((1, 3, 40, 60), 128, dtype=torch.uint8)
    boxes, labels = torch.tensor([[15.0, 10, 45, 30]]), torch.tensor([1])
    draw_batches([Batch(image, [target(boxes=boxes, labels=labels)])], ("a", "b"), tmp_path / "page.png")
    page = cv2.imread(str(tmp_path / "page.png")).astype(int)
    grey = np.abs(page[:, :, :3] - 128).max(axis=2) < 3
    factor = 414 / 60
    middle_row, left = int(3 + 20 * factor), int(3 + 15 * factor)
    assert not grey[middle_row, left - 2 : left + 3].all()  # the left edge
    assert grey[middle_row, left + 20]  # inside
    assert not grey[int(3 + 30 * factor) - 4 : int(3 + 30 * factor) + 2, left + 40].all()  # the lower edge


@pytest.mark.parametrize("labels", [[], [0], [7], [-1]])
def test_any_label_can_be_drawn(tmp_path: Path, labels: list[int]) -> None:
    boxes = torch.tensor([[5.0, 5, 20, 20]] * len(labels)).view(-1, 4)
    shown = target(boxes=boxes, labels=torch.tensor(labels, dtype=torch.int64), path="a.jpg mixed with b.jpg")
    image = torch.zeros((1, 3, 40, 60), dtype=torch.uint8)
    draw_batches([Batch(image, [shown])], ("a", "b"), tmp_path / "page.jpg")
    assert cv2.imread(str(tmp_path / "page.jpg")).shape == (304, 442, 3)  # 276 of the picture, 22 of text, 6 of margins


def test_masks_are_drawn_as_colours(tmp_path: Path) -> None:
    image = torch.full((1, 3, 40, 60), 128, dtype=torch.uint8)
    mask = torch.full((40, 60), 255, dtype=torch.uint8)
    mask[:, 30:] = 1
    draw_batches([Batch(image, [target(mask=mask)])], ("sky", "road"), tmp_path / "page.png")
    page = cv2.imread(str(tmp_path / "page.png")).astype(int)
    assert np.abs(page[100, 60] - 128).max() < 3  # ignored: as it is
    assert np.abs(page[100, 350] - 128).max() > 30
