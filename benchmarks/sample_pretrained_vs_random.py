#!/usr/bin/env python
"""What ImageNet weights bring on the embedded sample: a demo's config against random init, over seeds.

    python benchmarks/sample_pretrained_vs_random.py --lr-grid       # random init's own lr, at seed 0
    python benchmarks/sample_pretrained_vs_random.py --seeds 0 1 2
    python benchmarks/sample_pretrained_vs_random.py --task segmentation --lr-grid

The random-init arm trains every layer with batch norm at an lr of its own, the best of a grid (1e-4 was tried for the
segmenter alone). The segmenter has 3 epochs of crops of 160 px instead of 5 of 224, so that a run takes two minutes.
"""

from __future__ import annotations

from seeds import Arm, options_parser, report, run_arms

CONFIGS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "detection": ("configs/sample_frcnn_lite0.py", (), "mAP50"),
    "segmentation": (
        "configs/sample_fcn_lite0.py",
        ("augment.train.base=256", "augment.train.crop=160", "training.epochs=3", "training.preflight=False"),
        "mIoU",
    ),
}
"""Task -> config, what is changed in it for both arms, and the figure."""
RANDOM_INIT = (
    "model.backbone.weights=None",
    "model.backbone.norm=batch",
    "model.backbone.frozen_stages=0",
    "optimizer.lr_factors={}",
)
GRID = ("1e-4", "3e-4", "1e-3", "3e-3")
CHOSEN = {"detection": "3e-3", "segmentation": "3e-4"}


def random_init(task: str, lr: str) -> Arm:
    """The arm at one lr; equal lrs share their runs."""
    config, changes, _ = CONFIGS[task]
    return Arm(f"{task}_random_lr{lr}", config, (*changes, *RANDOM_INIT, f"optimizer.lr={lr}"))


if __name__ == "__main__":
    parser = options_parser(__doc__ or "")
    parser.add_argument("--task", choices=tuple(CONFIGS), default="detection")
    parser.add_argument("--lr-grid", action="store_true", help="compare the grid of lrs at seed 0")
    options = parser.parse_args()
    config, changes, figure = CONFIGS[options.task]
    if options.lr_grid:
        options.seeds = [0]
        print(report(run_arms([random_init(options.task, lr) for lr in GRID], options), figure))
    else:
        arms = [Arm(f"{options.task}_imagenet", config, changes), random_init(options.task, CHOSEN[options.task])]
        print(report(run_arms(arms, options), figure))
