"""A ranking as it might be found: drawn figures, the same for a seed, with small pictures; and ways to change it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from transfer.ranking.record import (
    BackboneRecord,
    CostRecord,
    ForecastRecord,
    PictureRecord,
    PublishedPoint,
    RankingRecord,
    RunRecord,
    SearchRun,
    TaskRecord,
)

BACKBONES = (
    ("resnet50d best", "pretrained", 79.3, 23.5e6, 5.6e9),
    ("resnet50d mixup", "pretrained", 79.2, 23.5e6, 5.6e9),
    ("resnet50d smoothing", "pretrained", 78.3, 23.5e6, 5.6e9),
    ("resnet50 baseline", "pretrained", 76.1, 23.5e6, 5.3e9),
    ("lite0 random init", "random", None, 3.4e6, 0.39e9),
    ("lite0 ImageNet", "pretrained", 75.5, 3.4e6, 0.39e9),
    ("lite0 grown here", "grown", None, 3.4e6, 0.39e9),
    ("lite0 frozen", "frozen", 75.5, 3.4e6, 0.39e9),
    ("resnet50d random init", "random", None, 23.5e6, 5.6e9),
    ("mobilenetv3_small_050", "pretrained", 57.9, 0.8e6, 0.02e9),
    ("efficientnetv2_rw_t.ra2_in1k", "pretrained", 82.3, 12.2e6, 1.9e9),
    ("a_backbone_with_a_very_long_name.fine_tuned_on_something_else_in22k_ft_in1k_384", "pretrained", 83.0, 86e6, 17e9),
)
PUBLISHED = (
    ("B-standard", 76.14, 77.54, 37.05),
    ("D-efficient", 77.16, 78.30, 38.88),
    ("+ cosine", 77.91, 79.23, 39.33),
    ("+ label smoothing", 78.34, 80.71, 38.75),
    ("+ distillation, no mixup", 78.67, 80.96, 38.90),
    ("+ mixup, no distillation", 79.16, 81.10, 37.99),
    ("+ distillation + mixup", 79.29, 81.33, 38.40),
)
SCORES = ("LogME", "H-score", "LEEP", "k-NN", "linear probe")
KINDS = {
    "detection": ("mAP50", "ap", "VOC area: 101 points would be another figure"),
    "segmentation": ("mIoU", "iou", "mean IoU"),
}


def drawn_record(
    folder: Path,
    *,
    backbones: int = 7,
    tasks: tuple[str, ...] = ("detection", "segmentation"),
    seeds: int = 3,
    classes: int = 6,
    pictures: int = 2,
    published: bool = True,
) -> RankingRecord:
    """A record whose pictures are written into a folder.

    Args:
        folder: of the record.
        backbones: the first of BACKBONES.
        tasks: of KINDS.
        seeds: of each run.
        classes: of each task.
        pictures: test images of each task.
        published: whether the papers' points are a layer.
    """
    rng = np.random.default_rng(7)
    chosen = BACKBONES[:backbones]
    record = RankingRecord(
        "sample",
        "tools/rank_backbones.py configs/rank/sample.py --jobs 2",
        "2026-03-01T09:30:00+00:00",
        {"processor": "a processor of 2 cores", "torch": "2.6.0", "timm": "1.0.15", "commit": "0123456789abcdef"},
        list(range(seeds)),
        [_task(name) for name in tasks],
        [_backbone(*each) for each in chosen],
        [_cost(each, task, rng) for each in chosen for task in tasks],
        [],
        [],
        [],
        [],
        _published(tasks) if published else [],
    )
    for task in tasks:
        shared = rng.normal(0, 1, seeds)
        for name, arm, top1, *_ in chosen:
            level = {"random": 30.0, "grown": 52.0}.get(
                arm, 60 + ((top1 or 76) - 76) * (1.4 if task == "detection" else 0.4)
            )
            level -= 3 * (arm == "frozen") + 20 * (task == "segmentation")
            own = rng.normal(level, 0.5)
            for seed in range(seeds):
                record.runs.append(_run(name, task, seed, own + shared[seed] + rng.normal(0, 0.25), classes, rng))
            record.searches += _searches(name, task, own, rng)
            record.forecasts += [ForecastRecord(task, name, score, own / 40 + rng.normal(0, 0.3)) for score in SCORES]
        record.pictures += [_picture(folder, task, image, [each[0] for each in chosen]) for image in range(pictures)]
    return record


def fail(record: RankingRecord, backbone: str, task: str, seed: int, error: str) -> None:
    """Let a run have failed."""
    run = next(run for run in record.runs if (run.backbone, run.task, run.seed) == (backbone, task, seed))
    run.figure, run.per_class, run.state, run.error = None, {}, "failed", error


def _task(name: str) -> TaskRecord:
    figure, _, protocol = KINDS[name]
    return TaskRecord(name, name, f"configs/sample_{name}.py", figure, protocol, 96, 48, ["engine.epochs=12"])


def _backbone(name: str, arm: str, top1: float | None, parameters: float, work: float) -> BackboneRecord:
    grown = {"config": "configs/sample_cls_lite0.py", "directory": "runs/grown/001", "top1": 88.25, "minutes": 4.5}
    return BackboneRecord(
        name,
        f"the {arm} arm of {name}",
        arm,
        "none" if arm == "random" else "pypi:efficientnet-lite0",
        top1,
        None if top1 is None else "its model card",
        round(parameters),
        round(work),
        [224, 224],
        [f"model.backbone.name={name.split()[0]}"],
        grown if arm == "grown" else None,
    )


def _cost(each: tuple, task: str, rng: np.random.Generator) -> CostRecord:
    name, _, _, parameters, work = each
    speed = 40 / (work / 1e9 + 0.5) * rng.uniform(0.9, 1.1)
    return CostRecord(name, task, round(parameters + 4e6), speed / 3.2, speed, 300 + work / 2e7, "2 threads of a CPU")


def _run(name: str, task: str, seed: int, figure: float, classes: int, rng: np.random.Generator) -> RunRecord:
    key = KINDS[task][1]
    per_class = {
        f"class {label}": {key: float(np.clip(figure + 12 * np.sin(label) + rng.normal(0, 2), 0, 100)), "truths": 40}
        for label in range(classes)
    }
    directory = f"runs/{task}/{name.replace(' ', '-')}/{seed}"
    command = (
        f"tools/train_det.py configs/sample_{task}.py --cfg-options model.backbone.name={name.split()[0]} seed={seed}"
    )
    return RunRecord(name, task, seed, float(figure), per_class, 0.01, 7.5 + seed, "done", None, directory, command)


def _searches(name: str, task: str, level: float, rng: np.random.Generator) -> list[SearchRun]:
    figures = {factor: float(level - 3 + rng.normal(0, 1.5)) for factor in (0.3333, 1.0, 3.0)}
    best = max(figures, key=lambda factor: figures[factor])
    return [
        SearchRun(
            name, task, 0, 0.01 * factor, factor, figure, factor == best, "done", None, f"tools/x.py --lr {factor}"
        )
        for factor, figure in figures.items()
    ]


def _published(tasks: tuple[str, ...]) -> list[PublishedPoint]:
    place = {"detection": 2, "segmentation": 3}
    source = {"detection": "Bag of Tricks, table 8", "segmentation": "Bag of Tricks, table 9"}
    return [
        PublishedPoint(source[task], task, each[0], each[1], each[place[task]]) for task in tasks for each in PUBLISHED
    ]


def _picture(folder: Path, task: str, number: int, names: list[str]) -> PictureRecord:
    rng = np.random.default_rng(number)
    folder = folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)

    def draw(file: str, shift: int) -> str:
        image = Image.new("RGB", (160, 120), (90, 130 + 20 * number, 150))
        pen = ImageDraw.Draw(image)
        x, y = rng.integers(10, 60, 2).tolist()
        pen.rectangle((x, y, x + 60, y + 40), outline=(255, 255, 255), width=1)
        pen.rectangle((x + shift, y + shift, x + 60, y + 40 + shift), outline=(230, 159, 0), width=3)
        image.save(folder / file)
        return f"pictures/{file}"

    predictions = {name: draw(f"{task}-{number}-{place}.png", place) for place, name in enumerate(names)}
    return PictureRecord(task, f"{number:06d}", draw(f"{task}-{number}-truth.png", 0), predictions)
