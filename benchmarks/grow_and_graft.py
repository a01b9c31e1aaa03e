#!/usr/bin/env python
"""The whole chain: grow two backbones, plainly and by the full recipe; graft both onto a detector and a segmenter.

OMP_NUM_THREADS=1 python benchmarks/grow_and_graft.py
IMAGES=folder OMP_NUM_THREADS=1 python benchmarks/grow_and_graft.py      # folder/train/CLASS, folder/test/CLASS

Grown on the embedded sample's crops or on folders of images: `plain` is a small ResNet in form B by Bag of Tricks'
baseline (steps of the lr, decay on everything, no warm-up), `full` the same in form D with warm-up, zero gamma, no bias
decay, cosine, label smoothing and mixup. Each is grafted onto YOLOv3 and FCN on the embedded sample, by one recipe,
next to `random`, the same network (form D) from random values. Prints top-1, mAP50 and mean IoU over the seeds with
intervals, and the paired differences.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from seeds import Arm, options_parser, report, run_arms

IMAGES = os.environ.get("IMAGES")
SIZES = "{'layers': [1, 1, 1, 1], 'channels': [32, 64, 128, 256]}"
GROWN = ("training.evaluate_every=0", "training.preflight=False", "loader.workers=0")
ON_SAMPLE = tuple(
    f"data.{part}={{'type': 'transfer.data.sample_dataset.SampleClassification', 'split': '{split}'}}"
    for part, split in (("train", "train"), ("test", "val"))
)
RECIPES = {
    "plain": (
        "model.backbone.name=resnet26b",
        "model.backbone.zero_gamma=False",
        "optimizer.decay_norm_and_bias=True",
        "schedule={'type': 'transfer.optim.schedules.Step', 'milestones': [0.5, 0.75, 0.9]}",
    ),
    "full": (
        "model.backbone.name=resnet26d",
        "schedule.then={'type': 'transfer.optim.schedules.Cosine'}",
        "criterion.label_smoothing=0.1",
        "loader.blend={'type': 'transfer.augment.image_mixing.ImageMixup', 'alpha': 0.2}",
    ),
}
TIMM_NAMES = {"plain": "resnet26", "full": "resnet26d", "random": "resnet26d"}
TASKS = {
    "detection": ("configs/sample_yolov3_lite0.py", ("augment.train.size=192", "augment.test.size=192")),
    "segmentation": ("configs/sample_fcn_lite0.py", ("augment.train.base=256", "augment.train.crop=160")),
}
EPOCHS = 4


def grown(data: str | None) -> list[Arm]:
    """The arms that train a classifier."""
    common = GROWN if data is not None else (*GROWN, *ON_SAMPLE)
    return [
        Arm(f"grown_{name}", "configs/class_folder_r14.py", (*common, *changes), data)
        for name, changes in RECIPES.items()
    ]


def grafted(seed: int, work_dir: Path) -> list[Arm]:
    """The arms that train a detector or a segmenter on what was grown with this seed."""
    arms = []
    for task, (config, changes) in TASKS.items():
        for name, timm_name in TIMM_NAMES.items():
            weights = None
            if name in RECIPES:
                found = sorted((work_dir / f"grown_{name}" / f"seed{seed}").glob("*/last.pth"))
                weights = str(found[-1])
            stride = ", 'output_stride': 16" if task == "segmentation" else ""
            backbone = (
                f"model.backbone={{'type': 'backbones.timm_backbone.TimmBackbone', 'name': '{timm_name}', "
                f"'weights': {weights!r}, 'norm': 'batch', 'model_options': {SIZES}{stride}}}"
            )
            common = (backbone, f"training.epochs={EPOCHS}", "training.preflight=False", *changes)
            arms.append(Arm(f"{task}_{name}", config, common))
    return arms


def main() -> None:
    parser = options_parser(__doc__ or "")
    options = parser.parse_args()
    figures: dict[str, dict[int, dict[str, float]]] = {}
    for seed in options.seeds:
        only = argparse.Namespace(**{**vars(options), "seeds": [seed]})
        made = run_arms(grown(IMAGES), only)
        made |= run_arms(grafted(seed, options.work_dir), only)  # reads what the first left
        for name, by_seed in made.items():
            figures.setdefault(name, {}).update(by_seed)
    for kind, key in (("grown", "top1"), ("detection", "mAP50"), ("segmentation", "mIoU")):
        of_kind = {name: by_seed for name, by_seed in figures.items() if name.startswith(f"{kind}_")}
        order = sorted(of_kind, key=lambda name: not name.endswith("_full"))  # differences are full minus another
        if of_kind:
            print(f"\n{kind}\n\n{report({name: of_kind[name] for name in order}, key)}", flush=True)


if __name__ == "__main__":
    main()
