"""A whole ranking by its command: two backbones, one grown first, on a few drawn images with masks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_masks

from transfer.build import load_config
from transfer.experiments.ledger import Ledger, Row
from transfer.ranking.record import RankingRecord, read_record

CLASSIFIER = '''"""A tiny classifier."""

from backbones.classifier_backbone import ClassifierBackbone
from transfer.augment.classification_presets import classification_test, classification_train
from transfer.data.class_folder import ClassFolderDataset
from transfer.heads.classification import ClassificationPostprocess, classifier
from transfer.heads.classification_criterion import ClassificationCriterion
from transfer.metrics.accuracy import Accuracy
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Constant

task = "classification"
model = dict(type=classifier, backbone=dict(type=ClassifierBackbone, name="test_resnet", weights=None))
criterion = dict(type=ClassificationCriterion)
postprocess = dict(type=ClassificationPostprocess)
_part = dict(type=ClassFolderDataset, root="ROOT")
data = dict(train=dict(**_part, folder="train"), val=None, test=dict(**_part, folder="test"))
augment = dict(train=dict(type=classification_train, size=32), test=dict(type=classification_test, size=32))
loader = dict(batch_size=2, test_batch_size=2, workers=0)
optimizer = dict(type=SGD, lr=0.01, base_batch=2)
schedule = dict(type=Constant)
training = dict(iterations=2, seed=0, evaluate_every=0, preflight=False)
metrics = [dict(type=Accuracy)]
'''

RANKING = '''"""Tiny."""

_short = {
    "training.epochs": None,
    "training.iterations": 4,
    "training.evaluate_every": 0,
    "training.preflight": False,
    "schedule.iterations": 1,
}
tasks = {"masks": dict(config="masks.py", changes=_short)}
backbones = [
    dict(name="from nothing", arm="random", norm="group"),
    dict(name="grown", grow=dict(config="classes.py"), top1=50.0),
]
search = dict(factors=(0.5, 1.0), budget=0.5, held_out=0.25)
seeds = 1
pictures = 2
published = [dict(source="a paper", task="masks", backbone="grown", top1=50, value=60.5)]
'''


@pytest.fixture
def ranking(tmp_path: Path) -> Path:
    """Its file, beside the configs that it names."""
    configs = tmp_path / "configs"
    configs.mkdir()
    tiny_masks.write_config(configs / "masks.py", tiny_masks.write_masks(tmp_path / "masks"))
    for number in range(8):
        folder = tmp_path / "classes" / ("test" if number > 5 else "train") / ("dark", "light")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 90, (40, 40, 3))
        cv2.imwrite(str(folder / f"{number}.png"), (noise + 150 * (number % 2)).astype(np.uint8))
    (configs / "classes.py").write_text(CLASSIFIER.replace("ROOT", (tmp_path / "classes").as_posix()))
    (configs / "ranking.py").write_text(RANKING)
    return configs / "ranking.py"


@pytest.mark.slow
def test_a_ranking_from_its_file_to_its_record(
    ranking: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, str(repository / "tools" / "rank_backbones.py"), str(ranking), "--work-dir", "work"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}

    def rank(*more: str) -> RankingRecord:
        made = subprocess.run([*command, *more], capture_output=True, text=True, timeout=600, env=environment)
        assert made.returncode == 0, made.stderr
        (folder,) = Path("work").glob("ranking-*")
        return read_record(folder / "ranking.json")

    record = rank()
    assert [(task.name, task.kind, task.figure, task.train_images, task.test_images) for task in record.tasks] == [
        ("masks", "segmentation", "mIoU", 8, 5),
    ]
    _check_runs(record)
    grown = record.backbones[1]
    assert grown.grown is not None
    assert grown.grown["top1"] in (0.0, 50.0, 100.0)  # of two test images
    assert grown.multiply_adds == record.backbones[0].multiply_adds
    for cost in record.costs:
        assert cost.parameters > grown.parameters
        assert cost.training_images_per_second is not None
        assert cost.inference_images_per_second is not None
        assert cost.inference_images_per_second > 0 < cost.training_images_per_second
        assert cost.peak_memory_mb is not None
        assert 4e-6 * cost.parameters < cost.peak_memory_mb < 2000  # float32 at the least
    scores = {(f.task, f.backbone, f.score) for f in record.forecasts if f.value is not None}
    for pair in (("masks", "grown"), ("masks", "from nothing")):
        assert {(*pair, "LogME"), (*pair, "H-score"), (*pair, "k-NN"), (*pair, "linear probe")} <= scores
    (folder,) = Path("work").glob("ranking-*")
    assert len(record.pictures) == 2
    for picture in record.pictures:
        drawn = [picture.truth, *picture.predictions.values()]
        assert list(picture.predictions) == ["from nothing", "grown"]
        assert all(cv2.imread(str(folder / path)).shape[1] > 100 for path in drawn)
    assert record.published[0].value == 60.5

    before = _ledger()
    assert {(row.state, row.failures) for row in before.values()} == {("done", 0)}
    again = rank("--report-only")
    assert _ledger() == before
    assert {**vars(again), "made": "", "facts": {}} == {**vars(record), "made": "", "facts": {}}
    _check_single_run(record, repository, environment)


def _check_runs(record: RankingRecord) -> None:
    """Figures are those of the runs' own files, and the lr is the one whose search was best."""
    assert [(run.backbone, run.task, run.seed, run.state) for run in record.runs] == [
        (backbone, "masks", 0, "done") for backbone in ("from nothing", "grown")
    ]
    for run in record.runs:
        assert run.directory is not None
        metric = json.loads((Path(run.directory) / "results.json").read_text())["metrics"][0]
        assert run.figure == pytest.approx(100 * metric["values"][metric["main"]])
        searched = [s for s in record.searches if (s.backbone, s.task) == (run.backbone, run.task)]
        assert [s.factor for s in searched] == [0.5, 1.0]
        best = max(s.figure for s in searched if s.figure is not None)
        (chosen,) = (s for s in searched if s.chosen)
        assert (chosen.figure, chosen.lr) == (best, run.lr)
        assert all(set(of) == {"iou", "accuracy"} for of in run.per_class.values())


def _check_single_run(record: RankingRecord, repository: Path, environment: dict[str, str]) -> None:
    """The command of a run that counts, and of a search, gives the config that was run."""
    for run in (record.runs[-1], record.searches[0]):
        words = shlex.split(run.command)
        assert words[0] == "tools/train_seg.py"
        assert run.directory is not None
        config = load_config(words[1], words[3:])
        assert config == json.loads((Path(run.directory) / "config.json").read_text())


def _ledger() -> dict[str, Row]:
    ledger = Ledger(Path("work/ledger.sqlite"))
    keys = [row[0] for row in ledger.connection.execute("SELECT key FROM runs")]
    return ledger.rows(keys)
