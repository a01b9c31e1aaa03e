"""What decides between the runs of a ranking: the lr's search, halving; and the search's data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from transfer.assemble import build_data
from transfer.build import Node, load_config
from transfer.data.held_out import held_out
from transfer.ranking.collect import per_class_of
from transfer.ranking.grid import choose_factor, for_search, given_up, is_at_edge
from transfer.ranking.plan import Halving, Search
from transfer.ranking.single_runs import command_of, overrides_of
from transfer.types import UserError


def test_the_best_factor_is_taken() -> None:
    assert choose_factor({0.3: 10.0, 1.0: 12.0, 3.0: 11.0}) == 1.0
    assert choose_factor({0.3: 10.0, 1.0: math.nan, 3.0: None}) == 0.3
    assert choose_factor({0.3: None, 1.0: math.nan}) is None
    assert choose_factor({0.1: 0.0, 0.3: 0.0, 3.0: 0.0}) == 3.0  # nearest to 1: three times, not 3.3 times
    assert choose_factor({0.5: 7.0, 2.0: 7.0}) == 0.5  # as near to 1: the lower
    assert choose_factor({0.3: 7.0, 1.0: 7.0, 3.0: 7.0}) == 1.0


def test_the_edge_of_the_grid() -> None:
    assert is_at_edge(0.3, (0.3, 1.0, 3.0))
    assert is_at_edge(3.0, (3.0, 1.0, 0.3))
    assert not is_at_edge(1.0, (0.3, 1.0, 3.0))
    assert not is_at_edge(1.0, (1.0,))


def test_who_is_given_up() -> None:
    figures = {
        "best": {0: 50.0, 1: 51.0, 2: 52.0},
        "near": {0: 49.0, 1: 40.0, 2: 49.0},
        "far": {0: 44.0},
        "last": {0: 20.0},
    }
    assert given_up(None, figures, 3) == {}
    assert given_up(Halving((1,), keep=0.5, margin=5.0), figures, 3) == {"far": 1, "last": 1}
    assert given_up(Halving((1,), keep=0.5, margin=10.0), figures, 3) == {"last": 1}  # the margin protects
    assert given_up(Halving((1,), keep=1.0, margin=0.0), figures, 3) == {}  # and so does the share
    # among the two left, means of two seeds: 50.5 and 44.5
    assert given_up(Halving((1, 2), keep=0.5, margin=5.0), figures, 3) == {"far": 1, "last": 1, "near": 2}


def test_the_search_does_not_see_the_test_set(tiny_config: Node) -> None:
    config = for_search(tiny_config, Search(seed=3, budget=0.5, held_out=0.25))
    assert config["training"]["epochs"] == 1.0
    searched, whole = build_data(config), build_data(tiny_config)
    assert not searched.has_validation
    names = [[part.record(i).image_id for i in range(len(part))] for part in (searched.train, searched.test)]
    assert [len(part) for part in names] == [6, 2]
    assert sorted(names[0] + names[1]) == [whole.train.record(i).image_id for i in range(8)]
    assert not set(names[0]) & set(names[1])
    tests = {whole.test.record(i).image_id for i in range(len(whole.test))}
    assert not tests & set(names[0] + names[1])


def test_a_validation_set_of_the_config_is_what_the_search_measures_on(tiny_config: Node) -> None:
    tiny_config["data"]["val"] = {**tiny_config["data"]["test"], "splits": "val"}
    config = for_search(tiny_config, Search())
    assert config["data"]["test"]["splits"] == "val"
    assert config["data"]["train"] == tiny_config["data"]["train"]


def test_a_search_of_iterations_takes_its_share(tiny_config: Node) -> None:
    tiny_config["training"].update(epochs=None, iterations=7)
    assert for_search(tiny_config, Search(budget=0.1))["training"]["iterations"] == 1
    assert for_search(tiny_config, Search(budget=0.5))["training"]["iterations"] == 4


def test_a_held_out_part_has_its_name(tiny_config: Node) -> None:
    with pytest.raises(UserError, match="'rest', 'held out'"):
        held_out(build_data(tiny_config).train, fraction=0.5, part="held_out")  # type: ignore[arg-type]


def test_overrides_say_as_little_as_they_can(tiny_config: Node, tiny_config_file: Any) -> None:
    config = load_config(tiny_config_file)
    config["optimizer"]["lr"] = 0.1
    config["model"]["backbone"]["name"] = "resnet18d"
    config["model"]["backbone"]["frozen_stages"] = 1  # not set in the file, but an argument
    del config["augment"]["train"]["flip"]  # a key that goes: its dict is given whole
    config["training"]["precision"] = "1e3"  # a text that reads as a number
    assert set(overrides_of(tiny_config, config)) == {
        "optimizer.lr=0.1",
        "model.backbone.name=resnet18d",
        "model.backbone.frozen_stages=1",
        "augment.train={'type': 'transfer.augment.presets.square_train', 'size': 64}",
        "training.precision='1e3'",
    }
    assert overrides_of(config, config) == []
    assert command_of("c.py", config, config) == "tools/train_det.py c.py"
    assert command_of("c.py", {**config, "task": "segmentation"}, {**config, "task": "segmentation"}) == (
        "tools/train_seg.py c.py"
    )


def test_figures_of_classes_are_percent_without_counts() -> None:
    metric = {"per_class": {"cat": {"iou": 0.25, "accuracy": None, "pixels": 7}}, "count_columns": ["pixels"]}
    assert per_class_of(metric) == {"cat": {"iou": 25.0, "accuracy": None}}
    assert per_class_of(None) == {}
    assert np.isclose(per_class_of({"per_class": {"a": {"ap": 0.1}}})["a"]["ap"] or 0, 10)
