"""The embedded sample as a data set, over a stand-in for its maker: small, and it counts how often it is asked."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from transfer.data.sample_dataset import SampleDetection
from transfer.types import DetectionDataset, UserError

SPLITS = {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d"]}
NAMES = {"a": "dog", "b": "cat", "c": "emu", "d": "dog"}


class Maker:
    """Stands in for the module transfer.data.sample."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[tuple[Path, int]] = []

    def sample_folder(self) -> Path:
        return self.folder

    def make_sample(self, folder: Path, *, seed: int = 0) -> Path:
        if (folder / "VOCdevkit").exists():  # as the real one: made once
            return folder
        self.made.append((folder, seed))
        year = folder / "VOCdevkit/VOC2007"
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (year / part).mkdir(parents=True)
        for split, stems in SPLITS.items():
            (year / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(stems))
        for stem, name in NAMES.items():
            Image.new("RGB", (8, 8)).save(year / "JPEGImages" / f"{stem}.jpg")
            box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>"
            text = f"<annotation><object><name>{name}</name>{box}</object></annotation>"
            (year / "Annotations" / f"{stem}.xml").write_text(text)
        return folder


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    maker = Maker(tmp_path / "sample")
    module = types.ModuleType("transfer.data.sample")
    module.SAMPLE_CLASSES = ("emu", "dog", "cat")  # type: ignore[attr-defined]
    module.make_sample = maker.make_sample  # type: ignore[attr-defined]
    module.sample_folder = maker.sample_folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transfer.data.sample", module)
    return maker


def test_made_once_with_the_same_labels_in_every_split(maker: Maker) -> None:
    parts = {split: SampleDetection(split) for split in SPLITS}
    assert maker.made == [(maker.folder, 0)]
    for split, part in parts.items():
        assert isinstance(part, DetectionDataset)
        assert part.class_names == ("cat", "dog", "emu")
        assert [part.record(index).image_id for index in range(len(part))] == SPLITS[split]
    assert parts["val"].record(0).labels.tolist() == [2]
    assert parts["test"][0].image.shape == (8, 8, 3)


def test_another_seed_and_another_folder(maker: Maker, tmp_path: Path) -> None:
    SampleDetection("train", seed=3)
    SampleDetection("train", root=tmp_path / "own", seed=4)
    assert [seed for _, seed in maker.made] == [3, 4]
    assert maker.made[1][0] == tmp_path / "own"
    assert maker.made[0][0] not in (maker.folder, tmp_path / "own")


def test_limit(maker: Maker) -> None:
    assert len(SampleDetection("trainval", limit=2)) == 2
    assert len(SampleDetection("trainval", limit=9)) == 3
    with pytest.raises(UserError, match="limit is 0"):
        SampleDetection("train", limit=0)
    with pytest.raises(UserError, match="split is 'tset': the sample has train, val, trainval, test"):
        SampleDetection("tset")
