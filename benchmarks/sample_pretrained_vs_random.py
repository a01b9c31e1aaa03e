#!/usr/bin/env python
"""What ImageNet weights bring on the embedded sample: the demo's config against random init, over seeds.

    python benchmarks/sample_pretrained_vs_random.py --seeds 0 1 2

The random-init arm trains every layer with batch norm at an lr of its own (chosen from a grid of three at one seed).
"""

from __future__ import annotations

from seeds import Arm, arguments, report, run_arms

RANDOM_INIT = (
    "model.backbone.weights=None",
    "model.backbone.norm=batch",
    "model.backbone.frozen_stages=0",
    "optimizer.lr=0.001",
)

if __name__ == "__main__":
    arms = [
        Arm("imagenet", "configs/sample_frcnn_lite0.py"),
        Arm("random", "configs/sample_frcnn_lite0.py", RANDOM_INIT),
    ]
    print(report(run_arms(arms, arguments(__doc__ or ""))))
