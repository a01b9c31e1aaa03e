"""The teacher of configs/ablations/bot_small.py: ResNet-26-D at full width, with the refinements but distillation.

    tools/train_cls.py configs/class_folder_r26_teacher.py --data FOLDER

Measured here: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .class_folder_r14 import *

from transfer.augment.image_mixing import ImageMixup

model.backbone.model_options = {}
criterion.label_smoothing = 0.1
loader.blend = dict(type=ImageMixup, alpha=0.2)
schedule = dict(type=WarmUp, epochs=1, then=dict(type=Cosine))
training.update(epochs=24, evaluate_every=0)
