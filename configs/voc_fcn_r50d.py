"""FCN on a dilated ResNet-50-D, PASCAL VOC 2012: train on train, test on val, 21 classes, borders ignored.

    torchrun --nproc-per-node 4 tools/train_seg.py configs/voc_fcn_r50d.py --data FOLDER

FOLDER holds VOCdevkit/VOC2012 (default: data/VOCdevkit). The recipe of ade20k_fcn_r50d.py with 50 epochs.

Reproduces: nothing published: the figures in use train on the larger annotations of Hariharan et al. 2011, too, or from
COCO. Measured here: unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from .ade20k_fcn_r50d import *

from transfer.data.voc_segmentation import VOCSegmentation
from transfer.metrics.mean_iou import MeanIoU

_root = "data/VOCdevkit"
data = dict(
    train=dict(type=VOCSegmentation, root=_root, splits="2012_train"),
    val=None,
    test=dict(type=VOCSegmentation, root=_root, splits="2012_val"),
)
training.update(epochs=50)
metrics = [dict(type=MeanIoU)]
