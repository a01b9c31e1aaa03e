"""The efficient training of Bag of Tricks (arXiv 1812.01187, section 3) on ImageNet: batches of 1024 in float16.

Each line is one of the paper's steps, in its order, and can be taken back alone.
"""

from mmengine.config import read_base

with read_base():
    from .imagenet import *

from transfer.optim.schedules import WarmUp

loader.batch_size = 1024  # linear scaling: optimizer.lr is 0.1 at a base batch of 256, so 0.4 here
schedule = dict(type=WarmUp, epochs=5, then=dict(type=Step, milestones=[30, 60, 90], unit="epoch"))  # gradual warm-up
model.backbone.zero_gamma = True  # residual blocks begin as the identity
optimizer.decay_norm_and_bias = False  # weight decay on weights alone
training.precision = "float16"  # with float32 master weights and a scaled loss
