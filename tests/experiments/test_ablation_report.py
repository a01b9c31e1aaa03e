"""The table of an ablation: figures, gains and verdicts from rows of the ledger, worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transfer.experiments.description import Description
from transfer.experiments.drawing import draw_gains
from transfer.experiments.ladder import Ablation, Mode, Plan, Rung, plan
from transfer.experiments.ledger import Row
from transfer.experiments.report import Report, summarize, to_markdown, to_plain, verdict
from transfer.experiments.statistics import paired_gain

RUNGS = (Rung("a", ("x=1",), 0.5), Rung("b", ("y=1",)))


def row(figure: float | None, *, state: str = "done", **changed: Any) -> Row:
    result = {
        "measured": "last.pth, test set",
        "metrics": [{"main": "mAP50", "protocol": "VOC", "values": {"AP": 0.9, "mAP50": figure}}],
        "directory": "arm-seed0/001",
    }
    values: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    values.update(
        key="k",
        description=Description("arm", {}, 0),
        state=state,
        seconds=90.0,
        failures=0,
        created=0.0,
        result=result if state == "done" else None,
        facts={"code": "c1", "torch": "2.0", "host": "h"} if state == "done" else None,
    )
    return Row(**{**values, **changed})


def rows(**figures: list[float | None]) -> dict[tuple[str, int], Row]:
    names = {"baseline": "baseline", "a": "+ a", "b": "+ b"}
    return {(names[arm], seed): row(value) for arm, values in figures.items() for seed, value in enumerate(values)}


def planned(mode: Mode = "ladder", *rungs: Rung) -> Plan:
    return plan(Ablation(None, (), None, rungs or RUNGS), mode, 0)


def report(found: dict[tuple[str, int], Row], seeds: int = 3, *, source: str | None = None) -> Report:
    return summarize("title", {"command": "x"}, planned(), found, range(seeds), source=source, is_ladder=True)


# a - baseline: 1, 1.1, 0.9 points, sd 0.1; b - a: 1, -1, 0, sd 1
FIGURES = rows(baseline=[0.50, 0.52, 0.51], a=[0.51, 0.531, 0.519], b=[0.52, 0.521, 0.519])


def test_figures_gains_and_verdicts() -> None:
    found = report(FIGURES)
    baseline, a, _ = found.arms
    assert baseline.figures == pytest.approx({0: 50.0, 1: 52.0, 2: 51.0})
    assert baseline.mean == pytest.approx(51.0)
    assert baseline.interval == pytest.approx((51 - 2.484, 51 + 2.484), abs=0.001)
    assert (a.minutes, a.missing) == (1.5, {})
    of_a, of_b = found.gains
    assert of_a.gain is not None
    assert of_a.gain.differences == pytest.approx((1.0, 1.1, 0.9))
    assert (of_a.gain.low, of_a.gain.high) == pytest.approx((1 - 0.2484, 1 + 0.2484), abs=0.0001)
    assert of_a.p_holm == pytest.approx(2 * of_a.gain.p)  # the smaller of two
    assert of_a.verdict == "gain"
    assert of_a.smallest == pytest.approx(0.326, abs=0.001)  # 3.26 sd at three seeds
    assert of_b.gain is not None
    assert of_b.gain.mean == pytest.approx(0.0)
    assert (of_b.verdict, of_b.p_holm) == ("no evidence", pytest.approx(1.0))
    assert found.total is not None
    assert found.total.differences == pytest.approx((2.0, 0.1, 0.9))
    assert found.notes == []


def test_the_table_says_it_all() -> None:
    text = to_markdown(report(FIGURES, source="a paper"))
    lines = {line.split(" |")[0]: line for line in text.splitlines() if line.startswith("|")}
    assert "| 50.00, 52.00, 51.00 | 51.00 | 48.52 to 53.48 |" in lines["| baseline"]
    assert "| +1.00 over baseline | +0.75 to +1.25 | 0.007 | gain | 0.33 | +0.50 | 1.5 |" in lines["| + a"]
    assert "| +0.00 over + a | -2.48 to +2.48 | 1.000 | no evidence | 3.26 |  | 1.5 |" in lines["| + b"]
    assert len({line.count("|") for line in lines.values()}) == 1  # one table
    assert "Smallest gain that 3 seeds could have shown: 2.32 points" in text  # sd sqrt((0.01 + 1) / 2)
    assert "a (+0.50) 18" in text
    assert "+ b over baseline: +1.00" in text
    assert "Published: a paper." in text


def test_one_seed_shows_nothing() -> None:
    text = to_markdown(report(FIGURES, 1))
    assert text.count("no evidence (one seed)") == 2
    assert "nothing is shown" in text


def test_verdicts() -> None:
    clear, loss = paired_gain([1.0, 1.1, 0.9], [0.0] * 3), paired_gain([0.0] * 3, [1.0, 1.1, 0.9])
    assert verdict(clear, 0.01) == "gain"
    assert verdict(loss, 0.01) == "loss"
    assert verdict(clear, 0.06) == "no evidence after Holm"
    assert verdict(paired_gain([1.0, -1.0], [0.0, 0.0]), 1.0) == "no evidence"
    assert verdict(None, math.nan) == "no runs"


def test_runs_without_a_figure_are_named_and_the_others_paired() -> None:
    found = dict(FIGURES)
    found["+ a", 1] = row(None, state="failed", error="line one\nRuntimeError: burnt")
    found["+ b", 0] = row(None, state="running")
    found["+ b", 2] = row(None)  # a metric without truth
    del found["baseline", 2]
    summary = report(found)
    of_a, of_b = summary.gains
    assert of_a.gain is not None
    assert of_a.gain.differences == pytest.approx((1.0,))  # seed 0 alone is in both
    assert of_b.gain is None
    text = to_markdown(summary)
    assert "- + a, seed 1: failed: RuntimeError: burnt (runs/arm-seed0-" in text
    assert "- + b, seed 0: being made" in text
    assert "- + b, seed 2: mAP50 is undefined" in text
    assert "- baseline, seed 2: not made yet" in text
    assert "| + b | -, 52.10, - |" in text


def test_nothing_made_yet() -> None:
    text = to_markdown(report({}))
    assert text.count("no runs") == 2
    assert text.count("not made yet") == 9


def test_arms_that_were_made_or_measured_differently_are_pointed_out() -> None:
    found = dict(FIGURES)
    found["+ a", 1] = row(0.53, facts={"code": "c2", "torch": "2.0", "host": "h"})
    assert report(found).notes == ["the runs differ in code: c1, c2"]
    assert "torch 2.0" in report(found).about["made on"]
    other = dict(found["+ b", 1].result or {}, measured="best.pth (chosen on validation data), test set")
    found["+ b", 1] = row(0.5, result=other)
    assert "cannot be compared" in report(found).notes[0]


def test_a_rung_that_is_left_out_is_shown_in_the_row_of_the_arm_without_it() -> None:
    found = {("all", s): row(0.6 + 0.01 * s) for s in range(3)}
    found |= {(f"all but {name}", s): row(0.5 + 0.0101 * s) for name in "ab" for s in range(3)}
    summary = summarize("t", {}, planned("all-but-one"), found, range(3))
    text = to_markdown(summary)
    assert "| all but a | 50.00, 51.01, 52.02 |" in text
    assert "| +9.99 of a |" in text
    assert summary.total is None


def test_what_is_not_applicable_stays_in_the_table() -> None:
    with_gpus = planned("ladder", RUNGS[0], Rung("SyncBN", ("x=2",), 0.56, gpus=2))
    text = to_markdown(summarize("t", {}, with_gpus, FIGURES, range(3)))
    (line,) = [line for line in text.splitlines() if "SyncBN" in line]
    assert line.startswith("| SyncBN | not applicable: needs 2 GPUs, there are 0 |")
    assert line.count("|") == text.splitlines()[text.splitlines().index(line) - 1].count("|")


def test_json_has_no_nan() -> None:
    found = json.loads(json.dumps(to_plain(report(FIGURES)), allow_nan=False))
    assert found["gains"][0]["gain"]["mean"] == pytest.approx(1.0)
    assert found["gains"][0]["comparison"]["published"] == 0.5
    assert found["gains"][0]["seeds_for_published"] == 3  # sd 0.1: five times that is found by three
    assert found["gains"][1]["seeds_for_published"] is None
    assert found["arms"][0]["figures"] == {"0": 50.0, "1": 52.0, "2": 51.0}
    json.dumps(to_plain(report(FIGURES, 1)), allow_nan=False)


def test_drawing(tmp_path: Path) -> None:
    assert draw_gains(report(FIGURES), tmp_path / "gains.png")
    with Image.open(tmp_path / "gains.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(31, 119, 180), (127, 127, 127), (255, 127, 14)} <= colours  # a gain, no evidence, published
    assert not draw_gains(report({}), tmp_path / "none.png")
    assert [path.name for path in tmp_path.iterdir()] == ["gains.png"]
