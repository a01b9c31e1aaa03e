"""ResNet-152-D on ImageNet, the teacher of Bag of Tricks' distillation: all refinements but the distillation itself.

    torchrun --nproc-per-node 8 tools/train_cls.py configs/imagenet_r152d_teacher.py

For students without mixup: --cfg-options loader.blend=None training.epochs=120. Its accuracy is not in the paper's
tables. Measured here: unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.imagenet_best import *

model.backbone.name = "resnet152d"
criterion.teacher = None
