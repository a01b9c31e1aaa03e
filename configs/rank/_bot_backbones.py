"""The seven pretrainings of ResNet-50 that tables 8 and 9 of Bag of Tricks compare, as recipes of this project.

Source: He et al. 2018 (arXiv 1812.01187), tables 4 to 6 for the recipes, 8 and 9 for top-1. Distillation needs the
teacher's checkpoint, trained first (configs/imagenet_r152d_teacher.py): without mixup at weights/imagenet_r152d.pth,
with mixup at weights/imagenet_r152d_mixup.pth.
"""

from transfer.optim.schedules import Cosine
from transfer.teacher import CheckpointTeacher

_form_d = {"model.backbone.name": "resnet50d"}
_efficient = "configs/imagenet_r50_efficient.py"
_cosine = {**_form_d, "schedule.then": dict(type=Cosine)}
_smoothed = {**_cosine, "criterion.label_smoothing": 0.1}
_taught = {**_smoothed, "criterion.teacher": dict(type=CheckpointTeacher, path="weights/imagenet_r152d.pth")}
_source = "He et al. 2018, Bag of Tricks (arXiv 1812.01187), tables 8 and 9"
backbones = [
    dict(
        name="B-standard",
        changes={"model.backbone.name": "resnet50b"},
        grow=dict(config="configs/imagenet_r50_baseline.py", changes={"model.backbone.name": "resnet50b"}),
        top1=76.14,
        top1_source=_source,
    ),
    dict(
        name="D-efficient",
        grow=dict(config=_efficient, changes=_form_d),
        top1=77.16,
        top1_source=_source,
        adds_to="B-standard",
    ),
    dict(
        name="+ cosine",
        grow=dict(config=_efficient, changes=_cosine),
        top1=77.91,
        top1_source=_source,
        adds_to="D-efficient",
    ),
    dict(
        name="+ label smoothing",
        grow=dict(config=_efficient, changes=_smoothed),
        top1=78.34,
        top1_source=_source,
        adds_to="+ cosine",
    ),
    dict(
        name="+ distillation, no mixup",
        grow=dict(config=_efficient, changes=_taught),
        top1=78.67,
        top1_source=_source,
        adds_to="+ label smoothing",
    ),
    dict(
        name="+ mixup, no distillation",
        grow=dict(config="configs/imagenet_r50_best.py", changes={"criterion.teacher": None}),
        top1=79.16,
        top1_source=_source,
        adds_to="+ label smoothing",
    ),
    dict(
        name="+ distillation + mixup",
        grow=dict(config="configs/imagenet_r50_best.py"),
        top1=79.29,
        top1_source=_source,
        adds_to="+ mixup, no distillation",
    ),
]
