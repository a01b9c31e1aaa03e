"""A small ResNet grown from random values on folders of images, one folder a class, by the efficient recipe of BoT.

    tools/train_cls.py configs/class_folder_r14.py --data FOLDER

Four bottlenecks of half the usual width (ResNet-26 with one block a stage), 96 px. The refinements of Bag of Tricks
(arXiv 1812.01187) one by one: tools/ablate.py configs/ablations/bot_small.py. As a backbone for train_det and
train_seg:

    backbone=dict(type=TimmBackbone, name="resnet26d", model_options=..., weights="runs/class_folder_r14/001/last.pth")

with the model_options below. Measured here: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.light_classifier import *

from transfer.data.class_folder import ClassFolderDataset
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Step

data = dict(
    train=dict(type=ClassFolderDataset, root="data/my_classes", folder="train"),
    val=None,  # nothing is chosen: the last checkpoint is measured on the test set
    test=dict(type=ClassFolderDataset, root="data/my_classes", folder="test"),
)
model.dropout = 0.0
model.backbone.update(
    name="resnet26d",
    weights=None,
    init="xavier",
    zero_gamma=True,
    model_options={"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]},
)
criterion.update(label_smoothing=0.0, smoothing_form="paper")
augment.train.update(size=96, scale=(0.25, 1.0), pca_noise=0.1)
augment.test.size = 96
loader.update(batch_size=64, test_batch_size=64)
optimizer = dict(
    type=SGD, lr=0.1, base_batch=64, scaling="linear", momentum=0.9, nesterov=True, weight_decay=5e-4,
    decay_norm_and_bias=False, lr_factors={},
)  # fmt: skip
schedule = dict(type=WarmUp, epochs=1, then=dict(type=Step, milestones=[0.5, 0.75, 0.9]))
training.update(epochs=8, evaluate_every=2)
