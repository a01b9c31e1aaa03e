"""Three backbones on the embedded sample, detection and segmentation, three seeds, on a CPU: `make demo-rank`.

    tools/rank_backbones.py configs/rank/sample.py --jobs 2

EfficientNet-Lite0 with its ImageNet weights, the same from random values, and a small ResNet-26-D that is grown first,
on the sample's crops of single objects. Nothing is downloaded. The runs are so short that they rank the backbones for
short runs on few images alone. Measured here: docs/results.md.
"""

from transfer.data.sample_dataset import SampleClassification

_short = {
    "training.epochs": 4,
    "schedule.iterations": 10,  # of warm-up: the search's runs have 64
    "training.preflight": False,
    "training.pictures": 0,
    "training.checkpoint_every": 0,
    "data.train.limit": 320,
    "data.test.limit": 160,
}
tasks = {
    "detection": dict(
        config="configs/sample_yolov3_lite0.py",
        changes={**_short, "augment.train.size": 160, "augment.test.size": 160},
    ),
    "segmentation": dict(
        config="configs/sample_fcn_lite0.py",
        changes={**_short, "augment.train.base": 224, "augment.train.crop": 128},
    ),
}
backbones = [
    dict(
        name="lite0",
        description="EfficientNet-Lite0, ImageNet weights",
        top1=75.1,
        top1_source="EfficientNet-Lite0 as its authors published it",
    ),
    dict(name="lite0 random", arm="random", description="EfficientNet-Lite0 from random values"),
    dict(
        name="resnet26d grown",
        description="ResNet-26-D of one block a stage and half the width, grown on 14 classes of drawn crops",
        timm="resnet26d",
        model_options={"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]},
        norm="batch",
        changes={"model.backbone.frozen_stages": 0},
        grow=dict(
            config="configs/class_folder_r14.py",
            changes={
                "data.train": dict(type=SampleClassification, split="train"),
                "data.test": dict(type=SampleClassification, split="val"),
                "training.epochs": 4,
                "training.evaluate_every": 0,
                "training.preflight": False,
                "loader.workers": 0,
            },
        ),
    ),
]
search = dict(factors=(0.3, 1.0, 3.0), seed=0, budget=0.5, held_out=0.2)
seeds = 3
