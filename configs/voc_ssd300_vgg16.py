"""SSD300 on VGG-16, PASCAL VOC: train 07+12 trainval, test 07 test at 300 px.

    tools/train_det.py configs/voc_ssd300_vgg16.py                       one GPU
    torchrun --nproc-per-node 4 tools/train_det.py configs/voc_ssd300_vgg16.py

The devkits lie in data/VOCdevkit/VOC2007 and VOC2012 (or --data FOLDER). The weights come from timm's hub
(vgg16); offline, give a file in timm's names: --cfg-options model.backbone.weights=FILE.

Reproduces: SSD300* of Liu et al. 2016 (arXiv 1512.02325), with zooming out: 77.2 mAP (the authors' repository, which
says of its current code "77.*"); 77.5 for the authors' model in DSSD (arXiv 1701.06659, as reported). Others: GluonCV
77.6, MMDetection 77.8 (240 epochs) and 76.5 (its later version, 120 epochs). Without zooming out 74.3
(augment.train.expand=0), the paper's first version. Recipe read in the authors' code: batch 32, lr 0.001 to 80,000
iterations, /10 to 100,000 and /10 again to 120,000, momentum 0.9, weight decay 5e-4, none on biases, difficult objects
trained on. Measured here: unmeasured (needs a GPU and the data).
Differs from it: VGG-16's weights are timm's (torchvision's training, not Caffe's), and fc6 and fc7 are thinned out from
those; biases have the lr of weights, not twice that; training images keep one interpolation; the 2000 best boxes of all
classes together enter NMS, not 400 of each.
"""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import one_stage_train, square_test
from transfer.data.voc import VOC_CLASSES, VOCDataset
from transfer.heads.ssd import ssd
from transfer.heads.ssd_criterion import SSDCriterion
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Step

model = dict(
    type=ssd,
    backbone=dict(type=TimmBackbone, name="vgg16", weights="timm", out_strides=[8, 16], classifier_layers=True),
    image_size=300,
    aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    scales=[0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],  # squares of 30, 60, 111, 162, 213 and 264 px; then 315
    l2_norm="finest",
    fc_width=1024,
    unpadded_extras=2,  # conv10_2 and conv11_2: 5 cells to 3 to 1
)
criterion = dict(
    type=SSDCriterion,
    iou=0.5,
    negatives_per_positive=3,
    difficult="train",  # as in the released code; this project's default is ignore
)
postprocess = dict(type=SSDPostprocess, score_threshold=0.01, before_nms=2000, nms_iou=0.45, max_detections=200)

_root = "data/VOCdevkit"
data = dict(
    train=dict(type=VOCDataset, root=_root, splits=["2007_trainval", "2012_trainval"], class_names=VOC_CLASSES),
    val=None,  # as in the paper: the last checkpoint is measured on the test set
    test=dict(type=VOCDataset, root=_root, splits="2007_test", class_names=VOC_CLASSES),
)
augment = dict(
    train=dict(type=one_stage_train, size=300, colour=True, expand=0.5, crop=1.0, flip=0.5),
    test=dict(type=square_test, size=300),
)
loader = dict(
    batch_size=32,
    test_batch_size=8,
    size_divisor=1,  # 300 px are not padded to 320
    workers=8,
    on_broken="stop",
)
optimizer = dict(
    type=SGD, lr=0.001, base_batch=32, momentum=0.9, nesterov=False, weight_decay=5e-4, decay_norm_and_bias=False
)
schedule = dict(type=Step, milestones=[2 / 3, 5 / 6])
training = dict(
    iterations=120_000, seed=0, precision="float32", accumulate=1, clip_norm=None, ema=None, evaluate_every=20
)
metrics = [
    dict(type=VOCMeanAP, protocol="voc07_11point"),
    dict(type=VOCMeanAP, protocol="voc_area"),
    dict(type=COCOMeanAP),
]
