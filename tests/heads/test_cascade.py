"""Cascade R-CNN: what each stage is taught, what its losses weigh, and how the stages vote in test."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detector_builders import make_target, noise_images, tiny_detector
from learning_by_heart import SIZE, drawn_images, measured, train_on
from torch import Tensor, nn
from torchvision.ops import box_iou

from backbones.timm_backbone import TimmBackbone
from transfer.heads.box_head import BACKGROUND, BoxCriterion, RegionTargets
from transfer.heads.c4 import faster_rcnn_c4
from transfer.heads.cascade import Cascade, CascadeCriterion, CascadeRCNN, StageOutput, refine
from transfer.heads.faster_rcnn import FasterRCNNCriterion, FasterRCNNPostprocess
from transfer.heads.rpn import RPNCriterion
from transfer.ops.boxes import decode_boxes, encode_boxes
from transfer.types import Target, UserError

IOUS = (0.5, 0.6, 0.7)
CODES = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))
LOSSES = ["loss_rpn_objectness", "loss_rpn_box"] + [
    f"loss_{kind}_{stage}" for stage in (1, 2, 3) for kind in ("class", "box")
]


def cascade_on_fpn(num_classes: int = 3, *, seed: int = 0, **options: Any) -> CascadeRCNN:
    return tiny_detector(num_classes, seed=seed, cascade=Cascade(), **options)


def cascade_on_c4() -> CascadeRCNN:
    torch.manual_seed(0)
    backbone = TimmBackbone("resnet10t", norm="frozen", model_options={"channels": [16, 32, 64, 128]})
    return faster_rcnn_c4(
        backbone,
        3,
        anchor_scales=(2.0, 4.0),
        proposals_before_nms=(100, 100),
        proposals=(60, 30),
        rois=16,
        roi_cells=7,
        cascade=Cascade(),
    )


def lively(model: CascadeRCNN) -> CascadeRCNN:
    """The model with outputs far apart; boxes move visibly from stage to stage."""
    generator = torch.Generator().manual_seed(3)
    layers = [model.rpn_head.objectness, model.rpn_head.deltas]
    layers += [layer for stage in model.stages for layer in (stage.predictor.logits, stage.predictor.deltas)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.3, generator=generator)
    return model


def two_targets(**options: Any) -> list[Target]:
    return [
        make_target([[10, 10, 60, 70], [70, 5, 120, 40]], [0, 2], seed=1, **options),
        make_target([[20, 30, 50, 60]], [1], seed=2),
    ]


def make_criterion(**options: Any) -> CascadeCriterion:
    return CascadeCriterion(rpn=RPNCriterion(**options), box=BoxCriterion())


# ---- from stage to stage ----


def test_boxes_are_decoded_clipped_and_dropped_by_hand() -> None:
    first = torch.tensor([[10.0, 10.0, 30.0, 50.0], [80.0, 80.0, 100.0, 100.0], [40.0, 40.0, 60.0, 60.0]])
    second = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    deltas = torch.tensor(
        [
            [10.0, -5.0, 5 * math.log(2), 0.0],  # 1/2 of 20 px to the right, 1/8 of 40 px up, twice as wide
            [20.0, 0.0, 0.0, 0.0],  # one width to the right: beyond the image
            [0.0, 0.0, 0.0, -100.0],  # flat
            [0.0, 0.0, 0.0, 0.0],
        ]
    )
    output = StageOutput([first, second], torch.zeros(4, 2), deltas[:, None], None, (20.0, 40.0, 5.0, 5.0))
    refined = refine(output, [(90, 100), (8, 6)], min_side=1.0)
    torch.testing.assert_close(refined[0], torch.tensor([[10.0, 5.0, 50.0, 45.0]]))
    torch.testing.assert_close(refined[1], torch.tensor([[0.0, 0.0, 6.0, 8.0]]))
    assert [len(x) for x in refine(output, [(90, 200), (8, 6)], min_side=7.0)] == [2, 0]


def labels_by(regions: Tensor, target: Target, iou: float) -> Tensor:
    """The label of each region after torchvision's IoU."""
    if not len(target.boxes):
        return torch.full((len(regions),), BACKGROUND)
    best, which = box_iou(regions, target.boxes).max(dim=1)
    return torch.where(best >= iou, target.labels[which], BACKGROUND)


def as_set(boxes: Tensor) -> list[list[float]]:
    return sorted(boxes.tolist())


def test_each_stage_is_taught_on_all_boxes_of_the_one_before_at_its_own_overlap() -> None:
    model, targets = lively(cascade_on_fpn()), two_targets()
    output = model(noise_images(2), [SIZE] * 2, targets)
    assert [len(x) for x in output.stages[0].regions] == [16, 16]
    for number, stage in enumerate(output.stages):
        counts = [len(x) for x in stage.regions]
        labels = stage.region_targets.labels.split(counts)
        for image, target in enumerate(targets):
            assert torch.equal(labels[image], labels_by(stage.regions[image], target, IOUS[number]))
            if number:
                before = refine(output.stages[number - 1], [SIZE] * 2, min_side=1.0)[image]
                assert as_set(stage.regions[image]) == as_set(torch.cat([before, target.boxes]))
        assert stage.box_code == CODES[number]
        assert not any(x.requires_grad for x in stage.regions)
    moved = [box_iou(a.regions[1], b.regions[1]).amax(dim=1) for a, b in zip(output.stages, output.stages[1:])]
    assert all((overlap < 0.99).any() for overlap in moved)
    assert output.regions is output.stages[-1].regions


@pytest.mark.parametrize("policy", ["train", "drop", "ignore"])
def test_the_policy_on_difficult_boxes_holds_in_every_stage(policy: str) -> None:
    model = cascade_on_fpn(difficult=policy)  # its deltas are near zero: boxes stay where they are
    model.proposer = lambda *_: [torch.tensor([[10.0, 10.0, 60.0, 70.0], [70.0, 5.0, 120.0, 40.0]])]
    target = make_target([[10, 10, 60, 70], [70, 5, 120, 40]], [0, 2], difficult=[True, False])
    output = model(noise_images(1), [SIZE], [target])
    for stage in output.stages:
        labels = set(stage.region_targets.labels.tolist())
        assert labels == {"train": {0, 2}, "drop": {2, BACKGROUND}, "ignore": {2}}[policy]


# ---- losses ----


def test_losses_are_weighted_and_use_the_code_of_their_stage() -> None:
    model, targets = lively(cascade_on_fpn()), two_targets()
    output = model(noise_images(2), [SIZE] * 2, targets)
    losses = make_criterion()(output, targets)
    assert list(losses) == LOSSES
    for number, (stage, weight) in enumerate(zip(output.stages, (1, 0.5, 0.25)), start=1):
        positive = stage.region_targets.labels != BACKGROUND
        count = len(positive)
        background = stage.class_logits.shape[1] - 1
        labels = stage.region_targets.labels.where(positive, torch.tensor(background))
        classes = nn.functional.cross_entropy(stage.class_logits, labels)
        torch.testing.assert_close(losses[f"loss_class_{number}"], weight * classes)
        wanted = encode_boxes(
            stage.region_targets.boxes,
            torch.cat(stage.regions)[positive],
            tuple(float(x) for x in CODES[number - 1]),
        )
        box = nn.functional.smooth_l1_loss(stage.box_deltas[positive, 0], wanted, beta=1 / 9, reduction="sum") / count
        torch.testing.assert_close(losses[f"loss_box_{number}"], weight * box)
        assert box > 0


def test_deltas_that_lead_to_the_truth_cost_nothing_and_refine_to_it() -> None:
    truth = torch.tensor([[10.0, 10.0, 60.0, 70.0]])
    region = truth + torch.tensor([[4.0, -3.0, 2.0, 5.0]])
    code = (30.0, 30.0, 15.0, 15.0)
    deltas = encode_boxes(truth, region, code)[:, None]
    taught = RegionTargets(torch.tensor([2]), torch.ones(1), truth)
    _, box = BoxCriterion()(torch.zeros(1, 4), deltas, [region], taught, code=code)
    assert box.item() == pytest.approx(0, abs=1e-9)
    stage = StageOutput([region], torch.zeros(1, 4), deltas, None, code)
    torch.testing.assert_close(refine(stage, [SIZE], min_side=1.0)[0], truth)


def test_mixup_weights_act_in_every_stage_and_ones_are_no_weights() -> None:
    model, images = lively(cascade_on_fpn()), noise_images(1)

    def losses(weight: float) -> dict[str, Tensor]:
        targets = [make_target([[10, 10, 60, 70], [70, 5, 120, 40]], [0, 2], weights=[weight] * 2, seed=1)]
        return make_criterion()(model(images, [SIZE], targets), targets)

    whole, half, none = losses(1.0), losses(0.5), losses(1e-9)
    for stage in (1, 2, 3):
        torch.testing.assert_close(half[f"loss_box_{stage}"], whole[f"loss_box_{stage}"] / 2)
        of_positives = whole[f"loss_class_{stage}"] - none[f"loss_class_{stage}"]
        assert of_positives > 0
        torch.testing.assert_close(whole[f"loss_class_{stage}"] - half[f"loss_class_{stage}"], of_positives / 2)


@pytest.mark.parametrize("make", [cascade_on_fpn, cascade_on_c4])
@pytest.mark.parametrize("kind", ["boxes", "no boxes", "no regions"])
def test_every_parameter_gets_a_gradient(make: Any, kind: str) -> None:
    model = make()
    targets = two_targets() if kind == "boxes" else [make_target(seed=1), make_target(seed=2)]
    if kind == "no regions":
        model.proposer.min_side = 1e6
    losses = make_criterion()(model(noise_images(2), [SIZE] * 2, targets), targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), name
    of_boxes = [stage.predictor.deltas.weight.grad.any() for stage in model.stages]
    assert of_boxes == [kind == "boxes"] * 3


# ---- test ----


def test_all_stages_vote_on_the_regions_of_the_last_one() -> None:
    model, images = lively(cascade_on_fpn()).eval(), noise_images(2)
    with torch.no_grad():
        output = model(images, [SIZE] * 2)
        maps = model.neck(model.backbone(images))
        regions = output.stages[0].regions
        for stage in model.stages[:-1]:
            logits, deltas = stage(model.roi_pool(maps, regions))
            regions = refine(StageOutput(regions, logits, deltas, None, stage.code), [SIZE] * 2, min_side=1.0)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(regions, output.regions))
        assert sum(len(x) for x in regions) > 10
        pooled = model.roi_pool(maps, regions)
        votes = torch.stack([stage(pooled)[0].softmax(dim=1) for stage in model.stages])
    assert (votes[0] - votes[2]).abs().max() > 0.1
    torch.testing.assert_close(output.class_logits.softmax(dim=1), votes.mean(dim=0))
    (found, _) = FasterRCNNPostprocess(score_threshold=0.2, nms_iou=1.0, max_detections=10**4)(
        output, [make_target()] * 2
    )
    scores = votes.mean(dim=0)[: len(regions[0]), :-1]
    assert torch.allclose(found.scores, scores[scores > 0.2].sort(descending=True).values)
    boxes = decode_boxes(output.box_deltas[: len(regions[0]), 0], regions[0], (30.0, 30.0, 15.0, 15.0))
    best = torch.nonzero(scores == scores.max())[0]
    limits = torch.tensor([SIZE[1], SIZE[0]] * 2)
    torch.testing.assert_close(found.boxes[0], boxes[best[0]].clamp(min=0).minimum(limits))
    assert found.labels[0] == best[1]


def test_one_stage_on_one_class_is_faster_rcnn() -> None:
    plain = tiny_detector(1)
    for layer in (plain.predictor.logits, plain.predictor.deltas):
        nn.init.normal_(layer.weight, std=0.3)
    model: Any = tiny_detector(1, cascade=Cascade(ious=[0.5], codes=[(10, 10, 5, 5)]))
    state = {
        f"stages.0.{key}" if key.startswith(("box_head", "predictor")) else key: value
        for key, value in plain.state_dict().items()
    }
    model.load_state_dict(state)
    images, targets = noise_images(2), [make_target([[10, 10, 60, 70]], [0], seed=1), make_target(seed=2)]
    ours = CascadeCriterion(rpn=RPNCriterion(), box=BoxCriterion(), stage_weights=[1.0])(
        model(images, [SIZE] * 2, targets), targets
    )
    theirs = FasterRCNNCriterion(rpn=RPNCriterion(), box=BoxCriterion())(plain(images, [SIZE] * 2, targets), targets)
    torch.testing.assert_close(list(ours.values()), list(theirs.values()))
    postprocess = FasterRCNNPostprocess()
    for one, other in zip(
        postprocess(model(images, [SIZE] * 2), targets), postprocess(plain(images, [SIZE] * 2), targets)
    ):
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("make", [cascade_on_fpn, cascade_on_c4])
def test_an_image_is_found_the_same_alone_and_in_a_batch(make: Any) -> None:
    model, images = lively(make()).eval(), noise_images(2)
    sizes = [(96, 100), (70, 128)]
    targets = [make_target(size=size) for size in sizes]
    postprocess = FasterRCNNPostprocess(score_threshold=0.2)
    with torch.no_grad():
        together = postprocess(model(images, sizes), targets)
        for image, prediction in enumerate(together):
            part = slice(image, image + 1)
            (alone,) = postprocess(model(images[part], sizes[part]), targets[part])
            assert len(alone.boxes) > 3
            assert torch.equal(alone.labels, prediction.labels)
            torch.testing.assert_close(alone.scores, prediction.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.boxes, prediction.boxes, rtol=0, atol=1e-3)


def test_no_proposal_gives_no_detection() -> None:
    model = cascade_on_c4().eval()
    model.proposer.min_side = 1e6
    with torch.no_grad():
        output = model(noise_images(2), [SIZE] * 2)
    assert [len(p.boxes) for p in FasterRCNNPostprocess()(output, [make_target()] * 2)] == [0, 0]


# ---- the heads ----


def test_heads_of_fully_connected_layers_begin_apart() -> None:
    weights = [stage.box_head.layers[1].weight for stage in cascade_on_fpn().stages]
    assert weights[0].shape == weights[1].shape == weights[2].shape
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_tails_are_copies_that_train_by_themselves_and_keep_their_norm_frozen() -> None:
    model = cascade_on_c4().train()
    tails: list[Any] = [stage.box_head.tail for stage in model.stages]
    states = [tail.state_dict() for tail in tails]
    assert all(torch.equal(value, state[key]) for state in states[1:] for key, value in states[0].items())
    assert len({id(p) for tail in tails for p in tail.parameters()}) == 3 * len(list(tails[0].parameters()))
    norms = [layer for tail in tails for layer in tail.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 3 * 3
    assert not any(layer.training or layer.weight.requires_grad for layer in norms)


def test_the_options_reach_the_stages() -> None:
    model = cascade_on_fpn(5, rois=17, roi_positive_fraction=0.4, difficult="drop")
    samplers = [stage.sampler for stage in model.stages]
    assert [(s.count, s.iou, s.difficult) for s in samplers] == [
        (17, 0.5, "drop"),
        (None, 0.6, "drop"),
        (None, 0.7, "drop"),
    ]
    assert samplers[0].positive_fraction == 0.4
    assert all(stage.predictor.deltas.weight.shape[0] == 4 for stage in model.stages)
    assert all(stage.predictor.logits.weight.shape[0] == 6 for stage in model.stages)


@pytest.mark.slow
def test_two_images_are_learnt_by_heart() -> None:
    images, targets = drawn_images()
    model = cascade_on_fpn(width=24, head_width=64, rois=16, proposals_before_nms=(100, 100))
    losses = train_on(model, make_criterion(count=128), images, targets, steps=120, lr=4e-3)
    assert measured(model, images, targets) == 1.0, losses


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ious": (0.5, 0.6)}, "2 ious and 3 codes"),
        ({"ious": (0.5, 0.6, 7)}, r"7 must be a number in \(0, 1\]"),
        ({"codes": ((10, 10, 5),) * 3}, "four numbers above 0"),
        ({"ious": (), "codes": ()}, "one of each a stage"),
    ],
)
def test_impossible_cascades_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Cascade(**options)


def test_a_criterion_that_does_not_fit_the_model_is_refused() -> None:
    model = cascade_on_fpn()
    make_criterion().check_model(model)
    with pytest.raises(UserError, match=r"3 stages and criterion.stage_weights 2.*'ignore'.*'train'"):
        CascadeCriterion(rpn=RPNCriterion(difficult="train"), box=BoxCriterion(), stage_weights=(1.0, 0.5)).check_model(
            model
        )
    with pytest.raises(UserError, match="CascadeCriterion does not fit a FasterRCNN"):
        make_criterion().check_model(tiny_detector())
    with pytest.raises(UserError, match="FasterRCNNCriterion does not fit a CascadeRCNN"):
        FasterRCNNCriterion(rpn=RPNCriterion(), box=BoxCriterion()).check_model(model)
    with pytest.raises(UserError, match="stage_weights"):
        CascadeCriterion(rpn=RPNCriterion(), box=BoxCriterion(), stage_weights=(1.0, 0.0, 0.25))
