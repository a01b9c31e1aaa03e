"""ResNet-50 on ImageNet as Bag of Tricks begins: no refinement at all.

    torchrun --nproc-per-node 8 tools/train_cls.py configs/imagenet_r50_baseline.py

The images lie in data/imagenet/train and val (or --data FOLDER). Reproduces: the baseline of table 3 of Bag of Tricks
(arXiv 1812.01187), batch 256: top-1 75.87, top-5 92.70. Measured here: unmeasured (needs GPUs and the data). The
paper's tables 4 to 6, row by row: tools/ablate.py configs/ablations/bot_table4.py and so on.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.imagenet import *
