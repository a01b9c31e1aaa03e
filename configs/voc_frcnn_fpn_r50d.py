"""Faster R-CNN with FPN on ResNet-50-D, PASCAL VOC: train 07+12 trainval, test 07 test.

    tools/train_det.py configs/voc_frcnn_fpn_r50d.py                       one GPU
    torchrun --nproc-per-node 4 tools/train_det.py configs/voc_frcnn_fpn_r50d.py

The devkits lie in data/VOCdevkit/VOC2007 and VOC2012 (or --data FOLDER). The weights come from timm's hub
(resnet50d); offline, give a file: --cfg-options model.backbone.weights=FILE.

Reproduces: no paper; the VOC recipe of voc_frcnn_r50d.py (short side 600, long side at most 1000, flip only, lr 0.001
an image, 20 epochs, /10 at 14, weight decay 5e-4, frozen BN) with an FPN (Lin et al. 2017) in place of the C4 head and
what belongs to it: NMS 0.5, 1000 proposals, 512 regions. Warm-up and Nesterov momentum are this config's own, and
difficult objects are ignored in training.
Published for Faster R-CNN with FPN and ResNet-50 on the same data: 79.5 mAP (MMDetection's own four repeats: 80.86,
79.74, 79.85, 80.09). Measured here: unmeasured (needs a GPU and the data).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.faster_rcnn import *

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import two_stage_test, two_stage_train
from transfer.data.voc import VOC_CLASSES, VOCDataset
from transfer.heads.faster_rcnn import faster_rcnn_fpn
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Step, WarmUp

model = dict(
    type=faster_rcnn_fpn,
    backbone=dict(type=TimmBackbone, name="resnet50d", weights="timm", norm="frozen", frozen_stages=2),
    width=256,
    head_width=1024,
    proposals_before_nms=(2000, 1000),
    proposals=(2000, 1000),
    rois=512,
    difficult="ignore",
)

_root = "data/VOCdevkit"
data = dict(
    train=dict(type=VOCDataset, root=_root, splits=["2007_trainval", "2012_trainval"], class_names=VOC_CLASSES),
    val=None,  # as in the papers: the last checkpoint is measured on the test set
    test=dict(type=VOCDataset, root=_root, splits="2007_test", class_names=VOC_CLASSES),
)
augment = dict(
    train=dict(type=two_stage_train, short=600, long_max=1000, flip=0.5),
    test=dict(type=two_stage_test, short=600, long_max=1000),
)
loader = dict(batch_size=4, test_batch_size=1, aspect_grouping=True, workers=4, on_broken="stop")
optimizer = dict(
    type=SGD,
    lr=0.001,
    base_batch=1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    decay_norm_and_bias=True,
)
schedule = dict(
    type=WarmUp,
    iterations=1000,
    start=0.001,
    then=dict(type=Step, milestones=[0.7], gamma=0.1),  # epoch 14 of 20
)
training = dict(epochs=20, seed=0, precision="float32", accumulate=1, clip_norm=None, ema=None, evaluate_every=2)
metrics = [
    dict(type=VOCMeanAP, protocol="voc07_11point"),
    dict(type=VOCMeanAP, protocol="voc_area"),
    dict(type=COCOMeanAP),
]
