#!/usr/bin/env python
"""This project's Faster R-CNN beside torchvision's: same backbone, weights, pipeline, optimizer, sizes and seeds.

BCCD=folder FRUIT=folder OMP_NUM_THREADS=1 python benchmarks/frcnn_vs_torchvision.py

Both at 320 px on EfficientNet-Lite0, FPN width 64, 64 RoIs, 12 epochs, last checkpoint on the test set; on bccd also
this project with box-aware mixup. Then seconds an image of both, on the same batch in turn, in process time. `--time`
measures only that.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from seeds import Arm, options_parser, report, run_arms

BCCD, FRUIT = os.environ.get("BCCD", "data/bccd"), os.environ.get("FRUIT", "data/fruit")
# No checkpoint is chosen: the last one is measured on the test set. Images load in the process whose time is taken.
COMMON = ("data.val=None", "training.evaluate_every=0", "loader.workers=0")
PEER = (
    "model.type=torchvision_peer.TorchvisionFasterRCNN",
    "criterion={'type': 'torchvision_peer.TorchvisionLosses'}",
    "postprocess={'type': 'torchvision_peer.TorchvisionPostprocess'}",
)
MIXUP = ("loader.mixup={'type': 'transfer.augment.box_mixup.BoxMixup', 'alpha': 1.5, 'last_epochs_without': 2}",)
ON_BCCD = ("configs/voc_folder_frcnn_lite0.py", COMMON, BCCD)
ON_FRUIT = (
    "configs/xml_folder_frcnn_lite0.py",
    (*COMMON, f"data.train.root={FRUIT}/train", f"data.test.root={FRUIT}/test"),
    None,
)


def arms_of(data: tuple[str, tuple[str, ...], str | None], name: str, **variants: tuple[str, ...]) -> list[Arm]:
    """One arm a variant."""
    config, common, root = data
    return [Arm(f"{name}_{key}", config, (*common, *changes), root) for key, changes in variants.items()]


PAIRS = {
    "bccd": arms_of(ON_BCCD, "bccd", ours=(), torchvision=PEER),
    "bccd, mixup": arms_of(ON_BCCD, "bccd", mixup=MIXUP, ours=()),
    "fruit": arms_of(ON_FRUIT, "fruit", ours=(), torchvision=PEER),
}


def seconds_an_image(steps: int = 12) -> str:
    """Process time of a training step and of a prediction, medians over steps made in turn."""
    import torch

    from transfer.assemble import build_run, set_data_root
    from transfer.build import load_config
    from transfer.engine.distributed import World

    world = World(0, 1, torch.device("cpu"))
    runs: dict[str, Any] = {}
    for arm in PAIRS["bccd"]:
        config = load_config(arm.config, arm.overrides)
        set_data_root(config, BCCD)
        runs[arm.name] = build_run(config, world)[0]
    times: dict[tuple[str, str], list[float]] = {(name, what): [] for name in runs for what in ("train", "test")}
    batches = iter(next(iter(runs.values())).batches(0))
    for step in range(steps):
        batch = next(batches)
        for name, run in runs.items():
            for what in ("train", "test"):
                run.task.model.train(what == "train")
                started = time.process_time()
                if what == "train":
                    torch.manual_seed(step)
                    run.optimizer.zero_grad()
                    sum(run.task.losses(run.task.model, batch).values()).backward()
                    run.optimizer.step()
                else:
                    run.task.predict(run.task.model, batch)
                times[name, what].append((time.process_time() - started) / len(batch.targets))
    lines = ["| seconds an image, process time | training step | prediction |", "|---|---|---|"]
    for name in runs:
        cells = [f"{np.median(times[name, what][2:]):.3f}" for what in ("train", "test")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = options_parser(__doc__ or "")
    parser.add_argument("--time", action="store_true", help="only the seconds an image")
    options = parser.parse_args()
    if not options.time:
        for name, arms in PAIRS.items():
            figures = run_arms(arms, options)
            if figures:
                print(f"\n{name}\n\n{report(figures)}\n\n{report(figures, 'AP')}", flush=True)
    if options.time or not options.arms:
        print("\n" + seconds_an_image())


if __name__ == "__main__":
    main()
