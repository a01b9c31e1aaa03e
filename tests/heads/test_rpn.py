"""The RPN: order of anchors and logits, proposals against a plain loop, losses by hand and against torchvision's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detector_builders import make_target
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.rpn import RegionProposalNetwork

from transfer.heads.rpn import Proposer, RPNCriterion, RPNHead
from transfer.ops.anchors import AnchorGenerator
from transfer.ops.boxes import decode_boxes
from transfer.types import UserError

CPU = torch.device("cpu")
PLAIN = (1.0, 1.0, 1.0, 1.0)
ALL = 10**6
"""A sample of so many anchors is all of them."""


# ---- head ----


def planted_head(anchors_per_cell: int) -> RPNHead:
    """A head on one channel whose branches see that channel itself; their own weights are zero."""
    head = RPNHead(1, anchors_per_cell)
    for layer in (head.conv, head.objectness, head.deltas):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    head.conv.weight.data[0, 0, 1, 1] = 1
    return head


@pytest.mark.parametrize("anchor", [0, 1, 5])
@pytest.mark.parametrize(("level", "row", "column"), [(0, 3, 4), (0, 0, 5), (1, 1, 2)])
def test_logits_and_deltas_stand_in_the_order_of_the_anchors(anchor: int, level: int, row: int, column: int) -> None:
    generator = AnchorGenerator([8, 16], scales=(2.0, 4.0), ratios=(0.25, 1.0, 4.0))
    head = planted_head(generator.anchors_per_cell)
    head.objectness.weight.data[anchor] = 1
    head.deltas.weight.data[4 * anchor : 4 * anchor + 4, 0, 0, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    maps = [torch.full((2, 1, 4, 6), -1.0), torch.full((2, 1, 2, 3), -1.0)]  # the rectifier makes zeros of them
    maps[level][1, 0, row, column] = 1  # in the second image
    logits, deltas = head(maps)
    assert [tuple(x.shape) for x in logits] == [(2, 144), (2, 36)]
    assert [tuple(x.shape) for x in deltas] == [(2, 144, 4), (2, 36, 4)]

    (place,) = torch.nonzero(torch.cat(logits, dim=1)[1]).flatten().tolist()
    anchors = torch.cat(generator([(4, 6), (2, 3)], CPU))
    stride = (8, 16)[level]
    side, ratio = (2, 4)[anchor // 3] * stride, (0.25, 1.0, 4.0)[anchor % 3]
    width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    assert anchors[place].tolist() == pytest.approx([x - width / 2, y - height / 2, x + width / 2, y + height / 2])

    all_deltas = torch.cat(deltas, dim=1)
    assert all_deltas[1, place].tolist() == [1, 2, 3, 4]
    assert torch.count_nonzero(all_deltas) == 4
    assert torch.count_nonzero(torch.cat(logits, dim=1)) == 1


# ---- proposals ----


def random_outputs(seed: int = 0, images: int = 2) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Logits, deltas and anchors of two levels of a 64x96 image."""
    generator = AnchorGenerator([8, 16], scales=(3.0,), ratios=(0.5, 1.0, 2.0))
    anchors = generator([(8, 12), (4, 6)], CPU)
    random = torch.Generator().manual_seed(seed)
    logits = [torch.randn((images, len(x)), generator=random) for x in anchors]
    deltas = [0.7 * torch.randn((images, len(x), 4), generator=random) for x in anchors]
    return logits, deltas, anchors


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def slow_proposals(
    logits: list[Tensor],
    deltas: list[Tensor],
    anchors: list[Tensor],
    image: int,
    size: tuple[int, int],
    before: int,
    after: int,
    nms_iou: float,
    min_side: float,
) -> list[list[float]]:
    """The method told one box at a time."""
    left: list[tuple[float, list[float]]] = []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors):
        boxes = decode_boxes(level_deltas[image], level_anchors, PLAIN).tolist()
        ranked = sorted(zip(level_logits[image].tolist(), boxes), key=lambda pair: -pair[0])[:before]
        kept: list[list[float]] = []
        for score, (x0, y0, x1, y1) in ranked:
            x0, x1 = (min(max(x, 0.0), float(size[1])) for x in (x0, x1))
            y0, y1 = (min(max(y, 0.0), float(size[0])) for y in (y0, y1))
            box = [x0, y0, x1, y1]
            if min(x1 - x0, y1 - y0) >= min_side and all(overlap(box, other) <= nms_iou for other in kept):
                kept.append(box)
                left.append((score, box))
    left.sort(key=lambda pair: -pair[0])
    return [box for _, box in left][:after]


@pytest.mark.parametrize(("before", "after"), [(1000, 1000), (40, 1000), (40, 9)])
@pytest.mark.parametrize("nms_iou", [0.3, 0.7])
@pytest.mark.parametrize("min_side", [1.0, 20.0])
def test_proposals_are_those_of_the_plain_loop(before: int, after: int, nms_iou: float, min_side: float) -> None:
    outputs = random_outputs()
    sizes = [(64, 96), (50, 61)]
    proposer = Proposer(before_nms=(before, 1), after_nms=(after, 1), nms_iou=nms_iou, min_side=min_side)
    found = proposer(*outputs, sizes, training=True)
    for image, size in enumerate(sizes):
        expected = slow_proposals(*outputs, image, size, before, after, nms_iou, min_side)
        assert len(found[image]) == len(expected) > 4
        torch.testing.assert_close(found[image], torch.tensor(expected))


def test_the_limits_of_training_and_of_test() -> None:
    outputs = random_outputs()
    proposer = Proposer(before_nms=(30, 20), after_nms=(7, 5), nms_iou=0.99)
    for training, limit in ((True, 7), (False, 5)):
        assert [len(x) for x in proposer(*outputs, [(64, 96)] * 2, training)] == [limit, limit]
    wide = Proposer(before_nms=(30, 20), after_nms=(999, 999), nms_iou=1.0, min_side=0.0)
    for training, entering in ((True, 30), (False, 20)):  # the limit before NMS holds for each of the two levels
        assert [len(x) for x in wide(*outputs, [(64, 96)] * 2, training)] == [2 * entering] * 2


def test_the_same_box_on_two_levels_is_kept_twice() -> None:
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    logits, deltas = [torch.tensor([[1.0]]), torch.tensor([[2.0]])], [torch.zeros(1, 1, 4)] * 2
    (found,) = Proposer()(logits, deltas, [box, box], [(64, 64)], True)
    assert len(found) == 2
    pair = [torch.cat(logits, dim=1)], [torch.zeros(1, 2, 4)], [box.repeat(2, 1)]
    (found,) = Proposer()(*pair, [(64, 64)], True)
    assert len(found) == 1


def test_what_is_not_a_number_or_lies_in_the_padding_is_no_proposal() -> None:
    logits, deltas, anchors = random_outputs(images=1)
    deltas[0][0, :100] = math.nan
    deltas[1][0, 3] = math.inf
    logits[1][0, 5:9] = math.nan
    (found,) = Proposer()(logits, deltas, anchors, [(64, 96)], True)
    assert found.isfinite().all()
    assert len(found) > 10
    apart = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    (found,) = Proposer()([torch.tensor([[math.nan, 1.0]])], [torch.zeros(1, 2, 4)], [apart], [(64, 96)], True)
    assert torch.equal(found, apart[1:])
    far = [torch.tensor([[70.0, 10.0, 90.0, 30.0], [10.0, 10.0, 30.0, 30.0]])]
    (found,) = Proposer()([torch.tensor([[9.0, 1.0]])], [torch.zeros(1, 2, 4)], far, [(64, 64)], True)
    assert found.tolist() == [[10, 10, 30, 30]]


def test_no_proposal_is_left_and_no_gradient_flows() -> None:
    logits, deltas, anchors = random_outputs()
    for x in (*logits, *deltas):
        x.requires_grad_()
    found = Proposer(min_side=1e6)(logits, deltas, anchors, [(64, 96)] * 2, True)
    assert [tuple(x.shape) for x in found] == [(0, 4)] * 2
    assert not any(x.requires_grad for x in Proposer()(logits, deltas, anchors, [(64, 96)] * 2, True))


# ---- criterion ----


def smooth_l1(difference: float, beta: float = 1 / 9) -> float:
    size = abs(difference)
    return 0.5 * size**2 / beta if size < beta else size - 0.5 * beta


HAND_ANCHORS = torch.tensor(
    [
        [0.0, 0.0, 10.0, 10.0],  # IoU 0.9 / 1.1 with the truth: positive
        [0.0, 0.0, 10.0, 5.5],  # between the thresholds
        [40.0, 0.0, 50.0, 10.0],  # negative
    ]
)
HAND_BOX = [[1.0, 0.0, 11.0, 10.0]]


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize("predicted", [0.0, 1.1, -0.4])
def test_losses_by_hand(weight: float, predicted: float) -> None:
    logits = torch.tensor([[0.5, 77.0, -0.3]])
    deltas = torch.full((1, 3, 4), 99.0)  # only the positive's count
    deltas[0, 0] = torch.tensor([predicted, 0.0, 0.2, 0.0])
    target = make_target(HAND_BOX, [0], weights=[weight])
    objectness, box = RPNCriterion(count=ALL)(logits, deltas, HAND_ANCHORS, [target])
    positive, negative = math.log1p(math.exp(-0.5)), math.log1p(math.exp(-0.3))
    assert objectness.item() == pytest.approx((weight * positive + negative) / 2, rel=1e-5)
    # wanted: 1 px to the right of an anchor 10 px wide, the same size
    assert box.item() == pytest.approx(weight * (smooth_l1(predicted - 0.1) + smooth_l1(0.2)) / 2, rel=1e-4)


def test_smoothed_objectness_by_hand() -> None:
    logits, deltas = torch.tensor([[0.5, 77.0, -0.3]]), torch.zeros(1, 3, 4)
    target = make_target(HAND_BOX, [0])
    objectness, _ = RPNCriterion(count=ALL, label_smoothing=0.2)(logits, deltas, HAND_ANCHORS, [target])
    # targets 0.9 and 0.1: two classes, eps / 2 each
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor([0.5, -0.3]), torch.tensor([0.9, 0.1]), reduction="sum"
    )
    assert objectness.item() == pytest.approx(wanted.item() / 2, rel=1e-5)


def scene(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, list[Any]]:
    """Random logits [3, N], deltas, anchors, and targets of three images, the second one without boxes."""
    logits, deltas, anchors = random_outputs(seed, images=3)
    targets = [
        make_target([[5, 6, 40, 50], [50, 3, 90, 30], [44, 28, 60, 58]], [0, 1, 2], seed=11),
        make_target(seed=12),
        make_target([[20, 10, 43, 35]], [1], seed=13),
    ]
    return torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors), targets


def torchvision_losses(logits: Tensor, deltas: Tensor, anchors: Tensor, targets: list[Any]) -> tuple[Tensor, Tensor]:
    """Losses of torchvision's RPN on all anchors that are positive or negative."""
    rpn = RegionProposalNetwork(None, None, 0.7, 0.3, ALL, 0.5, {}, {}, 0.7)
    truth = [{"boxes": target.boxes} for target in targets]
    labels, matched = rpn.assign_targets_to_anchors([anchors] * len(targets), truth)
    wanted = rpn.box_coder.encode(matched, [anchors] * len(targets))
    return rpn.compute_loss(logits.flatten(), deltas.flatten(0, 1), labels, list(wanted))


def test_losses_and_gradients_are_torchvisions() -> None:
    logits, deltas, anchors, targets = scene()
    gradients, losses = [], []
    for compute in (RPNCriterion(count=ALL), torchvision_losses):
        x, y = logits.clone().requires_grad_(), deltas.clone().requires_grad_()
        both = compute(x, y, anchors, targets)
        sum(both).backward()
        losses.append(both)
        gradients.append((x.grad, y.grad))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert losses[0][1] > 0


def test_each_box_counts_as_often_as_its_weight_says_and_the_normaliser_does_not_know() -> None:
    logits, deltas, anchors, targets = scene()
    criterion = RPNCriterion(count=ALL)

    def losses(*weights: float) -> Tensor:
        targets[0].weights = torch.tensor(weights)
        return torch.stack(criterion(logits, deltas, anchors, targets))

    nothing = losses(0.0, 0.0, 0.0)  # negatives, and the third image
    shares = [losses(*(float(i == k) for i in range(3))) - nothing for k in range(3)]
    assert all((share > 1e-4).all() for share in shares)
    weighted = losses(0.5, 0.2, 0.9)
    torch.testing.assert_close(weighted, nothing + 0.5 * shares[0] + 0.2 * shares[1] + 0.9 * shares[2])


def test_the_sample_of_an_image_comes_from_its_own_seed_and_not_from_the_batch() -> None:
    logits, deltas, anchors, targets = scene()
    criterion = RPNCriterion(count=32)
    together = torch.stack(criterion(logits, deltas, anchors, targets))
    alone = [
        torch.stack(criterion(logits[i : i + 1], deltas[i : i + 1], anchors, targets[i : i + 1])) for i in range(3)
    ]
    torch.testing.assert_close(together, sum(alone) / 3)  # each image gives 32 anchors
    targets[0].seed = 99
    other = torch.stack(criterion(logits[:1], deltas[:1], anchors, targets[:1]))
    assert not torch.allclose(other[0], alone[0][0])
    # whatever was drawn, the mean of log 2 is log 2: the normaliser is the number of anchors drawn
    flat, _ = criterion(torch.zeros_like(logits), deltas, anchors, targets)
    assert flat.item() == pytest.approx(math.log(2), rel=1e-5)


def test_padding_changes_no_sample() -> None:
    """The same image alone and padded to twice its width: the anchors on the padding are no negatives."""
    generator = AnchorGenerator((8, 16), scales=(2.0,))
    target = make_target([[5, 6, 40, 50]], [0], size=(64, 64), seed=3)
    losses = []
    for width in (64, 128):
        sizes = [(8, width // 8), (4, width // 16)]
        anchors = torch.cat(generator(sizes, torch.device("cpu")))
        # a logit that is a function of the anchor alone
        logits = (anchors.sum(dim=1) / 100).sin()[None]
        deltas = (anchors / 50).cos()[None]
        losses.append(torch.stack(RPNCriterion(count=16)(logits, deltas, anchors, [target])))
    assert torch.equal(losses[0], losses[1])


def test_images_without_boxes_give_no_box_loss_but_a_gradient_of_zeros() -> None:
    logits, deltas, anchors, _ = scene()
    logits.requires_grad_()
    deltas.requires_grad_()
    objectness, box = RPNCriterion(count=64)(logits, deltas, anchors, [make_target(seed=i) for i in range(3)])
    (objectness + box).backward()
    assert objectness.isfinite()
    assert box.item() == 0
    assert torch.equal(deltas.grad, torch.zeros_like(deltas))
    assert torch.count_nonzero(logits.grad) == 3 * 64


def test_without_any_anchor_to_learn_from_the_losses_are_zero() -> None:
    logits = torch.zeros(1, 1, requires_grad=True)
    target = make_target([[0, 0, 10, 10]], [0], difficult=[True])
    losses = RPNCriterion()(logits, torch.zeros(1, 1, 4), torch.tensor([[0.0, 0.0, 10.0, 10.0]]), [target])
    assert [loss.item() for loss in losses] == [0, 0]


@pytest.mark.parametrize(("policy", "positives", "negatives"), [("ignore", 1, 1), ("train", 2, 1), ("drop", 1, 2)])
def test_the_policy_on_difficult_boxes(policy: str, positives: int, negatives: int) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]])
    target = make_target(anchors[:2].tolist(), [0, 0], difficult=[True, False])
    logits = torch.full((1, 3), 0.8)
    objectness, box = RPNCriterion(count=ALL, difficult=policy)(logits, torch.zeros(1, 3, 4), anchors, [target])
    total = positives * math.log1p(math.exp(-0.8)) + negatives * math.log1p(math.exp(0.8))
    assert objectness.item() == pytest.approx(total / (positives + negatives), rel=1e-5)
    assert box.item() == 0  # each anchor is its own box already


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match="difficult='dropped'"):
        RPNCriterion(difficult="dropped")


def test_bfloat16_outputs_are_judged_in_float32() -> None:
    logits, deltas, anchors, targets = scene()
    logits, deltas = logits.to(torch.bfloat16), deltas.to(torch.bfloat16)
    expected = RPNCriterion(count=ALL)(logits.float(), deltas.float(), anchors, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = RPNCriterion(count=ALL)(logits, deltas, anchors, targets)
    assert all(loss.dtype == torch.float32 for loss in found)
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_weights_of_one_are_no_weights_to_the_last_bit() -> None:
    logits, deltas, _, targets = scene()
    target = targets[0]
    anchors = target.boxes + 1.0  # three positives, nothing else
    logits, deltas = logits[:1, :3], deltas[:1, :3]
    objectness, box = RPNCriterion(count=ALL)(logits, deltas, anchors, [target])
    assert torch.equal(objectness, functional.softplus(-logits[0]).sum() / 3)
    shift = -1.0 / (anchors[:, 2:] - anchors[:, :2])
    wanted = torch.cat([shift, torch.zeros(3, 2)], dim=1)
    plain = functional.smooth_l1_loss(deltas[0], wanted, beta=1 / 9, reduction="none").sum(1).sum() / 3
    torch.testing.assert_close(box, plain)
