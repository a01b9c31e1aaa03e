"""Faults planted in a whole run: each is found under its code, and the same run without it passes."""

from __future__ import annotations

from typing import Any

import pytest
from planned_runs import checked, codes, message

from transfer.build import Node


@pytest.fixture
def config(tiny_config: Node) -> Node:
    return tiny_config


def test_a_run_without_fault_passes(config: Node) -> None:
    report = checked(config)
    assert codes(report) == []
    assert {outcome.name for outcome in report.outcomes} == {
        "labels", "boxes", "augmentation", "normalisation", "receptive_field", "shapes", "magnitudes", "first_loss",
        "anchors", "gradients", "learning_rate",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "code", "parts"),
    [
        ("LabelsFromOne", "labels-off-by-one", ["1 to 3, never 0", "0 to 2", "subtract 1"]),
        ("LabelsBeyond", "label-out-of-range", ["7 (5 times", "000001.jpg", "0 to 2"]),
        ("LabelsBeyondInSamples", "label-out-of-range", ["the decoded samples hold -1"]),
        ("WidthAndHeight", "box-format", ["of 15 boxes", "read as (left, top, width, height), 100% do"]),
        ("Shares", "boxes-normalised", ["15 boxes", "shares of the image", "96x96"]),
        ("DarkImages", "images-scaled", ["scaled to 0..1", "uint8"]),
    ],
)
def test_faults_of_data(config: Node, dataset: str, code: str, parts: list[str]) -> None:
    report = checked(config, data__train__type=f"planted.{dataset}")
    assert codes(report) == [code]
    assert not [part for part in parts if part not in message(report, code)]


def test_wrong_labels_and_boxes_are_not_put_through_the_network(config: Node) -> None:
    report = checked(config, data__train__type="planted.LabelsBeyond")
    assert "not-checked" in codes(report, "note")
    assert "first_loss" not in {outcome.name for outcome in report.outcomes}


@pytest.mark.parametrize(
    ("model", "code", "parts"),
    [
        ("head_not_connected", "gradient-missing", ["no loss depends on box_head (4 tensors)", "connect"]),
        ("unused_layer", "gradient-missing", ["no loss depends on box_head.extra (2 tensors)"]),
        ("silent_head", "gradient-zero", ["exactly zero in box_head (4 tensors)"]),
        ("wide_head", "loss-unexpected", ["loss_class is", "untrained head it is 1.386"]),  # ln 4
    ],
)
def test_faults_of_models(config: Node, model: str, code: str, parts: list[str]) -> None:
    report = checked(config, model__type=f"planted.{model}")
    assert codes(report) == [code]
    assert not [part for part in parts if part not in message(report, code)]


def test_a_detached_head_is_seen_on_its_losses_too(config: Node) -> None:
    report = checked(config, model__type="planted.head_not_connected")
    assert "loss_class does not depend on the maps" in message(report, "loss-without-gradient")


def test_anchors_that_fit_nothing(config: Node) -> None:
    report = checked(config, model__type="planted.tiny_anchors")
    assert "100% have none with 0.3 or more" in message(report, "anchors-do-not-fit")


@pytest.mark.parametrize("optimizer", [{}, {"type": "transfer.optim.optimizers.AdamW", "lr": 7e-4, "base_batch": 2}])
def test_an_lr_a_hundred_times_too_high(config: Node, optimizer: dict[str, Any]) -> None:
    if optimizer:
        config["optimizer"] = optimizer
    assert "lr-too-high" not in codes(checked(config))
    config["optimizer"]["lr"] *= 100
    report = checked(config)
    assert "lr-too-high" in codes(report)
    assert f"at lr {config['optimizer']['lr']:g}" in message(report, "lr-too-high")


def test_everything_wrong_at_once(config: Node) -> None:
    report = checked(
        config, model__type="planted.unused_layer", optimizer__lr=1.0, data__train__type="planted.DarkImages"
    )
    assert codes(report) == ["images-scaled", "gradient-missing", "lr-too-high"]


def test_a_step_that_fails_is_named_with_its_place(config: Node) -> None:
    config["model"]["type"] = "planted.broken_forward"
    report = checked(config)
    assert codes(report) == ["step-fails"]
    assert "RuntimeError" in message(report, "step-fails")
    assert "planted.py, line" in message(report, "step-fails")
