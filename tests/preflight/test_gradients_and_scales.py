"""Names of what gets no gradient; scales and shapes of maps; what a cell sees; anchors: on networks of a few layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.contract import Backbone, wrap
from transfer.ops.anchor_grid import AnchorGrid
from transfer.preflight.anchors import check_anchors
from transfer.preflight.findings import Outcome
from transfer.preflight.gradients import check_gradients, whole_modules
from transfer.preflight.magnitudes import check_magnitudes
from transfer.preflight.receptive_field import check_receptive_field, extent
from transfer.preflight.shapes import check_shapes
from transfer.preflight.steps import Steps
from transfer.preflight.watching import watching
from transfer.types import Batch, Target


def found(outcome: Outcome) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in outcome.findings]


def batch_of(size: tuple[int, int], boxes: Sequence[Sequence[float]] = ()) -> Batch:
    count = len(boxes)
    target = Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4), labels=torch.zeros(count, dtype=torch.int64),
        difficult=torch.zeros(count, dtype=torch.bool), weights=torch.ones(count), size=size, index=0, image_id=0,
        path="a.jpg", original_size=size, scale=(1.0, 1.0),
    )  # fmt: skip
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, [target])


# Gradients


def test_the_largest_module_is_named() -> None:
    trained = ["backbone.a.weight", "backbone.b.weight", "head.x.weight", "head.x.bias", "head.y.weight"]
    assert whole_modules(["head.x.weight", "head.x.bias"], trained) == {"head.x": 2}
    assert whole_modules(["head.x.weight"], trained) == {"head.x.weight": 1}
    assert whole_modules(trained[2:], trained) == {"head": 3}
    assert whole_modules(["backbone.a.weight", "head.y.weight"], trained) == {"backbone.a": 1, "head.y": 1}
    assert whole_modules(trained, trained) == {"": 5}
    assert whole_modules([], trained) == {}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = (
            nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)}) for _ in range(3)
        )


@pytest.mark.parametrize(
    ("missing", "zero", "expected"),
    [
        ([], [], []),
        (["head.a"], [], [("error", "gradient-missing")]),
        (["backbone.a"], [], [("warning", "gradient-missing")]),
        (["backbone.a", "backbone.b"], [], [("error", "gradient-missing")]),
        ([], ["head.a"], [("note", "gradient-zero")]),
        ([], ["neck.a"], [("warning", "gradient-zero")]),
        ([], ["head.a", "head.b"], [("error", "gradient-zero")]),
        (["head.b"], ["neck.a", "neck.b"], [("error", "gradient-missing"), ("error", "gradient-zero")]),
    ],
)
def test_how_grave_it_is(missing: list[str], zero: list[str], expected: list[tuple[str, str]]) -> None:
    without = {f"{name}.weight" for name in missing}
    steps = Steps(without_gradient=without, zero_gradient=without | {f"{name}.weight" for name in zero})
    assert found(check_gradients(Model(), steps)) == expected


# Maps


class Stack(nn.Module):
    """A backbone of one or two maps with a neck of strides 4 and 8."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.backbone(images)


def two_levels() -> nn.Module:
    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
            self.second = nn.Conv2d(4, 6, 2, 2)

        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.first(x)
            return [x, self.second(x)]

    torch.manual_seed(0)
    return Levels()


def seen(model: Stack, batch: Batch) -> Any:
    with watching(model) as watched:
        model(batch.images)
    return watched


def test_shapes_as_declared() -> None:
    batch = batch_of((32, 48))
    model = Stack(wrap(two_levels()))
    assert found(check_shapes(model, model.backbone, seen(model, batch), batch)) == []
    model.backbone.strides = (8, 16)
    outcome = check_shapes(model, model.backbone, seen(model, batch), batch)
    assert found(outcome) == [("error", "stride-differs")]
    assert "8, 16" in outcome.findings[0].message
    assert "8x12, 4x6 cells of a 32x48 px image, where 4x6, 2x3 are due" in outcome.findings[0].message
    model.backbone.strides, model.backbone.channels = (4, 8), (4, 8)
    assert found(check_shapes(model, model.backbone, seen(model, batch), batch)) == [("error", "channels-differ")]


def test_a_neck_of_wrong_strides() -> None:
    class Pooled(nn.Module):
        strides = (4, 8)

        def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
            return [nn.functional.avg_pool2d(x, 2) for x in maps]

    class WithNeck(Stack):
        def __init__(self, backbone: Backbone) -> None:
            super().__init__(backbone)
            self.neck = Pooled()

        def forward(self, images: Tensor) -> list[Tensor]:
            return self.neck(self.backbone(images))

    batch = batch_of((32, 32))
    model = WithNeck(wrap(two_levels()))
    outcome = check_shapes(model, model.backbone, seen(model, batch), batch)
    assert found(outcome) == [("error", "stride-differs")]
    assert "the neck (Pooled)" in outcome.findings[0].message


def magnitudes(change: Any) -> Outcome:
    model = Stack(wrap(two_levels()))
    with torch.no_grad():
        change(model.backbone.body)
    return check_magnitudes(model, seen(model, batch_of((32, 32))))


def test_scales_of_maps_and_weights() -> None:
    assert found(magnitudes(lambda body: None)) == []
    nan = magnitudes(lambda body: body.second.weight[0, 0, 0, 0].fill_(math.nan))
    assert ("error", "map-not-finite") in found(nan)
    assert ("error", "parameter-not-finite") in found(nan)
    assert any("backbone.body.second" in finding.message for finding in nan.findings)
    large = magnitudes(lambda body: body.second.weight.mul_(5000))
    assert found(large) == [("warning", "map-out-of-scale"), ("warning", "parameter-out-of-scale")]
    huge = magnitudes(lambda body: body.second.weight.mul_(1e6))
    assert found(huge)[0] == ("error", "map-out-of-scale")
    uniform = magnitudes(lambda body: body.second.weight.zero_())
    assert found(uniform) == [("error", "map-without-information")]
    dead = magnitudes(lambda body: body.first[0].bias.fill_(-100.0))
    assert ("warning", "layer-dead") in found(dead)
    assert any("backbone.body.first.1 (100%)" in finding.message for finding in dead.findings)


# What a cell sees


def test_extent_of_a_profile() -> None:
    gradient = torch.zeros(1, 21, 31)
    gradient[0, 8:13, 10:13] = -2.0
    assert extent(gradient) == (5, 3)
    assert extent(torch.zeros(1, 4, 4)) == (0, 0)
    gradient[0, 0, 0] = 0.01  # far less than one percent
    assert extent(gradient) == (5, 3)


def test_a_cell_sees_the_kernel_it_is_made_with() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Conv2d(2, 2, 3, 1, 1))  # 12 px
    for layer in network:
        nn.init.constant_(layer.weight, 0.1)
    backbone = wrap(network).eval()
    small, large = [[4.0, 4, 12, 12]] * 3, [[0.0, 0, 20, 20]] * 2
    outcome = check_receptive_field(backbone, batch_of((64, 96)), [batch_of((64, 96), small)])
    assert (outcome.facts["height"], outcome.facts["width"]) == (12, 12)
    assert found(outcome) == []
    outcome = check_receptive_field(backbone, batch_of((64, 96)), [batch_of((64, 96), small + large)])
    assert outcome.facts["share_of_larger_boxes"] == pytest.approx(0.4)
    assert found(outcome) == [("warning", "receptive-field-small")]
    outcome = check_receptive_field(backbone, batch_of((12, 12)), [batch_of((64, 96), large)])
    assert found(outcome) == []  # it sees the whole image


# Anchors


class Fits:
    """A criterion that knows the shapes 10x10 and 40x40."""

    def anchor_fit(self, output: Any, targets: Sequence[Target]) -> tuple[Tensor, float]:
        from transfer.ops.anchor_grid import shape_iou

        boxes = torch.cat([target.boxes for target in targets])
        shapes = torch.tensor([[10.0, 10.0], [40.0, 40.0]])
        return shape_iou(boxes[:, 2:] - boxes[:, :2], shapes).amax(dim=1), 0.25


def test_share_of_boxes_without_a_fitting_anchor() -> None:
    boxes = [[0.0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 100, 100], [0, 0, 2, 10]]  # IoU 1, 0.25, 0.16, 0.2
    batch = batch_of((128, 128), boxes)
    outcome = check_anchors(Fits(), nn.Linear(1, 1), None, (128, 128), [batch])
    assert outcome.facts["share_without_anchor"] == pytest.approx(0.5)
    assert outcome.facts["mean_best_overlap"] == pytest.approx((1 + 0.25 + 0.16 + 0.2) / 4)
    assert found(outcome) == [("warning", "anchors-do-not-fit")]
    assert found(check_anchors(object(), nn.Linear(1, 1), None, (128, 128), [batch])) == []
    empty = check_anchors(Fits(), nn.Linear(1, 1), None, (128, 128), [batch_of((128, 128))])
    assert found(empty) == []


def test_the_criteria_s_own_rules() -> None:
    from transfer.heads.rpn import RPNCriterion
    from transfer.heads.yolov3 import YOLOv3Output
    from transfer.heads.yolov3_criterion import YOLOv3Criterion

    batch = batch_of((64, 64), [[0.0, 0, 10, 10], [30, 30, 50, 50]])
    batch.targets[0].difficult = torch.tensor([False, True])
    anchors = torch.tensor([[0.0, 0, 10, 20], [0, 0, 64, 64]])
    best, least = RPNCriterion(low=0.3).anchor_fit(anchors, batch.targets)  # the difficult one is not learnt
    assert (best.tolist(), least) == ([0.5], 0.3)
    best, _ = RPNCriterion(difficult="train").anchor_fit(anchors, batch.targets)
    assert best.tolist() == pytest.approx([0.5, 400 / 4096])
    grid = AnchorGrid([[[10, 10]], [[40, 20]]], (8, 16))([(8, 8), (4, 4)], torch.device("cpu"))
    output = YOLOv3Output(torch.zeros(1, len(grid.slots), 6), grid)
    best, least = YOLOv3Criterion(difficult="train").anchor_fit(output, batch.targets)
    assert best.tolist() == pytest.approx([1.0, 0.5])  # 20x20 in 40x20
    assert least == 0.25
    none = batch_of((64, 64))
    assert len(YOLOv3Criterion().anchor_fit(output, none.targets)[0]) == 0
    assert len(RPNCriterion().anchor_fit(anchors, none.targets)[0]) == 0
