"""Cascade R-CNN with FPN on ResNet-50-D, PASCAL VOC: train 07+12 trainval, test 07 test.

    tools/train_det.py configs/voc_cascade_r50d.py                       one GPU
    torchrun --nproc-per-node 4 tools/train_det.py configs/voc_cascade_r50d.py

The devkits lie in data/VOCdevkit/VOC2007 and VOC2012 (or --data FOLDER). The weights come from timm's hub
(resnet50d); offline, give a file: --cfg-options model.backbone.weights=FILE.

Reproduces: Cascade R-CNN (Cai and Vasconcelos 2018, arXiv 1712.00726) in three stages at IoU 0.5, 0.6, 0.7 with loss
weights 1, 1/2, 1/4, on the recipe of voc_frcnn_fpn_r50d.py: the two differ in the second stage alone.
Published on this data, by COCO's scoring (the authors' repository), Faster R-CNN or R-FCN -> Cascade: VGG-16 42.9 ->
51.2 AP and 76.4 -> 79.1 AP50; ResNet-50 (R-FCN) 44.8 -> 51.8 and 77.5 -> 78.5. None with FPN and ResNet-50-D.
Measured here: unmeasured (needs a GPU and the data).
Differs from the authors' networks: FPN; the heads of later stages train at the same lr, not at 2 and 4 times it
(optimizer.lr_factors={'stages.1': 2, 'stages.2': 4}).
The same on C4: model.cascade and this criterion in voc_frcnn_r50d.py; each stage then has its own copy of stage 4.
"""

from mmengine.config import read_base

with read_base():
    from .voc_frcnn_fpn_r50d import *

from transfer.heads.cascade import Cascade, CascadeCriterion

model.cascade = dict(type=Cascade, ious=(0.5, 0.6, 0.7))
criterion.update(type=CascadeCriterion, stage_weights=(1.0, 0.5, 0.25))
