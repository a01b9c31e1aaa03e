"""What forecasts, costs and pictures have in common: they are runs of the ledger, and leave what a run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from transfer.data.subset import ClassificationSubset, SegmentationSubset, SubsetDataset
from transfer.engine.hooks import json_text
from transfer.engine.run_directory import new_run_directory, write_text_atomically
from transfer.types import AnyDataset, ClassificationDataset, SegmentationDataset


def leave(work_dir: Path, name: str, result: dict[str, Any], folder: Path | None = None) -> bool:
    """Write results.json into a numbered directory; returns True, as a run does that came to its end.

    Args:
        work_dir: holds the runs' directories.
        name: of this run's.
        result: plain types.
        folder: where there are files already.
    """
    folder = folder or new_run_directory(work_dir / name)
    write_text_atomically(folder / "results.json", json_text(result))
    return True


def part_of(dataset: AnyDataset, indices: np.ndarray) -> Any:
    """Some images of a data set of any task."""
    chosen = [int(index) for index in indices]
    if isinstance(dataset, SegmentationDataset):
        return SegmentationSubset(dataset, indices=chosen)
    if isinstance(dataset, ClassificationDataset):
        return ClassificationSubset(dataset, indices=chosen)
    return SubsetDataset(dataset, indices=chosen)
