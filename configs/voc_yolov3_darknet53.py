"""YOLOv3 on Darknet-53 with the bag of freebies, PASCAL VOC: train 07+12 trainval, test 07 test at 416 px.

    tools/train_det.py configs/voc_yolov3_darknet53.py                       one GPU
    torchrun --nproc-per-node 4 tools/train_det.py configs/voc_yolov3_darknet53.py

The devkits lie in data/VOCdevkit/VOC2007 and VOC2012 (or --data FOLDER). The weights come from timm's hub
(darknet53); offline, give a file: --cfg-options model.backbone.weights=FILE. Less memory: training.accumulate=8, with
which the norm has the statistics of 8 images instead of 64.

Reproduces: Bag of Freebies (arXiv 1902.04103, as reported): baseline 80.25 mAP; each next line adds one freebie:
synchronized norm 80.81, random shapes 81.23, cosine lr 81.69, class label smoothing 82.14, mixup 83.68. Without the
augmentation 64.26. Switch one off by the option in its comment below. Recipe read in GluonCV: batch 64, lr 0.001,
momentum 0.9, weight decay 5e-4, 200 epochs, warm-up of 4. Measured here: unmeasured (needs GPUs and the data).
Differs from it: the objectness starts at 0.01 (model.objectness_prior=0.5 is the original), Darknet-53's weights are
timm's, and training images keep one interpolation.
"""

from backbones.named import NamedBackbone
from transfer.augment.box_mixup import BoxMixup
from transfer.augment.presets import one_stage_train, square_test
from transfer.batch.shapes import RandomShapes
from transfer.data.voc import VOC_CLASSES, VOCDataset
from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_criterion import YOLOv3Criterion
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Cosine, WarmUp

model = dict(
    type=yolov3,
    backbone=dict(
        type=NamedBackbone,
        name="darknet53",
        weights="timm",
        norm="synchronized",  # freebie, the neck's along with it; off: model.backbone.norm=batch
    ),
    norm="batch",
)
criterion = dict(
    type=YOLOv3Criterion,
    box_loss="paper",
    label_smoothing=True,  # freebie; off: criterion.label_smoothing=False
    difficult="train",  # the published figures trained on difficult objects; this project's default is ignore
)
postprocess = dict(type=YOLOv3Postprocess, score_threshold=0.01, before_nms=400, nms_iou=0.45, max_detections=100)

_root = "data/VOCdevkit"
data = dict(
    train=dict(type=VOCDataset, root=_root, splits=["2007_trainval", "2012_trainval"], class_names=VOC_CLASSES),
    val=None,  # as in the paper: the last checkpoint is measured on the test set
    test=dict(type=VOCDataset, root=_root, splits="2007_test", class_names=VOC_CLASSES),
)
augment = dict(
    # Off, but for the flip: augment.train.colour=False augment.train.expand=0 augment.train.crop=0.
    train=dict(type=one_stage_train, size=416, colour=True, expand=0.5, crop=1.0, flip=0.5),
    test=dict(type=square_test, size=416),
)
loader = dict(
    batch_size=64,
    test_batch_size=8,
    shapes=dict(type=RandomShapes, low=320, high=608, step=32, every=10),  # freebie; off: loader.shapes=None
    mixup=dict(type=BoxMixup, alpha=1.5, last_epochs_without=20),  # freebie; off: loader.mixup=None
    workers=8,
    on_broken="stop",
)
optimizer = dict(
    type=SGD, lr=0.001, base_batch=64, momentum=0.9, nesterov=False, weight_decay=5e-4, decay_norm_and_bias=True
)
schedule = dict(
    type=WarmUp,
    epochs=4,
    # Freebie; off, in the config: then=dict(type=Step, milestones=[0.8, 0.9]), which is /10 at epochs 160 and 180.
    then=dict(type=Cosine),
)
training = dict(epochs=200, seed=0, precision="float32", accumulate=1, clip_norm=None, ema=None, evaluate_every=10)
metrics = [
    dict(type=VOCMeanAP, protocol="voc07_11point"),
    dict(type=VOCMeanAP, protocol="voc_area"),
    dict(type=COCOMeanAP),
]
