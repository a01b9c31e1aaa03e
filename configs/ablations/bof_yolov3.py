"""The freebies of Bag of Freebies on a light YOLOv3, one on top of the other, each over seeds.

    tools/ablate.py configs/ablations/bof_yolov3.py --seeds 3
    tools/ablate.py configs/ablations/bof_yolov3.py --seeds 3 --config configs/voc_folder_yolov3_lite0.py --data FOLDER

Reproduces: the ladder of Zhang et al. 2019 (arXiv 1902.04103, as reported) for YOLOv3 on VOC, from 80.25 to 83.68 mAP.
Differs: a light model on EfficientNet-Lite0 at 160 px, by default on the embedded sample, so that a run takes minutes
on two cores; shapes of 128 to 192 px instead of 320 to 608 around 416; mixup off for the last of 12 epochs instead of
the last 20 of 200. The paper's own sizes: bof_yolov3_voc.py. Measured here: docs/results.md.

The baseline has plain batch norm in backbone and neck, steps of the lr at 80 and 90 % of the run, one shape, hard
labels and no mixup; and the augmentation of the config, which the paper counts to its baseline. All arms of the ladder
are made by two processes, so that in the first comparison SyncBN alone differs; where there is a single GPU, SyncBN is
not applicable and the others are made by one.
"""

from transfer.augment.box_mixup import BoxMixup
from transfer.batch.shapes import RandomShapes
from transfer.optim.schedules import Cosine, Step

base = "configs/sample_yolov3_lite0.py"
source = (
    "Zhang et al. 2019, Bag of Freebies (arXiv 1902.04103), YOLOv3 with Darknet-53 on VOC at 416 px, gains as reported "
    "for the ladder"
)
baseline = {
    "augment.train.size": 160,
    "augment.test.size": 160,
    "training.evaluate_every": 0,
    "model.backbone.norm": "batch",
    "model.norm": "batch",
    "loader.shapes": None,
    "loader.mixup": None,
    "schedule.then": dict(type=Step, milestones=[0.8, 0.9], gamma=0.1),
    "criterion.label_smoothing": False,
}
rungs = [
    dict(name="SyncBN", changes={"model.backbone.norm": "synchronized"}, published=0.56, processes=2),
    dict(
        name="random shapes",
        changes={"loader.shapes": dict(type=RandomShapes, low=128, high=192, step=32, every=10)},
        published=0.42,
    ),
    dict(name="cosine", changes={"schedule.then": dict(type=Cosine)}, published=0.46),
    dict(name="class smoothing", changes={"criterion.label_smoothing": True}, published=0.45),
    dict(
        name="mixup",
        changes={"loader.mixup": dict(type=BoxMixup, alpha=1.5, last_epochs_without=1)},
        published=1.54,
    ),
]
