"""YOLOv3 on Darknet-53 with the bag of freebies, COCO: train2017, test val2017 at 416 px.

    tools/train_det.py configs/coco_yolov3_darknet53.py                      one GPU
    torchrun --nproc-per-node 8 tools/train_det.py configs/coco_yolov3_darknet53.py

COCO lies in data/coco: annotations/instances_train2017.json, train2017/ and the same of val2017. Less memory:
training.accumulate=8. At another size: augment.test.size=608 (tools/evaluate.py keeps a checkpoint's own).

Reproduces: Bag of Freebies (arXiv 1902.04103): AP 33.6 at 320 px, 36.0 at 416, 37.0 at 608, against 28.2, 31.0 and
33.0 without the freebies. Recipe read in GluonCV: as configs/voc_yolov3_darknet53.py, which says how each freebie is
switched off, with 280 epochs, warm-up of 2, and lr / 10 at 220 and 250 where it is not a cosine. Measured here:
unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from .voc_yolov3_darknet53 import *

from transfer.data.coco import COCODataset
from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.voc_map import VOCMeanAP

_root = "data/coco"
data = dict(
    train=dict(
        type=COCODataset, annotations=f"{_root}/annotations/instances_train2017.json", images=f"{_root}/train2017"
    ),
    val=None,
    test=dict(type=COCODataset, annotations=f"{_root}/annotations/instances_val2017.json", images=f"{_root}/val2017"),
)
schedule.epochs = 2
training.update(epochs=280)
metrics = [dict(type=COCOMeanAP), dict(type=VOCMeanAP, protocol="voc_area")]
