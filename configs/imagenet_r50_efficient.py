"""ResNet-50 on ImageNet by the efficient training of Bag of Tricks: warm-up, zero gamma, no bias decay, fp16.

    torchrun --nproc-per-node 8 tools/train_cls.py configs/imagenet_r50_efficient.py

Reproduces: table 4 of Bag of Tricks (arXiv 1812.01187), last row: top-1 76.21, top-5 92.97. Table 5, by
model.backbone.name: resnet50b 76.66 / 93.28, resnet50c 76.87 / 93.48, resnet50d 77.16 / 93.52 (table 5's own
ResNet-50, 76.21, has the stride in the first 1x1: resnet50). Measured here: unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.imagenet_efficient import *
