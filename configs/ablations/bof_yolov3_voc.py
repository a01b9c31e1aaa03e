"""The ladder of Bag of Freebies in the paper's sizes: YOLOv3 with Darknet-53 on PASCAL VOC at 416 px.

    tools/ablate.py configs/ablations/bof_yolov3_voc.py --seeds 3 --data data/VOCdevkit

Reproduces: Zhang et al. 2019 (arXiv 1902.04103), as reported: baseline 80.25 mAP, + SyncBN 80.81, + random shapes
81.23, + cosine 81.69, + class smoothing 82.14, + mixup 83.68. 18 runs of 200 epochs on two GPUs each; with fewer GPUs
SyncBN is not applicable. Measured here: unmeasured (needs GPUs and the data).
"""

from mmengine.config import read_base

with read_base():
    from .bof_yolov3 import *

base = "configs/voc_yolov3_darknet53.py"
rungs[0].gpus = 2
rungs[1].changes["loader.shapes"].update(low=320, high=608)
rungs[4].changes["loader.mixup"].update(last_epochs_without=20)
