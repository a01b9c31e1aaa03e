"""Table 9 of Bag of Tricks, in full: seven pretrainings of ResNet-50 under FCN on ADE20K.

    tools/rank_backbones.py configs/rank/bot_table9.py --data segmentation=data/ADEChallengeData2016

As bot_table8.py, with configs/ade20k_fcn_r50d.py. Published top-1 and mIoU: 76.14 37.05, 77.16 38.88, 77.91 39.33,
78.34 38.75, 78.67 38.90, 79.16 37.99, 79.29 38.40: label smoothing and mixup in pretraining cost mIoU. Measured here:
unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from ._bot_backbones import *

tasks = {"segmentation": dict(config="configs/ade20k_fcn_r50d.py")}
search = dict(factors=(0.3, 1.0, 3.0), seed=0, budget=0.5, held_out=0.2)
seeds = 3
_figures = {
    "B-standard": (76.14, 37.05),
    "D-efficient": (77.16, 38.88),
    "+ cosine": (77.91, 39.33),
    "+ label smoothing": (78.34, 38.75),
    "+ distillation, no mixup": (78.67, 38.90),
    "+ mixup, no distillation": (79.16, 37.99),
    "+ distillation + mixup": (79.29, 38.40),
}
published = [
    dict(source="Bag of Tricks, table 9", task="segmentation", backbone=_name, top1=_top1, value=_value)
    for _name, (_top1, _value) in _figures.items()
]
