"""C4: the backbone's last stage as the box head, against the uncut backbone and hand-computed numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detector_builders import make_target, noise_images
from learning_by_heart import SIZE, drawn_images, measured, train_on
from torch import nn
from torch.nn import functional

from backbones.contract import BackboneError
from backbones.named import NamedBackbone
from backbones.timm_backbone import TimmBackbone
from transfer.heads.box_head import BoxCriterion
from transfer.heads.c4 import faster_rcnn_c4
from transfer.heads.faster_rcnn import FasterRCNN, FasterRCNNCriterion, FasterRCNNPostprocess
from transfer.heads.rpn import RPNCriterion
from transfer.optim.param_groups import parameter_groups
from transfer.types import Target, UserError

NARROW = {"channels": [16, 32, 64, 128], "zero_init_last": False}


def narrow_resnet(**options: Any) -> TimmBackbone:
    return TimmBackbone("resnet10t", **{"norm": "frozen", "model_options": NARROW, **options})


def small_c4(num_classes: int = 3, *, seed: int = 0, backbone: Any = None, **options: Any) -> FasterRCNN:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "anchor_scales": (2.0, 4.0),
        "proposals_before_nms": (100, 100),
        "proposals": (100, 50),
        "rois": 16,
        "roi_cells": 7,
    }
    return faster_rcnn_c4(backbone or narrow_resnet(), num_classes, **{**settings, **options})


def two_targets(**options: Any) -> list[Target]:
    return [
        make_target([[10, 10, 60, 70], [70, 5, 120, 40]], [0, 2], seed=1, **options),
        make_target([[20, 30, 50, 60]], [1], seed=2),
    ]


def make_criterion() -> FasterRCNNCriterion:
    return FasterRCNNCriterion(rpn=RPNCriterion(), box=BoxCriterion())


# ---- the parts ----


def test_shapes_and_counts() -> None:
    model, images = small_c4(roi_cells=14).eval(), noise_images(2)
    cells = (96 // 16) * (128 // 16)
    output = model(images, [SIZE] * 2)
    assert output.objectness.shape == (2, cells * 2 * 3)  # two scales, three ratios
    assert output.anchors.shape == (cells * 6, 4)
    assert [len(x) for x in output.regions] == [50, 50]
    assert output.class_logits.shape == (100, 4)
    assert output.box_deltas.shape == (100, 3, 4)
    (features,) = model.backbone(images)
    pooled = model.roi_pool([features], output.regions)
    assert pooled.shape == (100, 64, 14, 14)
    assert model.box_head.tail(pooled).shape == (100, 128, 7, 7)
    assert model.box_head(pooled).shape == (100, 128)
    learning = model(images, [SIZE] * 2, two_targets())
    assert [len(x) for x in learning.regions] == [16, 16]
    assert (learning.region_targets.labels >= 0).sum() <= 2 * 4  # a quarter of 16


def test_the_defaults_are_those_of_the_table() -> None:
    with torch.device("meta"):
        model = faster_rcnn_c4(NamedBackbone("resnet50d"), 20)
    (anchors,) = model.anchor_generator([(1, 1)], torch.device("cpu"))
    assert len(anchors) == 15
    sides = (anchors[:, 2:] - anchors[:, :2]).view(5, 3, 2)  # [scale, ratio, (width, height)]
    assert sides[:, 1].tolist() == [[side, side] for side in (32, 64, 128, 256, 512)]  # 16 px times 2 to 32
    torch.testing.assert_close(sides[..., 1] / sides[..., 0], torch.tensor([[0.5, 1, 2]] * 5))
    proposer, sampler = model.proposer, model.sampler
    assert (proposer.before_nms, proposer.after_nms, proposer.nms_iou) == ((12000, 6000), (2000, 300), 0.7)
    assert (sampler.count, sampler.positive_fraction, sampler.iou) == (128, 0.25, 0.5)
    assert (model.roi_pool.strides, model.roi_pool.output_size) == ((16,), 14)
    assert model.rpn_head.conv.weight.shape == (1024, 1024, 3, 3)
    assert model.predictor.deltas.weight.shape == (4 * 20, 2048)
    rpn = RPNCriterion()
    assert (rpn.count, rpn.high, rpn.low) == (256, 0.7, 0.3)


@pytest.mark.parametrize(
    ("name", "channels", "width"),
    [
        ("resnet50", 1024, 2048),
        ("resnet50b", 1024, 2048),
        ("resnet50c", 1024, 2048),
        ("resnet18d", 256, 512),
        ("darknet53", 512, 1024),
    ],
)
def test_backbones_that_can_be_cut(name: str, channels: int, width: int) -> None:
    with torch.device("meta"):
        backbone = NamedBackbone(name)
        parameters = sum(p.numel() for p in backbone.parameters())
        model = faster_rcnn_c4(backbone, 2)
        (features,) = model.backbone(torch.empty(1, 3, 96, 128, device="meta"))
        assert features.shape == (1, channels, 6, 8)
        assert model.box_head.tail(features).shape == (1, width, 3, 4)
    of_the_backbone = [*model.backbone.parameters(), *model.box_head.parameters()]
    assert sum(p.numel() for p in of_the_backbone) == parameters


def give_random_statistics(backbone: TimmBackbone) -> None:
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)


@pytest.mark.parametrize("arguments", [{"name": "resnet10t", "model_options": NARROW}, {"name": "darknet17"}])
def test_pretrained_body_then_tail_is_the_uncut_backbone(arguments: dict[str, Any], tmp_path: Path) -> None:
    source = TimmBackbone(**arguments)
    give_random_statistics(source)
    full_names = {key.removeprefix("body."): value for key, value in source.state_dict().items()}
    torch.save(full_names, tmp_path / "weights.pth")
    torch.manual_seed(1)
    model = faster_rcnn_c4(TimmBackbone(**arguments, weights=tmp_path / "weights.pth", norm="frozen"), 2).train()
    whole = source.eval()(noise_images(1))
    (features,) = model.backbone(noise_images(1))
    assert torch.equal(features, whole[-2])
    assert torch.equal(model.box_head.tail(features), whole[-1])


# ---- training ----


def test_what_is_frozen_stays_frozen_on_both_sides_of_the_cut() -> None:
    backbone = narrow_resnet(frozen_stages=2)
    give_random_statistics(backbone)
    model = small_c4(backbone=backbone).train()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert any(name.startswith("backbone.") for name in norms)
    assert any(name.startswith("box_head.tail.layer4.") for name in norms)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.01)
    targets = two_targets()
    sum(make_criterion()(model(noise_images(2), [SIZE] * 2, targets), targets).values()).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not {key for key in changed for name in norms if key.startswith(name + ".")}
    assert not {key for key in changed if key.startswith(("backbone.body.conv1", "backbone.body.layer1"))}
    assert any(key.startswith("backbone.body.layer2") for key in changed)
    assert any(key.startswith("box_head.tail.layer4") for key in changed)


def test_one_lr_factor_for_both_parts_of_the_backbone() -> None:
    backbone = narrow_resnet()
    pretrained = {id(p) for p in backbone.parameters() if p.requires_grad}
    model = small_c4(backbone=backbone)
    groups = parameter_groups(model, lr=1.0, weight_decay=0.0, lr_factors={"backbone": 0.1, "box_head": 0.1})
    slow = {id(p) for group in groups if group["lr"] == pytest.approx(0.1) for p in group["params"]}
    assert slow == pretrained


@pytest.mark.parametrize("targets", [two_targets(), [make_target(seed=1), make_target(seed=2)]], ids=["boxes", "none"])
def test_every_parameter_gets_a_gradient(targets: list[Target]) -> None:
    model = small_c4()
    sum(make_criterion()(model(noise_images(2), [SIZE] * 2, targets), targets).values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), name


def test_mixup_weights_of_one_are_no_weights_and_others_count() -> None:
    model, images = small_c4(), noise_images(2)

    def losses(weights: list[float]) -> tuple[Any, dict[str, torch.Tensor]]:
        targets = two_targets(weights=weights)
        output = model(images, [SIZE] * 2, targets)
        return output, make_criterion()(output, targets)

    output, of_one = losses([1.0, 1.0])
    labels = output.region_targets.labels
    plain = functional.cross_entropy(output.class_logits, labels.where(labels >= 0, torch.tensor(3)))
    torch.testing.assert_close(of_one["loss_class"], plain)
    _, of_less = losses([0.5, 0.5])
    assert all(of_less[name] < of_one[name] for name in of_one)


def test_an_image_is_found_the_same_alone_and_in_a_batch() -> None:
    model, images = small_c4().eval(), noise_images(2)
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


def test_no_proposal_gives_no_detection_and_no_error() -> None:
    model = small_c4()
    model.proposer.min_side = 1e6
    output = model.eval()(noise_images(2), [SIZE] * 2)
    assert [len(p.boxes) for p in FasterRCNNPostprocess()(output, [make_target()] * 2)] == [0, 0]
    targets = [make_target(seed=1), make_target(seed=2)]
    losses = make_criterion()(model.train()(noise_images(2), [SIZE] * 2, targets), targets)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.slow
def test_two_images_are_learnt_by_heart() -> None:
    images, targets = drawn_images()
    model = small_c4()
    losses = train_on(model, make_criterion(), images, targets, steps=160, lr=2e-3)
    assert measured(model, images, targets) == 1.0, losses


# ---- mistakes ----


def test_impossible_options_are_refused_all_at_once() -> None:
    with pytest.raises(UserError, match=r"(?s)rpn_width=-1.*roi_cells=0.*num_classes=0"):
        small_c4(0, roi_cells=0, rpn_width=-1)
    with pytest.raises(UserError, match="proposal_min_side=-1"):
        small_c4(proposal_min_side=-1)


def test_backbones_that_do_not_fit_say_what_does() -> None:
    with torch.device("meta"):
        with pytest.raises(BackboneError, match="cannot be cut into body and tail"):
            faster_rcnn_c4(TimmBackbone("mobilenetv3_small_050"), 2)
        with pytest.raises(UserError, match=re.escape("classifier_layers=True")):
            faster_rcnn_c4(TimmBackbone("vgg11", model_options={"mlp_ratio": 0.01}), 2)


def test_the_criterion_of_a_cascade_is_asked_for_by_name() -> None:
    with pytest.raises(UserError, match="CascadeCriterion"):
        make_criterion().check_model(nn.Linear(1, 1))
