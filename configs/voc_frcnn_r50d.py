"""Faster R-CNN (C4) on ResNet-50-D, PASCAL VOC: train 07+12 trainval, test 07 test. The recipe of BoT, table 8.

    tools/train_det.py configs/voc_frcnn_r50d.py                       one GPU
    torchrun --nproc-per-node 4 tools/train_det.py configs/voc_frcnn_r50d.py

The devkits lie in data/VOCdevkit/VOC2007 and VOC2012 (or --data FOLDER). The weights come from timm's hub
(resnet50d); offline, give a file: --cfg-options model.backbone.weights=FILE.

Reproduces: table 8 of Bag of Tricks (arXiv 1812.01187), trained with GluonCV's script and network for VOC: stages 1-3
as features, stage 4 as the box head on 14x14 regions; short side 600, long side at most 1000, flip only; difficult
objects trained on; NMS 0.3; stem and first stage frozen, all BN frozen; SGD, momentum 0.9, no warm-up, weight decay
5e-4, 20 epochs, lr /10 at 14 (and at 20, which is the end). The lr is 0.001 at a base batch of 1 image, so 0.004 at the
4 images of a step here, one on each of 4 GPUs as in the published run; the script itself leaves it at 0.001 for any
number of GPUs: optimizer.scaling=none.
Published: 77.54 mAP with ImageNet weights of ResNet-50-B, 78.30 with ResNet-50-D (efficient recipe), 81.33 with all
refinements in pretraining; 11-point, VOC07 test. Measured here: unmeasured (needs a GPU and the data).
Differs: timm's resnet50d weights are of another ImageNet recipe than any row of the table; anchors are centred on cells
and those across the border are trained on; RoIAlign is aligned by half a pixel; gradients are not clipped (the script:
each element at 5); a seed's difference is about 0.5 mAP.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.faster_rcnn import *

from backbones.named import NamedBackbone
from transfer.augment.presets import two_stage_test, two_stage_train
from transfer.data.voc import VOC_CLASSES, VOCDataset
from transfer.heads.c4 import faster_rcnn_c4
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Step

model = dict(
    type=faster_rcnn_c4,
    backbone=dict(type=NamedBackbone, name="resnet50d", weights="timm", norm="frozen", frozen_stages=2),
    anchor_scales=(2, 4, 8, 16, 32),
    anchor_ratios=(0.5, 1, 2),
    proposals_before_nms=(12000, 6000),
    proposals=(2000, 300),
    proposal_min_side=16,
    rois=128,
    roi_cells=14,
    difficult="train",
)
criterion.rpn.difficult = "train"
criterion.box.beta = 1.0  # where smooth L1 turns linear, as in Fast R-CNN; the RPN's is 1/9
postprocess.update(score_threshold=0.001, nms_iou=0.3)

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
    nesterov=False,
    weight_decay=5e-4,
    decay_norm_and_bias=True,
)
schedule = dict(type=Step, milestones=[0.7], gamma=0.1)  # epoch 14 of 20
training = dict(epochs=20, seed=0, precision="float32", accumulate=1, clip_norm=None, ema=None, evaluate_every=2)
metrics = [
    dict(type=VOCMeanAP, protocol="voc07_11point"),
    dict(type=VOCMeanAP, protocol="voc_area"),
    dict(type=COCOMeanAP),
]
