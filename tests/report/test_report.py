"""Curves and pictures from small inputs."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from transfer.data.voc import VOCDataset
from transfer.report import curves
from transfer.report.curves import draw_curves, read_rows
from transfer.report.pages import class_colour, draw_boxes, page_of_predictions, write_picture
from transfer.types import Prediction

GREY = np.full((120, 160, 3), 100, dtype=np.uint8)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def step(iteration: int, **losses: float) -> dict[str, Any]:
    return {"iteration": iteration, "epoch": iteration / 4, "lr": 0.01, "total": sum(losses.values()), **losses}


def evaluation(iteration: int, **values: float | None) -> dict[str, Any]:
    return {"iteration": iteration, "epoch": iteration / 4, "evaluation": [{"protocol": "area", "values": values}]}


def test_a_last_row_cut_short_is_left_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "metrics.jsonl", [step(1, loss_a=1.0), step(2, loss_a=2.0)])
    path.write_text(path.read_text(encoding="utf-8") + '{"iteration": 3, "epo', encoding="utf-8")
    assert [row["iteration"] for row in read_rows(path)] == [1, 2]


def test_curves_show_losses_rate_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn: list[Any] = []
    monkeypatch.setattr(plt, "close", drawn.append)
    rows = [step(i, loss_a=1.0 / i, loss_b=2.0) for i in range(1, 9)]
    rows += [evaluation(4, mAP=0.25, AP=None), evaluation(8, mAP=0.5, AP=0.125)]
    draw_curves(write_rows(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    monkeypatch.undo()
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (360, 1350, 3)  # 15 x 4 inches at 90 dots
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == ["curves.png"]
    losses, rate, figures = drawn[0].axes
    lines = {line.get_label(): line.get_xydata() for axes in (losses, figures) for line in axes.get_lines()}
    np.testing.assert_allclose(lines["a"], [(i / 4, 1 / i) for i in range(1, 9)])
    np.testing.assert_allclose(lines["total"], [(i / 4, 1 / i + 2) for i in range(1, 9)])
    np.testing.assert_allclose(lines["mAP"], [(1, 0.25), (2, 0.5)])
    np.testing.assert_allclose(lines["AP"], [(2, 0.125)])  # an undefined figure is no point
    np.testing.assert_allclose(rate.get_lines()[0].get_ydata(), 0.01)
    plt.close(drawn[0])


def test_curves_of_a_run_without_steps_are_not_drawn(tmp_path: Path) -> None:
    draw_curves(write_rows(tmp_path / "metrics.jsonl", [evaluation(4, mAP=0.5)]), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_the_running_mean_trails_by_a_fiftieth_of_the_run() -> None:
    values = np.arange(100.0)  # window 2
    np.testing.assert_allclose(curves._smooth(values), [0, *(np.arange(1, 100) - 0.5)])
    np.testing.assert_allclose(curves._smooth(np.array([3.0, 1.0])), [3, 1])


def test_class_colours_are_distinct_and_neighbours_far_apart() -> None:
    colours = [class_colour(label) for label in range(80)]
    assert len(set(colours)) == 80
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    hues = [colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0] for colour in colours]
    turns = [min(abs(a - b), 1 - abs(a - b)) for a, b in zip(hues, hues[1:])]
    assert min(turns) > 0.25


def test_boxes_are_drawn_on_a_copy_with_exclusive_edges() -> None:
    image = GREY.copy()
    boxes, labels = np.array([[40.0, 50.0, 100.0, 90.0]]), np.array([2])
    drawn = draw_boxes(image, boxes, labels, ["a", "b", "c"], scores=np.array([0.5]))
    assert (image == GREY).all()
    assert drawn.shape == image.shape
    colour = np.array(class_colour(2), dtype=np.uint8)
    for y, x in ((50, 99), (89, 40), (89, 99), (70, 40), (70, 99), (89, 70)):
        assert (drawn[y, x] == colour).all(), (y, x)
    for y, x in ((90, 70), (70, 100), (70, 39), (70, 70)):
        assert (drawn[y, x] == 100).all(), (y, x)
    label = drawn[36:50, 40:70]  # name and score above the box, on its colour
    assert (label == colour).all(axis=-1).any()
    assert (label < 60).all(axis=-1).any()


def test_truth_is_a_white_hairline() -> None:
    drawn = draw_boxes(GREY, np.array([[40.0, 50.0, 100.0, 90.0]]), np.array([0]), ["a"], thin=True)
    changed = (drawn != GREY).any(axis=-1)
    assert (drawn[changed] == 255).all()
    assert changed.sum() == 2 * (60 + 40) - 4


def test_labels_stay_visible_at_the_top_edge_and_any_name_is_drawn() -> None:
    drawn = draw_boxes(GREY, np.array([[10.0, 0.0, 60.0, 40.0]]), np.array([0]), ["Größe"], scores=np.array([0.9]))
    inside = (drawn[2:12, 12:50] == np.array(class_colour(0))).all(axis=-1)
    assert inside.mean() > 0.3  # below the edge where there is no room above
    empty = draw_boxes(GREY, np.zeros((0, 4)), np.zeros(0, dtype=np.int64), ["a"])
    assert (empty == GREY).all()


def test_pictures_are_written_whole_in_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = 255
    path = tmp_path / "Bild ö.png"
    write_picture(path, red)
    from PIL import Image

    assert (np.array(Image.open(path)) == red).all()

    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="No space"):
        write_picture(path, GREY)
    assert [p.name for p in tmp_path.iterdir()] == ["Bild ö.png"]
    assert (np.array(Image.open(path)) == red).all()


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (4, 1, 4), (6, 2, 4), (100, 3, 4)])
def test_a_page_is_a_grid_of_tiles(devkit: Path, tmp_path: Path, count: int, rows: int, columns: int) -> None:
    dataset = VOCDataset(devkit, "trainval")  # 12 images
    prediction = Prediction(torch.tensor([[5.0, 5.0, 30.0, 30.0]]), torch.tensor([0.9]), torch.tensor([1]))
    path = tmp_path / "page.png"
    page_of_predictions(dataset, [prediction] * 12, path, count=count, side=100)
    page = cv2.imread(str(path))
    assert page.shape == (100 * rows, 100 * columns, 3)
    filled = [
        (page[100 * r : 100 * r + 100, 100 * c : 100 * c + 100] != 32).any()
        for r in range(rows)
        for c in range(columns)
    ]
    assert sum(filled) == min(count, 12)


def test_a_page_shows_strong_predictions_at_their_place(devkit: Path, tmp_path: Path) -> None:
    dataset = VOCDataset(devkit, "train")
    height, width = dataset.record(0).size
    assert (height, width) == (96, 64)
    boxes = torch.tensor([[8.0, 20.0, 56.0, 80.0], [0.0, 0.0, 64.0, 10.0]])
    nothing = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    weak = Prediction(boxes, torch.tensor([0.9, 0.1]), torch.tensor([1, 2]))
    pages = []
    for first in (nothing, weak):
        path = tmp_path / f"{len(pages)}.png"
        page_of_predictions(dataset, [first, *[nothing] * 7], path, count=1, side=198)  # twice the size, margin 3
        pages.append(cv2.imread(str(path))[:, :, ::-1].astype(int))
    changed = (pages[0] != pages[1]).any(axis=-1)
    ys, xs = np.nonzero(changed)
    assert xs.min() == 3 + 2 * 8
    assert ys.max() == 3 + 2 * 80 - 1
    assert ys.min() > 3 + 2 * 10  # the weak one is not there
    assert tuple(pages[1][3 + 159, 3 + 60]) == class_colour(1)
