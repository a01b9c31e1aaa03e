"""The counts of a split, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faulty_sets import TRAIN, coco_config, config_of, write_coco, write_voc, xml_of

from transfer.checking.check import check_detection
from transfer.checking.statistics import PartStatistics, quantiles


def test_counts_by_hand(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "Annotations" / f"{TRAIN[0]}.xml").write_text(xml_of(TRAIN[0], []))
    objects = [("apple", (1, 1, 18, 8)), ("apple", (30, 30, 30, 30)), ("pear", (31, 21, 60, 40)), ("rot", (1, 1, 5, 5))]
    text = xml_of(TRAIN[1], objects).replace("<difficult>0<", "<difficult>1<", 1)
    (folder / "Annotations" / f"{TRAIN[1]}.xml").write_text(text)
    (folder / "ImageSets/Main/train.txt").write_text(f"{TRAIN[0]}\n{TRAIN[1]}\n")
    train = check_detection(config_of(folder, rename={"rot": None}), workers=1).statistics[0]
    assert (train.images, train.negatives, train.boxes, train.difficult, train.crowd) == (2, 1, 2, 1, 0)
    assert train.class_boxes == {"apple": 1, "pear": 1}
    assert train.class_images == {"apple": 1, "pear": 1}
    # 18 x 8 pixels, and 20 x 20 after clipping to 50 x 40
    assert train.sides == pytest.approx([12.0, 20.0])
    assert train.relative_sides == pytest.approx([12 / 2000**0.5, 20 / 2000**0.5])
    assert train.aspects == pytest.approx([2.25, 1.0])
    assert train.image_sizes == {(40, 50): 2}
    plain = train.as_json()
    assert plain["boxes_per_class"] == {"apple": 1, "pear": 1}
    assert plain["image_width"]["50"] == 50
    assert plain["commonest_image_sizes"] == [{"width": 50, "height": 40, "images": 2}]


def test_limits_of_small_and_large() -> None:
    part = PartStatistics("train", sides=[31.9, 32.0, 95.9, 96.0])
    assert part.shares() == {"small": 0.25, "medium": 0.5, "large": 0.25}
    assert PartStatistics("train").shares() == {"small": 0, "medium": 0, "large": 0}


def test_quantiles_agree_with_numpy() -> None:
    values = np.random.default_rng(0).random(101)
    assert quantiles(values)["5"] == pytest.approx(np.sort(values)[5], abs=1e-4)
    assert quantiles([]) == {}


def test_crowds_are_counted_apart(tmp_path: Path) -> None:
    folder = write_coco(tmp_path, lambda train, test, images: train["annotations"][0].update(iscrowd=1))
    train = check_detection(coco_config(folder), workers=1).statistics[0]
    assert (train.boxes, train.crowd) == (8 * 2 + 2 - 1, 1)
