#!/usr/bin/env python
"""What ImageNet weights bring on the embedded sample: the demo's config against random init, over seeds.

    python benchmarks/sample_pretrained_vs_random.py --lr-grid       # random init's own lr, at seed 0
    python benchmarks/sample_pretrained_vs_random.py --seeds 0 1 2

The random-init arm trains every layer with batch norm at an lr of its own, the best of a grid of three.
"""

from __future__ import annotations

from seeds import Arm, options_parser, report, run_arms

CONFIG = "configs/sample_frcnn_lite0.py"
RANDOM_INIT = (
    "model.backbone.weights=None",
    "model.backbone.norm=batch",
    "model.backbone.frozen_stages=0",
    "optimizer.lr_factors={}",
)
GRID = ("3e-4", "1e-3", "3e-3")
CHOSEN = "3e-3"


def random_init(lr: str) -> Arm:
    """The arm at one lr; equal lrs share their runs."""
    return Arm(f"random_lr{lr}", CONFIG, (*RANDOM_INIT, f"optimizer.lr={lr}"))


if __name__ == "__main__":
    parser = options_parser(__doc__ or "")
    parser.add_argument("--lr-grid", action="store_true", help="compare the grid of lrs at seed 0")
    options = parser.parse_args()
    if options.lr_grid:
        options.seeds = [0]
        print(report(run_arms([random_init(lr) for lr in GRID], options)))
    else:
        print(report(run_arms([Arm("imagenet", CONFIG), random_init(CHOSEN)], options)))
