"""ResNet-50-D on Places365 with the full trick stack of Bag of Tricks.

    torchrun --nproc-per-node 8 tools/train_cls.py configs/places365_r50_best.py

The small images (256 px) lie in data/places365/data_256 and val_256 beside the lists (or --data FOLDER). The teacher
is trained first: configs/imagenet_r152d_teacher.py with the data of this file, its checkpoint at
weights/places365_r152d_mixup.pth. Reproduces: table 7 of Bag of Tricks (arXiv 1812.01187), validation top-1 / top-5:
efficient 56.34 / 86.87, best 56.70 / 87.33. Measured here: unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.imagenet_best import *

from transfer.data.image_list import Places365Dataset

data = dict(
    train=dict(type=Places365Dataset, root="data/places365", split="train"),
    val=None,
    test=dict(type=Places365Dataset, root="data/places365", split="val"),
)
model.backbone.name = "resnet50d"
criterion.teacher.path = "weights/places365_r152d_mixup.pth"
