"""Losses and postprocess of Faster R-CNN; every trick off."""

from transfer.heads.box_head import BoxCriterion
from transfer.heads.faster_rcnn import FasterRCNNCriterion, FasterRCNNPostprocess
from transfer.heads.rpn import RPNCriterion

criterion = dict(
    type=FasterRCNNCriterion,
    rpn=dict(type=RPNCriterion, difficult="ignore"),
    box=dict(type=BoxCriterion, label_smoothing=0.0),
)
postprocess = dict(type=FasterRCNNPostprocess, score_threshold=0.05, nms_iou=0.5, max_detections=100)
