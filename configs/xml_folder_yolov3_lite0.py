"""A light YOLOv3 on images with VOC XML beside them (as labelImg writes it).

tools/train_det.py configs/xml_folder_yolov3_lite0.py --cfg-options data.train.root=TRAIN data.test.root=TEST

Whether the anchors fit your boxes: tools/fit_anchors.py with the same arguments.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_yolov3_lite0 import *

from transfer.data.voc import XMLFolderDataset

data = dict(
    train=dict(type=XMLFolderDataset, root="data/train"),
    val=0.15,  # held out from train, to choose the best checkpoint by
    test=dict(type=XMLFolderDataset, root="data/test"),
)
