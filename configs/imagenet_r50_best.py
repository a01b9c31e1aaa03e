"""ResNet-50-D on ImageNet with the full trick stack of Bag of Tricks: a backbone for train_det and train_seg.

    torchrun --nproc-per-node 8 tools/train_cls.py configs/imagenet_r50_best.py
    tools/train_det.py configs/voc_frcnn_r50d.py --cfg-options \\
        model.backbone.weights=runs/imagenet_r50_best/001/last.pth

The teacher is trained first, with mixup as its student is, and its checkpoint laid at weights/imagenet_r152d_mixup.pth:

    torchrun --nproc-per-node 8 tools/train_cls.py configs/imagenet_r152d_teacher.py

Without one: --cfg-options criterion.teacher=None. Reproduces: table 6 of Bag of Tricks (arXiv 1812.01187),
ResNet-50-D: efficient 77.16 / 93.52, + cosine 77.91 / 93.81, + label smoothing 78.31 / 94.09, + distillation without
mixup 78.67 / 94.36, + mixup without distillation 79.15 / 94.58, + both 79.29 / 94.63 (top-1 / top-5). Measured here:
unmeasured (needs GPUs and the data). Differs: smoothing as the paper prints it, eps / (K - 1), where its script has
eps / K; Xavier as printed, where the script has MSRA-PReLU; the classifier's own weights start at a standard
deviation of 0.01.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.imagenet_best import *

model.backbone.name = "resnet50d"
