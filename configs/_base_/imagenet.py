"""The baseline of Bag of Tricks (arXiv 1812.01187, section 2) on ImageNet; what follows changes single lines.

SGD with Nesterov momentum 0.9 and weight decay 1e-4 on everything, 120 epochs of batches of 256, lr 0.1, /10 at epochs
30, 60 and 90; random resized crop to 224, flip, colour, PCA noise; test: short side 256, centre crop 224; Xavier
initial weights; plain cross entropy; float32.
"""

from backbones.classifier_backbone import ClassifierBackbone
from transfer.augment.classification_presets import classification_test, classification_train
from transfer.data.imagenet import ImageNetDataset
from transfer.heads.classification import ClassificationPostprocess, classifier
from transfer.heads.classification_criterion import ClassificationCriterion
from transfer.metrics.accuracy import Accuracy
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Step

task = "classification"
data = dict(
    train=dict(type=ImageNetDataset, root="data/imagenet", split="train"),
    val=None,  # as in the paper, the last checkpoint is measured on the validation images
    test=dict(type=ImageNetDataset, root="data/imagenet", split="val"),
)
model = dict(
    type=classifier,
    backbone=dict(
        type=ClassifierBackbone,
        name="resnet50",
        weights=None,
        init="xavier",
        zero_gamma=False,
        norm="batch",
        drop_path=0.0,
    ),
    dropout=0.0,
)
criterion = dict(
    type=ClassificationCriterion,
    label_smoothing=0.0,
    smoothing_form="paper",
    teacher=None,
    temperature=20.0,
)
postprocess = dict(type=ClassificationPostprocess)
augment = dict(
    train=dict(type=classification_train, size=224, colour=0.4, pca_noise=0.1),
    test=dict(type=classification_test, size=224),
)
loader = dict(batch_size=256, test_batch_size=128, workers=8, on_broken="stop", shapes=None, blend=None, order=None)
optimizer = dict(
    type=SGD, lr=0.1, base_batch=256, scaling="linear", momentum=0.9, nesterov=True, weight_decay=1e-4,
    decay_norm_and_bias=True, lr_factors={},
)  # fmt: skip
schedule = dict(type=Step, milestones=[30, 60, 90], unit="epoch")
training = dict(
    epochs=120, seed=0, precision="float32", accumulate=1, clip_norm=None, ema=None, evaluate_every=1, log_every=100
)
metrics = [dict(type=Accuracy)]
