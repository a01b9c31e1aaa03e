"""What the criteria expect of an untrained head, against formulas; and which first losses are named."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planned_runs import run_of
from torch import Tensor, nn
from torchvision.ops import box_iou

from transfer.build import Node
from transfer.heads.segmentation import SegmentationCriterion, SegmentationOutput
from transfer.preflight.batches import first_batches, for_network
from transfer.preflight.first_loss import ExpectsFirstLosses, check_first_losses, is_near
from transfer.preflight.sandbox import Trial, trial_of
from transfer.preflight.watching import Watched, watching
from transfer.types import Batch, Target

YOLO = {
    "type": "transfer.heads.yolov3.yolov3",
    "backbone": {"type": "backbones.timm_backbone.TimmBackbone", "name": "test_resnet", "weights": None},
    "width": 0.0625,
}


def first_pass(config: Node, **changes: Any) -> tuple[Trial, Watched, dict[str, Tensor], Batch]:
    run, _ = run_of(config, **changes)
    trial, batch = trial_of(run), for_network(first_batches(run))
    with watching(trial.model) as watched:
        losses = trial.losses(batch)
    return trial, watched, losses, batch


def expected(trial: Trial, watched: Watched, batch: Batch) -> dict[str, float]:
    criterion: Any = trial.task.criterion
    assert isinstance(criterion, ExpectsFirstLosses)
    return dict(criterion.expected_first_losses(trial.model, watched.output, batch.targets))


def test_faster_rcnn_expects_ln_2_and_ln_of_classes_and_background(tiny_config: Node) -> None:
    trial, watched, losses, batch = first_pass(tiny_config)
    wanted = expected(trial, watched, batch)
    assert wanted["loss_rpn_objectness"] == pytest.approx(math.log(2))
    assert wanted["loss_class"] == pytest.approx(math.log(4))
    assert set(wanted) == set(losses)


def test_segmentation_expects_ln_of_classes_and_the_auxiliary_weight_times_it() -> None:
    logits = torch.randn(2, 3, 8, 8)
    empty = torch.zeros(0)
    targets = [
        Target(
            empty.view(0, 4), empty.long(), empty.bool(), empty, (16, 16), index, index, "", (16, 16), (1.0, 1.0),
            mask=torch.full((16, 16), index, dtype=torch.uint8),
        )
        for index in range(2)
    ]  # fmt: skip
    criterion = SegmentationCriterion(auxiliary_weight=0.4)
    wanted = criterion.expected_first_losses(nn.Identity(), SegmentationOutput(logits, logits, (16, 16)), targets)
    assert wanted == pytest.approx({"loss_segmentation": math.log(3), "loss_auxiliary": 0.4 * math.log(3)})
    alone = criterion.expected_first_losses(nn.Identity(), SegmentationOutput(logits, None, (16, 16)), targets)
    assert alone == pytest.approx({"loss_segmentation": math.log(3)})


def test_ssd_expects_ln_of_classes_and_background_for_positives_and_three_negatives_each(tiny_config: Node) -> None:
    backbone = {"type": "backbones.timm_backbone.TimmBackbone", "name": "test_resnet", "weights": None}
    tiny_config["model"] = {"type": "transfer.heads.ssd.ssd", "backbone": backbone, "image_size": 64}
    tiny_config["criterion"] = {"type": "transfer.heads.ssd_criterion.SSDCriterion", "difficult": "train"}
    tiny_config["postprocess"] = {"type": "transfer.heads.ssd_postprocess.SSDPostprocess"}
    trial, watched, losses, batch = first_pass(tiny_config)
    wanted = expected(trial, watched, batch)
    assert set(wanted) == set(losses)
    assert wanted["loss_class"] == pytest.approx(4 * math.log(4))  # of 3 classes; normalised by the positives
    criterion: Any = trial.task.criterion
    boxes = torch.cat([target.boxes for target in batch.targets])
    fit, least = criterion.anchor_fit(watched.output, batch.targets)
    assert fit == pytest.approx(box_iou(boxes, watched.output.default_boxes.boxes).amax(dim=1), abs=1e-6)
    assert least == 0.25


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_logits_cost_the_same_with_smoothed_labels(tiny_config: Node, smoothing: float) -> None:
    tiny_config["criterion"]["box"]["label_smoothing"] = smoothing
    trial, watched, _, batch = first_pass(tiny_config)
    assert expected(trial, watched, batch)["loss_class"] == pytest.approx(math.log(4))


def test_the_stages_of_a_cascade_count_with_their_weights(tiny_config: Node) -> None:
    tiny_config["model"]["cascade"] = {"type": "transfer.heads.cascade.Cascade"}
    tiny_config["criterion"]["type"] = "transfer.heads.cascade.CascadeCriterion"
    trial, watched, losses, batch = first_pass(tiny_config)
    wanted = expected(trial, watched, batch)
    assert set(wanted) == set(losses)
    for number, weight in ((1, 1.0), (2, 0.5), (3, 0.25)):
        assert wanted[f"loss_class_{number}"] == pytest.approx(weight * math.log(4))


@pytest.mark.parametrize("prior", [0.01, 0.5])
def test_yolov3_expects_its_prior(tiny_config: Node, prior: float) -> None:
    tiny_config.update(
        model={**YOLO, "objectness_prior": prior},
        criterion={"type": "transfer.heads.yolov3_criterion.YOLOv3Criterion", "difficult": "train"},
        postprocess={"type": "transfer.heads.yolov3_postprocess.YOLOv3Postprocess"},
    )
    trial, watched, losses, batch = first_pass(tiny_config)
    wanted = expected(trial, watched, batch)
    slots, images = 3 * (8 * 8 + 4 * 4 + 2 * 2), len(batch.targets)  # of 64x64 px
    positives = len(trial.task.criterion.assign(watched.output, batch.targets).positives)  # type: ignore[attr-defined]
    # all slots are negative but the positives, and the few that overlap a box by more than 0.7
    highest = -math.log(1 - prior) * (slots - positives / images) - math.log(prior) * positives / images
    assert 0.9 * highest < wanted["loss_objectness"] <= highest * (1 + 1e-6)
    assert wanted["loss_class"] == pytest.approx(3 * math.log(2) * positives / images)
    assert wanted["loss_objectness"] == pytest.approx(float(losses["loss_objectness"].detach()), rel=0.1)


@pytest.mark.parametrize(
    ("value", "expectation", "near"),
    [(0.69, 0.69, True), (1.3, 0.69, True), (1.4, 0.69, False), (0.2, 0.69, False), (1.4, 3.04, False),
     (4.8, 3.04, True), (5.0, 3.04, False), (0.0, 0.1, True), (52.0, 60.0, True), (20.0, 60.0, False)],
)  # fmt: skip
def test_what_is_near(value: float, expectation: float, near: bool) -> None:
    assert is_near(value, expectation) == near


class Stated:
    """A criterion with given expectations."""

    def __init__(self, **values: float) -> None:
        self.values = {f"loss_{name}": value for name, value in values.items()}

    def expected_first_losses(self, model: nn.Module, output: Any, targets: Any) -> dict[str, float]:
        return self.values


def findings(criterion: Any, **values: float) -> list[tuple[str, str]]:
    scale = torch.ones((), requires_grad=True)
    losses = {f"loss_{name}": scale * value for name, value in values.items()}
    batch = Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [])
    outcome = check_first_losses(criterion, nn.Identity(), Watched(), losses, batch)
    return [(finding.severity, finding.code) for finding in outcome.findings]


def test_losses_that_are_named() -> None:
    assert findings(Stated(a=1.0, b=2.0), a=1.0, b=2.0) == []
    assert findings(object(), a=1.0, b=2.0) == []  # states nothing
    assert findings(Stated(a=1.0), a=3.0, b=2.0) == [("warning", "loss-unexpected")]
    assert findings(Stated(a=1.0), a=14.0, b=2.0) == [("error", "loss-unexpected")]
    assert findings(Stated(), a=math.nan, b=2.0) == [("error", "loss-not-finite")]


def test_terms_of_different_magnitude() -> None:
    assert findings(object(), a=90.0, b=1.0) == []
    assert findings(object(), a=150.0, b=1.0, c=1.0) == [("warning", "loss-drowned")] * 2
    assert findings(object(), a=250.0, b=1.0, c=1.0) == [("warning", "loss-drowns-others")]
    assert findings(Stated(b=0.001), a=1.0, b=0.0) == []  # begins near zero, as its criterion expects
    assert findings(Stated(b=0.2), a=1.0, b=0.001, c=1.0) == [("warning", "loss-drowned")]  # it should not


def test_a_loss_that_depends_on_no_parameter() -> None:
    losses = {"loss_a": torch.tensor(1.0), "loss_b": torch.ones((), requires_grad=True)}
    batch = Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [])
    outcome = check_first_losses(object(), nn.Identity(), Watched(), losses, batch)
    assert [(finding.severity, finding.code) for finding in outcome.findings] == [("error", "loss-without-gradient")]


def test_pulls_are_gradients_on_the_maps() -> None:
    maps = [torch.full((1, 1, 2, 2), 3.0, requires_grad=True)]
    watched = Watched(maps={"neck": maps})
    losses = {"loss_a": maps[0].sum() * 2, "loss_b": torch.ones((), requires_grad=True) * 5}
    batch = Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [])
    outcome = check_first_losses(object(), nn.Identity(), watched, losses, batch)
    assert outcome.facts["loss_a"]["pull"] == pytest.approx(4.0)  # sqrt(4 * 2^2)
    assert outcome.facts["loss_b"]["pull"] is None
    assert [finding.code for finding in outcome.findings] == ["loss-without-gradient"]
