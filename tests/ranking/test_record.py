"""A ranking's record comes back from its file as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from transfer.ranking.record import PARTS, RankingRecord, RunRecord, TaskRecord, read_record, to_text
from transfer.types import UserError


def record(figure: float | None = 61.25) -> RankingRecord:
    empty: dict[str, Any] = {name: [] for name in PARTS}
    task = TaskRecord("boxes", "detection", "configs/a.py", "mAP50", "VOC", 400, 240, ["training.epochs=4"])
    run = RunRecord(
        "lite0", "boxes", 0, figure, {"cat": {"ap": 50.0}}, 0.01, 1.5, "done", None, "runs/a", "tools/train_det.py"
    )
    fields = {**empty, "tasks": [task], "runs": [run]}
    return RankingRecord(
        "sample", "tools/rank_backbones.py a.py", "2026-01-01T00:00:00Z", {"torch": "2"}, [0], **fields
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    path.write_text(to_text(record()), encoding="utf-8")
    assert read_record(path) == record()


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    text = to_text(record(math.nan))
    assert json.loads(text, parse_constant=pytest.fail)["runs"][0]["figure"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tasks": 3}', '{"tasks": [{"name": "a"}]}'])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.json.* is not the ranking\.json"):
        read_record(tmp_path / "other.json")
    with pytest.raises(UserError, match="No such file"):
        read_record(tmp_path / "missing.json")
