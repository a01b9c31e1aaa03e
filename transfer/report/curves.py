"""Curves of a run, drawn from its metrics.jsonl."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # cut short by a kill
            continue
    return rows


def draw_curves(metrics_file: Path, picture: Path) -> None:
    """Losses, learning rate and evaluated figures against epochs, as one PNG.

    Args:
        metrics_file: a run's metrics.jsonl.
        picture: where to write; whole or not at all.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read_rows(metrics_file)
    steps = [row for row in rows if "total" in row]
    measured = [row for row in rows if "evaluation" in row]
    if not steps:
        return
    figure, (losses, rate, figures) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    epochs = np.array([row["epoch"] for row in steps])
    names = ["total", *[name for name in steps[-1] if name.startswith("loss_")]]
    for name in names:
        values = np.array([row.get(name, np.nan) for row in steps])
        losses.plot(epochs, _smooth(values), label=name.removeprefix("loss_"), linewidth=2 if name == "total" else 1)
    losses.set(title="training losses (running mean)", xlabel="epoch", yscale="log")
    losses.legend(fontsize=8)
    rate.plot(epochs, [row["lr"] for row in steps], color="tab:gray")
    rate.set(title="learning rate", xlabel="epoch")
    if measured:
        first = measured[0]["evaluation"][0]
        for name in list(first["values"])[:4]:
            points = [(row["epoch"], row["evaluation"][0]["values"].get(name)) for row in measured]
            xs, ys = zip(*[(x, y) for x, y in points if y is not None] or [(np.nan, np.nan)])
            figures.plot(xs, ys, marker="o", label=name)
        figures.set(title=first["protocol"].partition(";")[0], xlabel="epoch", ylim=(0, 1))
        figures.legend(fontsize=8)
    for axes in (losses, rate, figures):
        axes.grid(alpha=0.3)
    temporary = picture.with_name(f".{picture.stem}.part.png")
    figure.savefig(temporary, dpi=90)
    plt.close(figure)
    os.replace(temporary, picture)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A trailing mean over a fiftieth of the run."""
    window = max(1, len(values) // 50)
    totals = np.cumsum(np.concatenate([[0.0], values]))
    first = np.maximum(np.arange(1, len(values) + 1) - window, 0)
    last = np.arange(1, len(values) + 1)
    return (totals[last] - totals[first]) / (last - first)
