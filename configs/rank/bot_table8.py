"""Table 8 of Bag of Tricks, in full: seven pretrainings of ResNet-50 under Faster R-CNN on PASCAL VOC.

    tools/rank_backbones.py configs/rank/bot_table8.py --data detection=data/VOCdevkit

Grows seven backbones on ImageNet (data/imagenet), then trains configs/voc_frcnn_r50d.py on each. The
published figures are one run each at one lr; here every backbone has its lr searched and three seeds. Published top-1
and mAP (11-point, VOC07 test): 76.14 77.54, 77.16 78.30, 77.91 79.23, 78.34 80.71, 78.67 80.96, 79.16 81.10, 79.29
81.33. Measured here: unmeasured (needs GPUs and the data). Grown backbones of your own, without growing them anew: give
weights="FILE" in place of grow.
"""

from mmengine.config import read_base

with read_base():
    from ._bot_backbones import *

tasks = {"detection": dict(config="configs/voc_frcnn_r50d.py")}
search = dict(factors=(0.3, 1.0, 3.0), seed=0, budget=0.5, held_out=0.2)
seeds = 3
_figures = {
    "B-standard": (76.14, 77.54),
    "D-efficient": (77.16, 78.30),
    "+ cosine": (77.91, 79.23),
    "+ label smoothing": (78.34, 80.71),
    "+ distillation, no mixup": (78.67, 80.96),
    "+ mixup, no distillation": (79.16, 81.10),
    "+ distillation + mixup": (79.29, 81.33),
}
published = [
    dict(source="Bag of Tricks, table 8", task="detection", backbone=_name, top1=_top1, value=_value)
    for _name, (_top1, _value) in _figures.items()
]
