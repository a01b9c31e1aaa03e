"""A light SSD on your own data in VOC's layout.

    tools/train_det.py configs/voc_folder_ssd_lite0.py --data FOLDER

FOLDER holds JPEGImages/, Annotations/ and ImageSets/Main/{train,val,test}.txt (or is a devkit with a year's folder).
Class names are found in it; to fix their order: class_names=[...] in each data set. Without a val.txt, hold out a part
of train: data.val=0.1. For another image size set model.image_size along with it.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_ssd_lite0 import *

from transfer.data.voc import VOCDataset

_root = "data/my_folder"
data = dict(
    train=dict(type=VOCDataset, root=_root, splits="train"),
    val=dict(type=VOCDataset, root=_root, splits="val"),
    test=dict(type=VOCDataset, root=_root, splits="test"),
)
