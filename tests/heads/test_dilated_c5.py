"""Dilated C5: one map of stride 16, two fully connected layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detector_builders import make_target, noise_images
from learning_by_heart import SIZE, drawn_images, measured, train_on
from torch import nn

from backbones.contract import Backbone
from backbones.timm_backbone import TimmBackbone
from transfer.heads.box_head import BoxCriterion
from transfer.heads.dilated_c5 import LastLevel, faster_rcnn_c5
from transfer.heads.faster_rcnn import FasterRCNN, FasterRCNNCriterion, FasterRCNNPostprocess
from transfer.heads.rpn import RPNCriterion
from transfer.types import Target, UserError

NARROW = {"channels": [16, 32, 64, 128], "zero_init_last": False}


def narrow_resnet(output_stride: int = 16) -> TimmBackbone:
    return TimmBackbone("resnet10t", output_stride=output_stride, norm="frozen", model_options=NARROW)


def small_c5(backbone: Backbone | None = None, *, num_classes: int = 3, **options: Any) -> FasterRCNN:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "head_width": 64,
        "rpn_width": 64,
        "anchor_scales": (2.0, 4.0),
        "proposals_before_nms": (100, 100),
        "proposals": (100, 50),
        "rois": 16,
    }
    return faster_rcnn_c5(backbone or narrow_resnet(), num_classes, **{**settings, **options})


def two_targets() -> list[Target]:
    return [
        make_target([[10, 10, 60, 70], [70, 5, 120, 40]], [0, 2], seed=1),
        make_target([[20, 30, 50, 60]], [1], seed=2),
    ]


def make_criterion() -> FasterRCNNCriterion:
    return FasterRCNNCriterion(rpn=RPNCriterion(), box=BoxCriterion())


def test_shapes_and_counts() -> None:
    model, images = small_c5().eval(), noise_images(2)
    output = model(images, [SIZE] * 2)
    cells = (96 // 16) * (128 // 16)
    assert output.objectness.shape == (2, cells * 2 * 3)  # two scales, three ratios
    assert output.class_logits.shape == (100, 4)
    assert output.box_deltas.shape == (100, 3, 4)
    (last,) = model.neck(model.backbone(images))
    assert torch.equal(last, model.backbone(images)[-1])
    assert model.roi_pool([last], output.regions).shape == (100, 128, 7, 7)
    assert model.box_head.layers[1].in_features == 128 * 7 * 7
    learning = model(images, [SIZE] * 2, two_targets())
    assert [len(x) for x in learning.regions] == [16, 16]
    assert (learning.region_targets.labels >= 0).sum() <= 2 * 4  # a quarter of 16


def test_a_backbone_that_is_not_dilated_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"last map has stride 32.*output_stride=16"):
        small_c5(narrow_resnet(32))


@pytest.mark.parametrize("output_stride", [16, 8])
def test_anchors_do_not_depend_on_how_far_the_backbone_is_dilated(output_stride: int) -> None:
    with torch.device("meta"):
        model = faster_rcnn_c5(narrow_resnet(output_stride), 20)
    (anchors,) = model.anchor_generator([(1, 1)], torch.device("cpu"))
    sides = (anchors[:, 2:] - anchors[:, :2])[1::3]  # of ratio 1
    assert sides.tolist() == [[side, side] for side in (32, 64, 128, 256, 512)]
    center = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert (center == output_stride / 2).all()  # of the first cell
    assert (model.proposer.before_nms, model.proposer.after_nms) == ((12000, 6000), (2000, 300))
    assert (model.sampler.count, model.roi_pool.strides, model.roi_pool.output_size) == (128, (output_stride,), 7)
    assert model.rpn_head.conv.weight.shape == (512, 128, 3, 3)


def test_a_plain_transformer_fits_as_it_is() -> None:
    with torch.device("meta"):
        model = faster_rcnn_c5(TimmBackbone("vit_tiny_patch16_224"), 2)
    assert model.anchor_generator.strides == (16,)
    assert model.neck.width == 192


def test_a_1x1_convolution_narrows_the_map_where_asked() -> None:
    model = small_c5(width=8)
    output = model.eval()(noise_images(1), [SIZE])
    assert model.neck(model.backbone(noise_images(1)))[0].shape == (1, 8, 6, 8)
    assert model.rpn_head.conv.in_channels == 8
    assert output.class_logits.shape[1] == 4
    neck = LastLevel(2, width=1)
    nn.init.constant_(neck.narrow.weight, -1.0)
    (narrowed,) = neck([torch.zeros(1), torch.tensor([1.0, -3.0]).view(1, 2, 1, 1)])
    assert narrowed.item() == 2  # -1 + 3
    (narrowed,) = neck([torch.zeros(1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)])
    assert narrowed.item() == 0


@pytest.mark.parametrize("targets", [two_targets(), [make_target(seed=1), make_target(seed=2)]], ids=["boxes", "none"])
def test_every_parameter_gets_a_gradient(targets: list[Target]) -> None:
    model = small_c5(width=16)
    sum(make_criterion()(model(noise_images(2), [SIZE] * 2, targets), targets).values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), name


def test_an_image_is_found_the_same_alone_and_in_a_batch() -> None:
    model, images = small_c5().eval(), noise_images(2)
    for layer in (model.rpn_head.objectness, model.rpn_head.deltas, model.predictor.logits, model.predictor.deltas):
        nn.init.normal_(layer.weight, std=0.05)
    sizes = [(96, 100), (70, 128)]
    targets = [make_target(size=size) for size in sizes]
    postprocess = FasterRCNNPostprocess(score_threshold=0.1)
    with torch.no_grad():
        together = postprocess(model(images, sizes), targets)
        for image, prediction in enumerate(together):
            part = slice(image, image + 1)
            (alone,) = postprocess(model(images[part], sizes[part]), targets[part])
            assert len(alone.boxes) > 5
            assert torch.equal(alone.labels, prediction.labels)
            torch.testing.assert_close(alone.scores, prediction.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.boxes, prediction.boxes, rtol=0, atol=1e-3)


def test_impossible_options_are_refused_all_at_once() -> None:
    with pytest.raises(UserError, match=r"(?s)width=0.*head_width=1.5.*rpn_width=0.*num_classes=0"):
        small_c5(num_classes=0, width=0, head_width=1.5, rpn_width=0)


@pytest.mark.slow
def test_two_images_are_learnt_by_heart() -> None:
    images, targets = drawn_images()
    model = small_c5()
    losses = train_on(model, make_criterion(), images, targets, steps=120, lr=2e-3)
    assert measured(model, images, targets) == 1.0, losses
