"""Table 6 of Bag of Tricks: the refinements of ResNet-50-D on ImageNet.

    tools/ablate.py configs/ablations/bot_table6.py --seeds 3 --data data/imagenet

Published (arXiv 1812.01187, table 6), top-1: efficient 77.16, + cosine 77.91, + label smoothing 78.31, + distillation
without mixup 78.67, + mixup without distillation 79.15, + both 79.29. The ladder's last gain is from distillation
alone to both, with a teacher that was grown with mixup, too; mixup without distillation is configs/imagenet_r50_best.py
with criterion.teacher=None. Inception-V3 and MobileNet: --config
configs/imagenet_inceptionv3_best.py or imagenet_mobilenet_best.py. Differs: the paper trains 200 epochs with mixup;
here all arms have the baseline's 120, so that mixup alone differs. Measured here: unmeasured (needs GPUs and the
data).
"""

from transfer.augment.image_mixing import ImageMixup
from transfer.optim.schedules import Cosine, Step
from transfer.teacher import CheckpointTeacher

base = "configs/imagenet_r50_best.py"
source = "He et al. 2018, Bag of Tricks (arXiv 1812.01187), table 6: ResNet-50-D on ImageNet, top-1"
baseline = {
    "schedule.then": dict(type=Step, milestones=[30, 60, 90], unit="epoch"),
    "criterion.label_smoothing": 0.0,
    "criterion.teacher": None,
    "loader.blend": None,
    "training.epochs": 120,
}
rungs = [
    dict(name="cosine", changes={"schedule.then": dict(type=Cosine)}, published=0.75),
    dict(name="label smoothing", changes={"criterion.label_smoothing": 0.1}, published=0.40),
    dict(
        name="distillation",
        changes={"criterion.teacher": dict(type=CheckpointTeacher, path="weights/imagenet_r152d.pth")},
        published=0.36,
    ),
    dict(
        name="mixup, of student and teacher",
        changes={
            "loader.blend": dict(type=ImageMixup, alpha=0.2),
            "criterion.teacher": dict(type=CheckpointTeacher, path="weights/imagenet_r152d_mixup.pth"),
        },
        published=0.62,
    ),
]
