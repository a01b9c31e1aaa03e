#!/usr/bin/env python
"""Training speed of a classifier beside timm's own training loop: same network, size, batch, augmentation, optimizer.

    IMAGES=folder OMP_NUM_THREADS=1 python benchmarks/classifier_vs_timm.py

IMAGES holds train/CLASS and val/CLASS. timm's training script is not in its package, so its loop is written down here
from the package's parts: its data set, `create_loader` (random resized crop, flip, colour jitter; images loaded in the
process that is timed), `create_optimizer_v2`, `LabelSmoothingCrossEntropy`, its meters. Ours is the loop that
tools/train_cls.py runs, with its checks, without hooks. Both normalise on the device; images are decoded by PIL there
and by OpenCV here. Rounds in turn in one process; process time an image, medians over steps; then the step without
loading, on one batch in memory.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np

IMAGES = os.environ.get("IMAGES", "data/imagenette160")


def ours(name: str, size: int, batch: int, steps: int) -> tuple[list[float], list[float]]:
    """Process seconds of each step with loading, and without."""
    import torch

    from transfer.assemble import build_run, set_data_root
    from transfer.build import load_config
    from transfer.engine.distributed import World
    from transfer.engine.train import Step, train

    config = load_config(
        "configs/class_folder_r14.py",
        [
            f"model.backbone.name={name}",
            "model.backbone.model_options={}",
            f"augment.train.size={size}",
            "augment.train.scale=[0.08, 1.0]",
            "augment.train.pca_noise=0.0",
            f"loader.batch_size={batch}",
            "loader.workers=0",
            "data.test.folder=val",
            "criterion.label_smoothing=0.1",
            "criterion.smoothing_form=usual",
            "schedule={'type': 'transfer.optim.schedules.Constant'}",
            "training.epochs=None",
            f"training.iterations={steps + 1}",
        ],
    )
    set_data_root(config, IMAGES)
    run, _, _ = build_run(config, World(0, 1, torch.device("cpu")))
    ticks: list[float] = []

    def tick(event: Any) -> None:
        if isinstance(event, Step):
            ticks.append(time.process_time())

    train(run, lambda model: [], [tick])
    run.task.model.train()
    images = next(iter(run.batches(0)))
    bare = []
    for _ in range(steps + 1):
        started = time.process_time()
        run.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(run.task.losses(run.task.model, images).values())).sum().backward()
        run.optimizer.step()
        bare.append(time.process_time() - started)
    return list(np.diff(ticks)), bare[1:]


def timm_s(name: str, size: int, batch: int, steps: int) -> tuple[list[float], list[float]]:
    """The same of timm's parts."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter

    dataset = create_dataset("", root=IMAGES, split="train", is_training=True, batch_size=batch)
    classes = len(dataset.reader.class_to_idx)
    model = timm.create_model(name, num_classes=classes).train()
    loader = create_loader(
        dataset, input_size=(3, size, size), batch_size=batch, is_training=True, no_aug=False, color_jitter=0.4,
        hflip=0.5, re_prob=0.0, interpolation="bilinear", num_workers=0, pin_memory=False, use_prefetcher=False,
        persistent_workers=False,
    )  # fmt: skip
    criterion = LabelSmoothingCrossEntropy(0.1)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=5e-4, momentum=0.9)
    losses = AverageMeter()

    def step(images: Any, labels: Any) -> None:
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))

    ticks = []
    kept = None
    for images, labels in loader:
        step(images, labels)
        ticks.append(time.process_time())
        kept = (images, labels)
        if len(ticks) == steps + 1:
            break
    assert kept is not None, "the folder has images"
    bare = []
    for _ in range(steps + 1):
        started = time.process_time()
        step(*kept)
        bare.append(time.process_time() - started)
    torch.manual_seed(0)
    return list(np.diff(ticks)), bare[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18d", help="a name that timm and this project share")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="of a side in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    sizes = (options.model, options.size, options.batch, options.steps)
    rounds: dict[str, list[tuple[float, float]]] = {"trickstack": [], "timm": []}
    for _ in range(options.rounds):
        for side, measure in (("trickstack", ours), ("timm", timm_s)):
            whole, bare = measure(*sizes)
            rounds[side].append((float(np.median(whole)) / options.batch, float(np.median(bare)) / options.batch))
    print(
        f"{options.model}, {options.size} px, batch {options.batch}, {options.threads} threads, {options.rounds} rounds"
    )
    print("| process seconds an image | trickstack | timm | trickstack / timm, median (range over rounds) |")
    print("|---|---|---|---|")
    for column, what in enumerate(("step with loading", "step alone")):
        mine, theirs = ([each[column] for each in rounds[side]] for side in rounds)
        ratios = np.array(mine) / np.array(theirs)
        print(
            f"| {what} | {np.median(mine):.4f} | {np.median(theirs):.4f} | {np.median(ratios):.2f} "
            f"({ratios.min():.2f} to {ratios.max():.2f}) |"
        )


if __name__ == "__main__":
    main()
