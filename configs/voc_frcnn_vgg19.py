"""Faster R-CNN on VGG-19 with its fc6 and fc7 as the box head, PASCAL VOC: train 07+12 trainval, test 07 test.

    tools/train_det.py configs/voc_frcnn_vgg19.py                       one GPU
    torchrun --nproc-per-node 4 tools/train_det.py configs/voc_frcnn_vgg19.py

The devkits lie in data/VOCdevkit/VOC2007 and VOC2012 (or --data FOLDER). The weights come from timm's hub
(vgg19); offline, give a file in timm's names: --cfg-options model.backbone.weights=FILE.

Reproduces: Faster R-CNN of Ren et al. 2015 (arXiv 1506.01497) with VGG, the deeper of its two common forms: features up
to conv5_4 at stride 16, RPN of 512 channels, 7x7 regions, pretrained fc6 and fc7 with dropout 0.5, conv1 and conv2
frozen; image sizes, proposals, losses, lr and length are those of voc_frcnn_r50d.py, so that the backbones compare.
Published: none with VGG-19. With VGG-16 on the same data: 73.2 mAP (the authors' repository), 76.4 AP50 by COCO's
scoring (Cascade R-CNN's repository, 4 images on each of 2 GPUs). Measured here: unmeasured (needs a GPU and the data).
Differs from the paper: VGG-19; RoIAlign instead of RoI max pooling; anchors at five scales from 32 px instead of three
from 128; joint training.
"""

from mmengine.config import read_base

with read_base():
    from .voc_frcnn_r50d import *

from backbones.timm_backbone import TimmBackbone

model.backbone = dict(
    type=TimmBackbone, name="vgg19", weights="timm", classifier_layers=True, norm="frozen", frozen_stages=2
)
model.roi_cells = 7
