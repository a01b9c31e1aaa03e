"""Learning by heart: an able detector does, one with contradicting truth does not, and the images are named."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from planned_runs import run_of

from transfer import assemble
from transfer.build import Node, build
from transfer.data.subset import SubsetDataset
from transfer.preflight.memorising import images_with_objects, memorise
from transfer.types import Record, UserError


def learnt(config: Node, count: int, budget: int, **changes: Any) -> Any:
    run, dataset = run_of(config, **changes)
    subset = SubsetDataset(dataset, indices=images_with_objects(dataset, count))
    before = {name: value.clone() for name, value in run.task.model.state_dict().items()}
    pad_value = assemble.backbone_of(run.task.model).pad_value
    settings, pipeline = assemble.loader_settings(config), assemble.build_augment(config, "test")
    loader = assemble.test_loader(subset, pipeline, settings, pad_value, run.world)
    outcome = memorise(run, subset, list(loader), build(config["metrics"], "metrics"), budget=budget)
    assert all(torch.equal(value, before[name]) for name, value in run.task.model.state_dict().items())
    return outcome


def test_two_images_are_learnt(tiny_config: Node, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="trickstack"):
        outcome = learnt(tiny_config, 2, 300)
    assert outcome.findings == []
    assert outcome.facts["mAP50"] == pytest.approx(1)
    assert outcome.facts["steps"] < 300
    assert "2 of 2 images learnt" in outcome.lines[0]
    assert any("step 25 of 300" in line and "left" in line for line in caplog.messages)


def test_what_is_not_learnt_is_named(tiny_config: Node) -> None:
    outcome = learnt(tiny_config, 2, 3)  # too short
    (finding,) = outcome.findings
    assert (finding.severity, finding.code) == ("error", "not-learnt")
    assert "2 of 2 images" in finding.message
    assert "000000.jpg" in finding.message
    assert sum("not learnt: " in line for line in outcome.lines) == 2


class Data:
    class_names = ("a",)

    def __init__(self, *difficult: list[bool]) -> None:
        self.difficult = difficult

    def __len__(self) -> int:
        return len(self.difficult)

    def record(self, index: int) -> Record:
        flags = np.array(self.difficult[index], dtype=bool)
        none = np.zeros(len(flags))
        return Record("a.jpg", index, (9, 9), np.zeros((len(flags), 4)), none, flags, none.astype(bool), none)


def test_which_images_are_chosen() -> None:
    data: Any = Data([False], [], [True], [True, False], [False], [False])
    assert images_with_objects(data, 10) == [0, 3, 4, 5]
    assert images_with_objects(data, 2) == [0, 5]
    with pytest.raises(UserError, match="no image with an object"):
        images_with_objects(Data([], [True]), 2)  # type: ignore[arg-type]
