"""Five backbones on photographs: fruit (boxes; 240 training, 60 test images) and CamVid (masks; 367 and 233).

    tools/rank_backbones.py configs/rank/fruit_camvid.py --jobs 2 \\
        --data detection.train=FRUIT/train detection.test=FRUIT/test segmentation=CAMVID

FRUIT is github.com/chanjianliu/fruit_recognition, CAMVID the folder of configs/camvid_fcn_lite0.py. The MobileNets'
weights are Coral's, dequantised, in timm's key names, at weights/ of the current folder (others: --backbones, or
edit this file). Measured here: docs/results.md.
"""

from backbones.slim_mobilenet import SlimMobileNet
from transfer.data.sample_dataset import SampleClassification

_common = {
    "data.val": None,  # the last checkpoint is measured; the lr is chosen on a part held out of the training images
    "training.evaluate_every": 0,
    "training.preflight": False,
    "schedule.iterations": 20,  # of warm-up: the search's runs have 96 and 73
    "loader.workers": 0,
}
tasks = {
    "detection": dict(
        config="configs/xml_folder_yolov3_lite0.py",
        root=dict(train="data/fruit/train", test="data/fruit/test"),
        changes={**_common, "training.epochs": 8, "augment.train.size": 160, "augment.test.size": 160},
    ),
    "segmentation": dict(
        config="configs/camvid_fcn_lite0.py",
        root="data/camvid",
        changes={**_common, "training.epochs": 4, "augment.train.base": 320, "augment.train.crop": 192},
    ),
}
_coral = "weights/coral_mobilenet_v1_{}_quant_timm.pth"
_dense = {"segmentation": {"model.backbone.output_stride": 16}}
_source = "TensorFlow Slim's table of MobileNet-v1, quantised, at the resolution of the pretraining"
backbones = [
    dict(name="lite0", top1=75.1, top1_source="EfficientNet-Lite0 as its authors published it"),
    dict(
        name="mobilenet 0.5",
        changes={
            "model.backbone": dict(
                type=SlimMobileNet, width=0.5, weights=_coral.format("0.5_160"), norm="frozen", frozen_stages=1
            )
        },
        changes_by_task=_dense,
        top1=57.7,
        top1_source=_source,
    ),
    dict(
        name="mobilenet 0.25",
        changes={
            "model.backbone": dict(
                type=SlimMobileNet, width=0.25, weights=_coral.format("0.25_128"), norm="frozen", frozen_stages=1
            )
        },
        changes_by_task=_dense,
        top1=39.9,
        top1_source=_source,
    ),
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
                "training.evaluate_every": 0,
                "training.preflight": False,
                "loader.workers": 0,
            },
        ),
    ),
    dict(name="lite0 random", arm="random"),
]
search = dict(factors=(0.3, 1.0, 3.0), seed=0, budget=0.5, held_out=0.2)
seeds = 3
