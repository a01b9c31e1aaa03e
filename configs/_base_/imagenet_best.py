"""All refinements of Bag of Tricks (arXiv 1812.01187, section 5) upon its efficient training.

Each line can be taken back alone. With mixup the paper trains 200 epochs instead of 120.
"""

from mmengine.config import read_base

with read_base():
    from .imagenet_efficient import *

from transfer.augment.image_mixing import ImageMixup
from transfer.optim.schedules import Cosine
from transfer.teacher import CheckpointTeacher

schedule = dict(type=WarmUp, epochs=5, then=dict(type=Cosine))
criterion.label_smoothing = 0.1
criterion.teacher = dict(type=CheckpointTeacher, path="weights/imagenet_r152d_mixup.pth")
loader.blend = dict(type=ImageMixup, alpha=0.2)
training.epochs = 200
