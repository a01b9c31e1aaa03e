"""The refinements of Bag of Tricks on a small ResNet and few images, one on top of the other, each over seeds.

    tools/train_cls.py configs/class_folder_r26_teacher.py --data FOLDER
    mkdir -p weights && cp runs/class_folder_r26_teacher/001/last.pth weights/teacher_r26d.pth
    tools/ablate.py configs/ablations/bot_small.py --seeds 3 --data FOLDER

Reproduces: He et al. 2018 (arXiv 1812.01187), table 5 (forms of ResNet-50) and table 6 (refinements of ResNet-50-D),
top-1 on ImageNet. Differs: a half-width ResNet of four bottlenecks at 96 px, by default on folders of images of your
own, so that a run takes minutes on two cores; a teacher of twice the depth and width, grown on the same
images, with mixup throughout. Measured here: docs/results.md.
"""

from transfer.augment.image_mixing import ImageMixup
from transfer.optim.schedules import Cosine
from transfer.teacher import CheckpointTeacher

base = "configs/class_folder_r14.py"
source = "He et al. 2018, Bag of Tricks (arXiv 1812.01187), tables 5 and 6: ResNet-50 on ImageNet, top-1"
baseline = {
    "training.evaluate_every": 0,
    "model.backbone.name": "resnet26",
    "criterion.label_smoothing": 0.0,
    "criterion.teacher": None,
    "loader.blend": None,
}
rungs = [
    dict(name="form B", changes={"model.backbone.name": "resnet26b"}, published=0.45),
    dict(name="form C", changes={"model.backbone.name": "resnet26c"}, published=0.21),
    dict(name="form D", changes={"model.backbone.name": "resnet26d"}, published=0.29),
    dict(name="cosine", changes={"schedule.then": dict(type=Cosine)}, published=0.75),
    dict(name="label smoothing", changes={"criterion.label_smoothing": 0.1}, published=0.40),
    dict(
        name="distillation",
        changes={"criterion.teacher": dict(type=CheckpointTeacher, path="weights/teacher_r26d.pth")},
        published=0.36,
    ),
    dict(name="mixup", changes={"loader.blend": dict(type=ImageMixup, alpha=0.2)}, published=0.62),
]
