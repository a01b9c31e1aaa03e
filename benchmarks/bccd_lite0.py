#!/usr/bin/env python
"""Blood cells (BCCD, 205 training photographs): Faster R-CNN on EfficientNet-Lite0 over seeds, scored on the test set.

BCCD=folder python benchmarks/bccd_lite0.py --seeds 0 1 2
"""

from __future__ import annotations

import os

from seeds import Arm, options_parser, report, run_arms

if __name__ == "__main__":
    root = os.environ.get("BCCD", "data/bccd")
    # No checkpoint is chosen: the last one is measured on the test set.
    arm = Arm("bccd", "configs/voc_folder_frcnn_lite0.py", ("data.val=None", "training.evaluate_every=0"), data=root)
    print(report(run_arms([arm], options_parser(__doc__ or "").parse_args())))
