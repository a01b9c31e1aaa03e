"""FCN on a dilated ResNet-50-D, ADE20K: train on training, test on validation, whole images.

    torchrun --nproc-per-node 4 tools/train_seg.py configs/ade20k_fcn_r50d.py --data FOLDER
    tools/evaluate.py runs/ade20k_fcn_r50d/001/last.pth --tta 0.5 0.75 1 1.25 1.5 1.75      multi-scale and flip

FOLDER is ADEChallengeData2016 (default: data/ADEChallengeData2016). The weights come from timm's hub (resnet50d);
offline, give a file: --cfg-options model.backbone.weights=FILE.

Reproduces: Bag of Tricks (arXiv 1812.01187, table 9): 78.08 pixel accuracy and 37.05 mIoU with the plain ResNet-50-B to
79.25 and 39.33 with ResNet-50-D and cosine; GluonCV has 79.0 and 39.5 with ResNet-50. Recipe read in GluonCV: output
stride 8, base 520, crop 480, long side scaled 0.5 to 2, flip, blur, head lr x 10, dropout 0.1, auxiliary weight 0.5,
SGD lr 0.01 at batch 16, poly 0.9, weight decay 1e-4, 120 epochs, synchronized norm. Measured here: unmeasured (needs
GPUs and the data).
Differs from it: the backbone's weights are timm's; logits and corners are not aligned (transfer/heads/segmentation.py).
"""

from backbones.named import NamedBackbone
from transfer.augment.presets import segmentation_test, segmentation_train
from transfer.data.ade20k import ADE20KDataset
from transfer.heads.fcn import fcn
from transfer.heads.segmentation import SegmentationCriterion, SegmentationPostprocess
from transfer.losses.pixel_cross_entropy import PixelCrossEntropy
from transfer.metrics.mean_iou import MeanIoU
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Poly

task = "segmentation"
model = dict(
    type=fcn,
    backbone=dict(
        type=NamedBackbone,
        name="resnet50d",
        weights="timm",
        output_stride=8,
        norm="synchronized",  # the heads' along with it
    ),
    auxiliary=True,
    dropout=0.1,
    norm="batch",
)
criterion = dict(type=SegmentationCriterion, loss=dict(type=PixelCrossEntropy), auxiliary_weight=0.5)
postprocess = dict(type=SegmentationPostprocess)

_root = "data/ADEChallengeData2016"
data = dict(
    train=dict(type=ADE20KDataset, root=_root, split="training"),
    val=None,  # as in the paper: the last checkpoint is measured on the validation images
    test=dict(type=ADE20KDataset, root=_root, split="validation"),
)
augment = dict(
    train=dict(type=segmentation_train, base=520, crop=480, scale=(0.5, 2.0), flip=0.5, blur=0.5, colour=False),
    test=dict(type=segmentation_test),
)
loader = dict(batch_size=16, test_batch_size=1, workers=8, on_broken="stop")
optimizer = dict(
    type=SGD,
    lr=0.01,
    base_batch=16,
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-4,
    decay_norm_and_bias=True,
    lr_factors={"head": 10.0, "auxiliary_head": 10.0},
)
schedule = dict(type=Poly, power=0.9)
training = dict(epochs=120, seed=0, precision="float32", accumulate=1, clip_norm=None, ema=None, evaluate_every=10)
metrics = [dict(type=MeanIoU, protocol="sceneparsing")]  # as the published figures were scored
