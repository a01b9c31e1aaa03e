"""VGG with fc6 and fc7 of its classifier as the box head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detector_builders import make_target, noise_images
from learning_by_heart import SIZE, drawn_images, measured, train_on
from timm.models import vgg
from torch import nn

from backbones import timm_plan
from backbones.timm_backbone import TimmBackbone
from transfer.heads.box_head import BoxCriterion
from transfer.heads.c4 import faster_rcnn_c4
from transfer.heads.cascade import Cascade
from transfer.heads.faster_rcnn import FasterRCNN, FasterRCNNCriterion
from transfer.heads.rpn import RPNCriterion
from transfer.types import UserError

OPTIONS = {"mlp_ratio": 0.05}
HIDDEN = int(4096 * 0.05)


@pytest.fixture(autouse=True)
def tiny_vgg(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """timm's vgg11 with a convolution a stage and few channels."""
    monkeypatch.setitem(vgg.cfgs, "vgg11", [16, "M", 32, "M", 32, "M", 64, "M", 64, "M"])
    timm_plan._plan.cache_clear()
    yield
    timm_plan._plan.cache_clear()


def vgg_detector(*, weights: Path | None = None, roi_cells: int = 7, **options: Any) -> FasterRCNN:
    torch.manual_seed(0)
    backbone = TimmBackbone("vgg11", weights=weights, model_options=OPTIONS, classifier_layers=True)
    settings: dict[str, Any] = {
        "anchor_scales": (2.0, 4.0),
        "proposals_before_nms": (100, 100),
        "proposals": (100, 50),
        "rois": 16,
        "roi_positive_fraction": 0.5,
    }
    return faster_rcnn_c4(backbone, 3, roi_cells=roi_cells, **{**settings, **options})


def make_criterion() -> FasterRCNNCriterion:
    return FasterRCNNCriterion(rpn=RPNCriterion(count=128), box=BoxCriterion())


def test_the_detector_computes_what_the_classifier_did(tmp_path: Path) -> None:
    torch.manual_seed(5)
    classifier = timm.create_model("vgg11", **OPTIONS).eval()
    for parameter in classifier.parameters():  # biases are zeros at first
        nn.init.normal_(parameter, std=0.05)
    torch.save(classifier.state_dict(), tmp_path / "vgg.pth")
    model = vgg_detector(weights=tmp_path / "vgg.pth").eval()
    (features,) = model.backbone(noise_images(1))
    assert features.shape == (1, 64, 6, 8)  # stride 16: no last pooling
    before_pooling = classifier.features[:-1](model.backbone.normalize(noise_images(1)))
    assert torch.equal(features, before_pooling)
    regions = torch.rand(3, 64, 7, 7)
    expected = classifier.pre_logits(regions)
    assert expected.shape == (3, 4096, 1, 1)
    assert expected.std() > 0
    torch.testing.assert_close(model.box_head(regions), expected.flatten(1))


def test_shapes_and_counts() -> None:
    model = vgg_detector()
    targets = [make_target([[10, 10, 60, 70]], [0], seed=1), make_target(seed=2)]
    output = model(noise_images(2), [SIZE] * 2, targets)
    assert output.objectness.shape == (2, 6 * 8 * 6)
    assert [len(x) for x in output.regions] == [16, 16]
    assert model.rpn_head.conv.weight.shape[:2] == (64, 64)
    assert model.box_head.tail.classifier_layers.fc1.weight.shape == (HIDDEN, 64, 7, 7)
    assert model.predictor.logits.weight.shape == (4, 4096)
    sum(make_criterion()(output, targets).values()).backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


def test_half_of_both_layers_is_dropped_in_training_and_nothing_in_test() -> None:
    model = vgg_detector()
    head = model.box_head
    layers = head.tail.classifier_layers
    for layer in (layers.fc1, layers.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.ones_(layer.bias)
    kept = model.train().box_head(torch.zeros(4, 64, 7, 7))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    nn.init.constant_(layers.fc2.weight, 1 / HIDDEN)  # now fc7 is 1 + the mean of fc6's outputs, which are 0 or 2
    nn.init.zeros_(layers.fc2.bias)
    means = head(torch.zeros(50, 64, 7, 7)).amax(dim=1) / 2
    assert means.std() > 0.01
    assert means.mean().item() == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(model.eval().box_head(torch.zeros(2, 64, 7, 7)), torch.ones(2, 4096))


def test_other_regions_than_fc6_reads_are_refused_when_the_detector_is_built() -> None:
    with pytest.raises(UserError, match=r"roi_cells=14.*fc6 of VGG reads 7x7"):
        vgg_detector(roi_cells=14)


def test_every_stage_of_a_cascade_begins_with_the_pretrained_layers() -> None:
    model: Any = vgg_detector(cascade=Cascade())
    layers = [stage.box_head.tail.classifier_layers for stage in model.stages]
    assert len({id(layer.fc1.weight) for layer in layers}) == 3
    assert all(torch.equal(layer.fc1.weight, layers[0].fc1.weight) for layer in layers)


@pytest.mark.slow
def test_two_images_are_learnt_by_heart() -> None:
    images, targets = drawn_images()
    model = vgg_detector()
    losses = train_on(model, make_criterion(), images, targets, steps=120, lr=2e-3)
    assert measured(model, images, targets) == 1.0, losses
