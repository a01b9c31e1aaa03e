"""The detector as a whole: shapes, batches against single images, gradients, postprocess, two images learnt."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detector_builders import make_target, noise_images, tiny_detector
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads

from transfer.heads.box_head import BoxCriterion
from transfer.heads.faster_rcnn import (
    FasterRCNN,
    FasterRCNNCriterion,
    FasterRCNNOutput,
    FasterRCNNPostprocess,
    faster_rcnn_fpn,
)
from transfer.heads.rpn import RPNCriterion
from transfer.metrics.voc_map import VOCMeanAP
from transfer.ops.boxes import encode_boxes
from transfer.types import Prediction, Record, Target, UserError

SIZE = (96, 128)
ANCHORS = 3 * (24 * 32 + 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2)
LOSSES = ["loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"]
CODE = (10.0, 10.0, 5.0, 5.0)


def make_criterion(count: int = 10**6) -> FasterRCNNCriterion:
    return FasterRCNNCriterion(rpn=RPNCriterion(count=count), box=BoxCriterion())


def excited(model: FasterRCNN) -> FasterRCNN:
    """The model with outputs far apart, so that rounding does not change what is suppressed."""
    for layer in (model.rpn_head.objectness, model.rpn_head.deltas, model.predictor.logits, model.predictor.deltas):
        nn.init.normal_(layer.weight, std=0.5)
    return model


def two_targets() -> list[Target]:
    return [
        make_target([[10, 10, 60, 70], [70, 5, 120, 40]], [0, 2], seed=1),
        make_target([[20, 30, 50, 60]], [1], seed=2),
    ]


# ---- the model ----


@pytest.mark.parametrize("num_classes", [1, 3])
def test_shapes_in_test(num_classes: int) -> None:
    output = tiny_detector(num_classes).eval()(noise_images(2), [SIZE] * 2)
    assert output.objectness.shape == (2, ANCHORS)
    assert output.anchor_deltas.shape == (2, ANCHORS, 4)
    assert output.anchors.shape == (ANCHORS, 4)
    regions = sum(len(x) for x in output.regions)
    assert [len(x) for x in output.regions] == [50, 50]
    assert output.class_logits.shape == (regions, num_classes + 1)
    assert output.box_deltas.shape == (regions, num_classes, 4)
    assert output.region_targets is None


@pytest.mark.parametrize("num_classes", [1, 3])
def test_shapes_in_training(num_classes: int) -> None:
    targets = two_targets()
    for target in targets:
        target.labels %= num_classes
    model = tiny_detector(num_classes)
    output = model(noise_images(2), [SIZE] * 2, targets)
    assert [len(x) for x in output.regions] == [16, 16]
    assert output.class_logits.shape == (32, num_classes + 1)
    assert output.box_deltas.shape == (32, num_classes, 4)
    assert output.region_targets is not None
    assert len(output.region_targets.labels) == 32
    assert (output.region_targets.labels >= 0).sum() >= 3  # the truth boxes at the least
    losses = make_criterion()(output, targets)
    assert list(losses) == LOSSES
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())


def test_an_untrained_detector_starts_undecided() -> None:
    output = tiny_detector(3)(noise_images(2), [SIZE] * 2, two_targets())
    losses = make_criterion()(output, two_targets())
    assert losses["loss_rpn_objectness"].item() == pytest.approx(math.log(2), rel=0.1)
    assert losses["loss_class"].item() == pytest.approx(math.log(4), rel=0.1)


def test_targets_change_the_regions_and_nothing_else() -> None:
    model, images = tiny_detector(), noise_images(2)
    learning, testing = model(images, [SIZE] * 2, two_targets()), model(images, [SIZE] * 2)
    assert torch.equal(learning.objectness, testing.objectness)
    assert torch.equal(learning.anchor_deltas, testing.anchor_deltas)
    assert torch.equal(learning.anchors, testing.anchors)


def test_having_targets_and_not_the_mode_decides_how_regions_are_made() -> None:
    model, images = tiny_detector(rois=1000, roi_positive_fraction=1.0), noise_images(2)
    for training in (False, True):
        model.train(training)
        learning, testing = model(images, [SIZE] * 2, two_targets()), model(images, [SIZE] * 2)
        assert [len(x) for x in learning.regions] == [100 + 2, 100 + 1]  # all proposals and the truth
        assert learning.region_targets is not None
        assert [len(x) for x in testing.regions] == [50, 50]
        assert testing.region_targets is None


def test_a_step_is_the_same_every_time_and_draws_nothing_from_torchs_generator() -> None:
    model, images, targets = tiny_detector(), noise_images(2), two_targets()
    before = torch.get_rng_state()
    first = make_criterion(64)(model(images, [SIZE] * 2, targets), targets)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    again = make_criterion(64)(model(images, [SIZE] * 2, targets), targets)
    assert first == again


@pytest.mark.parametrize("targets", [two_targets(), [make_target(seed=1), make_target(seed=2)]], ids=["boxes", "none"])
def test_every_parameter_gets_a_gradient(targets: list[Target]) -> None:
    model = tiny_detector()
    sum(make_criterion()(model(noise_images(2), [SIZE] * 2, targets), targets).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.isfinite().all(), name
        of_boxes = name.startswith(("rpn_head.deltas", "predictor.deltas"))
        assert parameter.grad.any() == (len(targets[0].boxes) > 0 or not of_boxes), name


def test_a_batch_of_an_image_with_boxes_and_one_without() -> None:
    model, targets = tiny_detector(), [two_targets()[0], make_target(seed=2)]
    output = model(noise_images(2), [SIZE] * 2, targets)
    assert (output.region_targets.labels[16:] == -1).all()
    assert all(loss.isfinite() for loss in make_criterion()(output, targets).values())


@pytest.mark.parametrize("sizes", [[(96, 128), (96, 128)], [(96, 100), (70, 128)]])
def test_an_image_is_found_the_same_alone_and_in_a_batch(sizes: list[tuple[int, int]]) -> None:
    model, images = excited(tiny_detector()).eval(), noise_images(2)
    targets = [make_target(size=size) for size in sizes]
    postprocess = FasterRCNNPostprocess(score_threshold=0.3)
    with torch.no_grad():
        together = postprocess(model(images, sizes), targets)
        for image, prediction in enumerate(together):
            part = slice(image, image + 1)
            (alone,) = postprocess(model(images[part], sizes[part]), targets[part])
            assert len(alone.boxes) > 5
            assert torch.equal(alone.labels, prediction.labels)
            torch.testing.assert_close(alone.scores, prediction.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.boxes, prediction.boxes, rtol=0, atol=1e-3)
            height, width = sizes[image]
            assert (alone.boxes >= 0).all()
            assert (alone.boxes <= torch.tensor([width, height, width, height])).all()


def test_no_proposal_gives_no_detection() -> None:
    model = tiny_detector().eval()
    model.proposer.min_side = 1e6
    output = model(noise_images(2), [SIZE] * 2)
    for prediction in FasterRCNNPostprocess()(output, [make_target()] * 2):
        assert prediction.boxes.shape == (0, 4)
        assert prediction.scores.shape == prediction.labels.shape == (0,)
        assert prediction.labels.dtype == torch.int64


def test_impossible_options_are_refused() -> None:
    with pytest.raises(UserError, match="num_classes=0"):
        tiny_detector(0)
    with pytest.raises(UserError, match="difficult='none'"):
        tiny_detector(difficult="none")


def test_the_options_reach_the_parts() -> None:
    model = tiny_detector(
        5,
        width=12,
        head_width=20,
        anchor_scales=(2.0, 4.0),
        anchor_ratios=(1.0, 3.0),
        proposals_before_nms=(11, 12),
        proposals=(13, 14),
        proposal_nms_iou=0.6,
        rois=17,
        roi_positive_fraction=0.4,
        roi_cells=5,
        roi_canonical_side=100.0,
        difficult="drop",
    )
    proposer, sampler = model.proposer, model.sampler
    assert (proposer.before_nms, proposer.after_nms, proposer.nms_iou) == ((11, 12), (13, 14), 0.6)
    assert (sampler.count, sampler.positive_fraction, sampler.difficult) == (17, 0.4, "drop")
    assert model.anchor_generator.strides == (4, 8, 16, 32, 64)
    assert (model.anchor_generator.scales, model.anchor_generator.ratios) == ((2.0, 4.0), (1.0, 3.0))
    assert model.rpn_head.objectness.out_channels == 4
    assert model.roi_pool.strides == (4, 8, 16, 32)
    assert (model.roi_pool.output_size, model.roi_pool.canonical_side) == (5, 100.0)
    assert model.predictor.logits.weight.shape == (6, 20)


def test_the_defaults_are_those_of_the_papers() -> None:
    model = faster_rcnn_fpn(tiny_detector().backbone, 20)
    (first, *_) = model.anchor_generator([(1, 1)] * 5, torch.device("cpu"))
    sides = [level[1, 2:] - level[1, :2] for level in model.anchor_generator([(1, 1)] * 5, torch.device("cpu"))]
    assert [x.tolist() for x in sides] == [[s, s] for s in (32, 64, 128, 256, 512)]  # FPN, section 4.1
    assert len(first) == 3
    assert (model.sampler.iou, model.sampler.positive_fraction) == (0.5, 0.25)
    assert model.roi_pool.canonical_side == 224
    rpn = RPNCriterion()
    assert (rpn.count, rpn.positive_fraction, rpn.high, rpn.low) == (256, 0.5, 0.7, 0.3)


# ---- postprocess ----


def planted(rows: list[tuple[list[float], int, float]], num_classes: int = 3) -> FasterRCNNOutput:
    """One image's output: of each (box, label, score) a region 3 px off whose deltas of that class lead to the box.

    What the label leaves of the score goes to the background; deltas of the other classes lead astray.
    """
    regions, logits, deltas = [], [], []
    for box, label, score in rows:
        wanted = torch.tensor([box], dtype=torch.float32)
        region = wanted + torch.tensor([[-3.0, 3.0, 3.0, 3.0]])
        probabilities = torch.full((num_classes + 1,), 1e-8)
        probabilities[label], probabilities[-1] = score, 1 - score
        own = torch.full((num_classes, 4), 5.0)
        own[label] = encode_boxes(wanted, region, CODE)[0]
        regions.append(region)
        logits.append(probabilities.log())
        deltas.append(own)
    return FasterRCNNOutput(
        objectness=torch.zeros(1, 0),
        anchor_deltas=torch.zeros(1, 0, 4),
        anchors=torch.zeros(0, 4),
        regions=[torch.cat(regions)],
        class_logits=torch.stack(logits),
        box_deltas=torch.stack(deltas),
        region_targets=None,
    )


def detections(rows: list[tuple[list[float], int, float]], target: Target | None = None, **options: Any) -> Prediction:
    (prediction,) = FasterRCNNPostprocess(**options)(planted(rows), [target or make_target()])
    return prediction


def test_boxes_are_mapped_to_the_original_image_and_clipped() -> None:
    # 100 by 300 px by factors 0.5 and 0.25, sizes rounded up: 51 by 76, on a canvas of 96 by 128.
    target = make_target(size=(51, 76), original_size=(100, 300), scale=(0.5, 0.25))
    rows = [
        ([10.0, 20.0, 30.0, 40.0], 1, 0.9),
        ([-8.0, 30.0, 20.0, 60.0], 0, 0.8),  # beyond the left and the lower border
        ([60.0, -9.0, 90.0, 10.0], 2, 0.7),  # beyond the right and the upper one
        ([80.0, 5.0, 110.0, 30.0], 2, 0.6),  # in the padding
    ]
    found = detections(rows, target)
    expected = torch.tensor([[40.0, 40, 120, 80], [0, 60, 80, 100], [240, 0, 300, 20]])
    torch.testing.assert_close(found.boxes, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.7]))
    assert found.labels.tolist() == [1, 0, 2]
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_suppression_stays_within_a_class() -> None:
    box, near, apart = [10.0, 10.0, 50.0, 50.0], [12.0, 10.0, 52.0, 50.0], [60.0, 10.0, 90.0, 50.0]
    found = detections([(box, 0, 0.6), (near, 0, 0.9), (box, 1, 0.7), (apart, 0, 0.5)])
    assert found.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.5]))
    torch.testing.assert_close(found.boxes, torch.tensor([near, box, apart]), rtol=0, atol=1e-3)
    kept = detections([(box, 0, 0.6), (near, 0, 0.9)], nms_iou=0.95)  # their IoU is 38 / 42
    assert len(kept.boxes) == 2


def test_one_region_can_be_two_classes() -> None:
    output = planted([([10.0, 10.0, 50.0, 50.0], 0, 0.5)])
    output.class_logits = torch.tensor([[0.5, 0.4, 0.06, 0.04]]).log()
    (found,) = FasterRCNNPostprocess()(output, [make_target()])
    assert found.labels.tolist() == [0, 1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.4, 0.06]))


def test_score_threshold_number_and_least_side() -> None:
    rows = [([20.0 * k, 10.0, 20.0 * k + 15, 30.0], 0, 0.1 + 0.15 * k) for k in range(6)]
    assert [round(x, 2) for x in detections(rows, score_threshold=0.3).scores.tolist()] == [0.85, 0.7, 0.55, 0.4]
    assert [round(x, 2) for x in detections(rows, max_detections=2).scores.tolist()] == [0.85, 0.7]
    thin = [([10.0, 10.0, 50.0, 10.9], 0, 0.9), ([10.0, 40.0, 10.9, 60.0], 0, 0.8), ([10.0, 70.0, 12.0, 72.0], 0, 0.7)]
    assert len(detections(thin).boxes) == 1
    assert len(detections(thin, min_side=0.5).boxes) == 3
    assert len(detections(thin, min_side=3.0).boxes) == 0


def test_the_images_of_a_batch_are_not_mixed_up() -> None:
    one, two = planted([([10.0, 10.0, 50.0, 50.0], 0, 0.9)] * 3), planted([([70.0, 20.0, 90.0, 80.0], 2, 0.8)] * 2)
    both = FasterRCNNOutput(
        objectness=torch.zeros(3, 0),
        anchor_deltas=torch.zeros(3, 0, 4),
        anchors=torch.zeros(0, 4),
        regions=[*one.regions, torch.zeros(0, 4), *two.regions],
        class_logits=torch.cat([one.class_logits, two.class_logits]),
        box_deltas=torch.cat([one.box_deltas, two.box_deltas]),
        region_targets=None,
    )
    first, empty, last = FasterRCNNPostprocess()(both, [make_target()] * 3)
    assert (first.labels.tolist(), empty.labels.tolist(), last.labels.tolist()) == ([0], [], [2])
    torch.testing.assert_close(last.boxes, torch.tensor([[70.0, 20.0, 90.0, 80.0]]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_detections_are_torchvisions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((60, 2), generator=generator) * 70
    regions = torch.cat([corner, corner + 5 + 50 * torch.rand((60, 2), generator=generator)], dim=1)
    logits = 2 * torch.randn((60, 4), generator=generator)
    deltas = 2 * torch.randn((60, 3, 4), generator=generator)
    output = FasterRCNNOutput(
        torch.zeros(1, 0), torch.zeros(1, 0, 4), torch.zeros(0, 4), [regions], logits, deltas, None
    )
    (found,) = FasterRCNNPostprocess(score_threshold=0.1, nms_iou=0.4, max_detections=40, min_side=1e-2)(
        output, [make_target(size=SIZE)]
    )
    theirs = RoIHeads(None, None, None, 0.5, 0.5, 8, 0.25, None, 0.1, 0.4, 40)
    with_background = torch.cat([torch.zeros(60, 1, 4), deltas], dim=1).flatten(1)
    boxes, scores, labels = theirs.postprocess_detections(
        torch.cat([logits[:, -1:], logits[:, :-1]], dim=1), with_background, [regions], [SIZE]
    )
    assert len(found.boxes) == 40
    assert torch.equal(found.labels, labels[0] - 1)
    torch.testing.assert_close(found.scores, scores[0])
    torch.testing.assert_close(found.boxes, boxes[0], rtol=0, atol=1e-3)


# ---- learning ----


def drawn_images() -> tuple[Tensor, list[Target]]:
    """Two images with a red, a green or a blue rectangle of its own kind for each class."""
    images = torch.full((2, 3, *SIZE), 110, dtype=torch.uint8)
    images += noise_images(2) // 16
    contents = [
        ([[8, 10, 48, 50], [60, 20, 124, 52], [70, 60, 100, 90]], [0, 1, 2]),
        ([[20, 30, 60, 70], [84, 8, 116, 40]], [2, 0]),
    ]
    targets = []
    for image, (boxes, labels) in enumerate(contents):
        for (x0, y0, x1, y1), label in zip(boxes, labels):
            images[image, :, y0:y1, x0:x1] = 20
            images[image, label, y0:y1, x0:x1] = 235
        targets.append(make_target(boxes, labels))
    return images, targets


@pytest.mark.slow
def test_two_images_are_learnt_by_heart() -> None:
    images, targets = drawn_images()
    model = tiny_detector(3, width=24, head_width=64, rois=32, proposals_before_nms=(100, 100))
    criterion = make_criterion(128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    steps = 120
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for image, target in enumerate(targets):
            target.seed = 2 * step + image
        losses = criterion(model(images, [SIZE] * 2, targets), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    model.eval()
    with torch.no_grad():
        predictions = FasterRCNNPostprocess()(model(images, [SIZE] * 2), targets)
    records = [
        Record(
            path="image.jpg",
            image_id=image,
            size=SIZE,
            boxes=target.boxes.numpy(),
            labels=target.labels.numpy(),
            difficult=target.difficult.numpy(),
            crowd=target.difficult.numpy(),
            areas=target.boxes[:, 0].numpy(),
        )
        for image, target in enumerate(targets)
    ]
    result = VOCMeanAP(protocol="voc_area").evaluate(records, predictions, ["red", "green", "blue"], [1, 2, 3])
    assert result.values["mAP50"] == 1.0, {name: loss.item() for name, loss in losses.items()}
