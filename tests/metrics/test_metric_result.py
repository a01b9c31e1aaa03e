"""The printed table: aligned, in percent, with its protocol, and honest about what is undefined."""

from __future__ import annotations

import math

from transfer.metrics.result import MetricResult


def test_table() -> None:
    result = MetricResult(
        protocol="Some protocol at IoU 0.5",
        main="mAP50",
        values={"mAP50": 0.71254, "longer name": math.nan},
        per_class={
            "cat": {"ap": 1.0, "truths": 12},
            "diningtable": {"ap": 0.00009, "truths": 1234},
            "cow": {"ap": math.nan, "truths": 0},
        },
        meanings={"mAP50": "mean of two classes", "ap": "average precision"},
        count_columns=("truths",),
    )
    assert result.table().splitlines() == [
        "Some protocol at IoU 0.5",
        "",
        "mAP50 *      71.25  mean of two classes",
        "longer name      -",
        "",
        "class            ap  truths",
        "cat          100.00      12",
        "diningtable    0.01    1234",
        "cow               -       0",
        "ap: average precision",
        "",
        'Percent. * ranks runs. "-": undefined (a class without truth is left out of every mean).',
    ]


def test_table_without_classes() -> None:
    lines = MetricResult("Top-1", "accuracy", {"accuracy": 0.5}).table().splitlines()
    assert lines[2] == "accuracy *  50.00"
    assert len(lines) == 5
