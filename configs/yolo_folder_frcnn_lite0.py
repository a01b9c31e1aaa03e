"""A light Faster R-CNN on your own data in YOLO's text format.

    tools/train_det.py configs/yolo_folder_frcnn_lite0.py --data FOLDER

FOLDER holds data.yaml (train, val, test, names), images/ and labels/; a YAML file of another name can be given itself
(--data FOLDER/fold0.yaml). Without a test set: data.test.splits=val. Without a val set, hold out a part of train:
data.val=0.1.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_frcnn_lite0 import *

from transfer.data.yolo import YOLODataset

_root = "data/my_folder"
data = dict(
    train=dict(type=YOLODataset, root=_root, splits="train"),
    val=dict(type=YOLODataset, root=_root, splits="val"),
    test=dict(type=YOLODataset, root=_root, splits="test"),
)
