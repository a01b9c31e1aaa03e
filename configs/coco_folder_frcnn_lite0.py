"""A light Faster R-CNN on your own data in COCO's JSON format.

    tools/train_det.py configs/coco_folder_frcnn_lite0.py --cfg-options \
        data.train.annotations=TRAIN.json data.train.images=FOLDER \
        data.test.annotations=TEST.json data.test.images=FOLDER
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_frcnn_lite0 import *

from transfer.data.coco import COCODataset
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP

data = dict(
    train=dict(type=COCODataset, annotations="data/annotations/train.json", images="data/train"),
    val=0.1,  # held out from train, to choose the best checkpoint by
    test=dict(type=COCODataset, annotations="data/annotations/test.json", images="data/test"),
)
metrics = [dict(type=COCOMeanAP), dict(type=VOCMeanAP, protocol="voc_area")]
