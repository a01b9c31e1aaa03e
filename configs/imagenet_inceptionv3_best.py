"""Inception-V3 on ImageNet at 299 px with the refinements of Bag of Tricks.

    torchrun --nproc-per-node 8 tools/train_cls.py configs/imagenet_inceptionv3_best.py

Reproduces: table 6 of Bag of Tricks (arXiv 1812.01187), Inception-V3 (top-1 / top-5): efficient 77.50 / 93.60, + cosine
78.19 / 94.06, + label smoothing 78.40 / 94.13, + mixup without distillation 78.77 / 94.39. With distillation it loses
(78.34 / 94.16), so the teacher is off here. Measured here: unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.imagenet_best import *

model.backbone.update(name="inception_v3", zero_gamma=False)  # no residual blocks
criterion.teacher = None
augment.train.size = 299
augment.test.size = 299
