"""The losses of YOLOv3 by hand, against a plain loop over boxes and slots, and the rules of who learns what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from detector_builders import TinyBackbone, make_target, noise_images
from torch import Tensor

from transfer.heads import yolov3_criterion
from transfer.heads.yolov3 import YOLOv3Output, yolov3
from transfer.heads.yolov3_criterion import BOX_LOSSES, Assignment, YOLOv3Criterion, overlaps
from transfer.losses.iou import box_iou_loss
from transfer.ops.anchor_grid import AnchorGrid, Grid
from transfer.ops.boxes import pairwise_iou
from transfer.types import Target, UserError

SHAPES = (((4.0, 4.0),), ((8.0, 16.0),), ((24.0, 20.0),))
PAPER = ["loss_objectness", "loss_center", "loss_size", "loss_class"]


def output_of(raw: Tensor, size: tuple[int, int] = (32, 32)) -> YOLOv3Output:
    """An output with one anchor a cell."""
    grid = AnchorGrid(SHAPES, (8, 16, 32))([(size[0] // s, size[1] // s) for s in (8, 16, 32)], raw.device)
    assert raw.shape[1] == len(grid.slots)
    return YOLOv3Output(raw, grid)


def random_raw(images: int = 3, classes: int = 4, size: tuple[int, int] = (32, 32), *, seed: int = 0) -> Tensor:
    slots = sum(size[0] // s * (size[1] // s) for s in (8, 16, 32))
    return torch.randn((images, slots, 5 + classes), generator=torch.Generator().manual_seed(seed))


def scene() -> list[Target]:
    """Three images of 32 px: several boxes, one, none."""
    return [
        make_target([[1, 2, 6, 6], [8, 4, 17, 21], [3, 5, 30, 28], [20, 20, 25, 23]], [0, 3, 1, 2], size=(32, 32)),
        make_target([[10, 9, 30, 31]], [2], size=(32, 32)),
        make_target(size=(32, 32)),
    ]


def bce(logit: float, target: float) -> float:
    return target * math.log1p(math.exp(-logit)) + (1 - target) * math.log1p(math.exp(logit))


def by_loops(
    raw: Tensor, targets: Sequence[Target], *, smoothing: float = 0.0, ignore: float = 0.7
) -> dict[str, float]:
    """The paper's losses, slot by slot and box by box, for boxes on different slots of images of 32 px."""
    sums = dict.fromkeys(PAPER, 0.0)
    slots = [
        (stride, row, column) for stride in (8, 16, 32) for row in range(32 // stride) for column in range(32 // stride)
    ]
    shapes = {8: (4.0, 4.0), 16: (8.0, 16.0), 32: (24.0, 20.0)}
    for image, target in zip(raw.tolist(), targets):
        boxes = target.boxes.tolist()
        owners: dict[int, int] = {}
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            w, h = x1 - x0, y1 - y0

            def fit(stride: int, w: float = w, h: float = h) -> float:
                shared = min(w, shapes[stride][0]) * min(h, shapes[stride][1])
                return shared / (w * h + shapes[stride][0] * shapes[stride][1] - shared)

            stride = max(shapes, key=fit)
            cell = (stride, int((y0 + y1) / 2 // stride), int((x0 + x1) / 2 // stride))
            assert slots.index(cell) not in owners
            owners[slots.index(cell)] = number
        for slot, (stride, row, column) in enumerate(slots):
            tx, ty, tw, th, objectness, *classes = image[slot]
            width, height = shapes[stride]
            if slot in owners:
                x0, y0, x1, y1 = boxes[owners[slot]]
                weight = target.weights[owners[slot]].item()
                factor = weight * (2 - (x1 - x0) * (y1 - y0) / (32 * 32))
                sums["loss_objectness"] += weight * bce(objectness, 1)
                sums["loss_center"] += factor * bce(tx, (x0 + x1) / 2 / stride - column)
                sums["loss_center"] += factor * bce(ty, (y0 + y1) / 2 / stride - row)
                sums["loss_size"] += factor * abs(tw - math.log((x1 - x0) / width))
                sums["loss_size"] += factor * abs(th - math.log((y1 - y0) / height))
                for k, logit in enumerate(classes):
                    true = k == target.labels[owners[slot]]
                    sums["loss_class"] += weight * bce(logit, 1 - smoothing if true else smoothing)
                continue
            x, y = (column + 1 / (1 + math.exp(-tx))) * stride, (row + 1 / (1 + math.exp(-ty))) * stride
            w, h = width * math.exp(tw), height * math.exp(th)
            found = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])
            if not boxes or pairwise_iou(found, target.boxes).max() <= ignore:
                sums["loss_objectness"] += bce(objectness, 0)
    return {name: value / len(targets) for name, value in sums.items()}


# ---- values ----


def test_every_term_by_hand() -> None:
    # A box of 4 x 4 around (10, 13): the cell in column 1, row 1 of the finest level, of 16 + 4 + 1 slots, whose raw
    # numbers are 0 but for this one's. Offsets 0.25 and 0.625 and tw = th = 0 are wanted; the factor is 2 - 16 / 1024.
    raw = torch.zeros(1, 21, 7)
    raw[0, 5] = torch.tensor([math.log(3), 0.0, 0.5, -0.25, 1.0, -1.0, 2.0])
    losses = YOLOv3Criterion()(output_of(raw), [make_target([[8, 11, 12, 15]], [1], size=(32, 32))])
    assert list(losses) == PAPER
    factor = 2 - 16 / 1024
    center = 0.25 * -math.log(0.75) + 0.75 * -math.log(0.25) + math.log(2)  # cross entropy of 0.75 and of 0.5
    assert losses["loss_objectness"].item() == pytest.approx(20 * math.log(2) + math.log1p(math.exp(-1)), rel=1e-5)
    assert losses["loss_center"].item() == pytest.approx(factor * center, rel=1e-5)
    assert losses["loss_size"].item() == pytest.approx(factor * 0.75, rel=1e-5)
    expected = math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))  # class 0 at -1 is false, class 1 at 2 is true
    assert losses["loss_class"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", BOX_LOSSES[1:])
def test_a_box_loss_is_that_of_the_decoded_box(kind: str) -> None:
    raw = torch.zeros(1, 21, 6)
    raw[0, 5, :4] = torch.tensor([0.0, 0.0, math.log(2), 0.0])  # 8 x 4 around (12, 12)
    target = make_target([[8, 11, 12, 15]], [0], weights=[0.5], size=(32, 32))
    losses = YOLOv3Criterion(box_loss=kind, box_weight=3.0)(output_of(raw), [target])
    assert list(losses) == ["loss_objectness", "loss_box", "loss_class"]
    expected = box_iou_loss(kind, torch.tensor([[8.0, 10.0, 16.0, 14.0]]), target.boxes)
    assert losses["loss_box"].item() == pytest.approx(0.5 * 3 * expected.item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smoothing", [False, True])
def test_losses_are_those_of_a_plain_loop(seed: int, smoothing: bool) -> None:
    raw, targets = random_raw(seed=seed), scene()
    targets[0].weights = torch.tensor([0.3, 1.0, 0.7, 0.3])
    criterion = YOLOv3Criterion(label_smoothing=smoothing, ignore_iou=0.15)
    losses = criterion(output_of(raw), targets)
    expected = by_loops(raw, targets, smoothing=1 / 40 if smoothing else 0.0, ignore=0.15)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    some_are_ignored = by_loops(raw, targets, ignore=1.0)["loss_objectness"]
    assert abs(some_are_ignored - expected["loss_objectness"]) > 0.05


@pytest.mark.parametrize(("classes", "smoothing"), [(1, 1 / 40), (20, 1 / 40), (40, 1 / 40), (80, 1 / 80)])
def test_smoothed_classes(classes: int, smoothing: float) -> None:
    raw = torch.zeros(1, 21, 5 + classes)
    logits = torch.linspace(-2, 2, classes)
    raw[0, 5, 5:] = logits
    losses = YOLOv3Criterion(label_smoothing=True)(output_of(raw), [make_target([[8, 11, 12, 15]], [0], size=(32, 32))])
    expected = bce(logits[0].item(), 1 - smoothing) + sum(bce(x, smoothing) for x in logits[1:].tolist())
    assert losses["loss_class"].item() == pytest.approx(expected, rel=1e-5)


def test_focal_losses_by_hand() -> None:
    raw = torch.zeros(1, 21, 7)
    raw[0, 5, 4:] = torch.tensor([math.log(4), math.log(4), 0.0])
    target = [make_target([[8, 11, 12, 15]], [0], size=(32, 32))]
    criterion = YOLOv3Criterion(objectness_loss="focal", class_loss="focal", focal_alpha=0.25, focal_gamma=2.0)
    losses = criterion(output_of(raw), target)
    positive, negative = 0.25 * 0.04 * -math.log(0.8), 0.75 * 0.25 * math.log(2)
    assert losses["loss_objectness"].item() == pytest.approx(positive + 20 * negative, rel=1e-5)
    assert losses["loss_class"].item() == pytest.approx(positive + negative, rel=1e-5)
    plain = YOLOv3Criterion(class_loss="focal")(output_of(raw), target)
    assert plain["loss_objectness"].item() == pytest.approx(-math.log(0.8) + 20 * math.log(2), rel=1e-5)


# ---- batches, processes, padding ----


def test_the_loss_of_a_batch_is_the_mean_over_its_images() -> None:
    raw, targets = random_raw(), scene()
    together = YOLOv3Criterion()(output_of(raw), targets)
    alone = [YOLOv3Criterion()(output_of(raw[i : i + 1]), targets[i : i + 1]) for i in range(3)]
    for name, loss in together.items():
        torch.testing.assert_close(loss, sum(x[name] for x in alone) / 3)


def test_losses_are_divided_by_the_mean_number_of_images_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, targets = random_raw(), scene()
    expected = YOLOv3Criterion()(output_of(raw), targets)
    asked = []

    def other_processes_have_more(value: float, device: torch.device) -> Tensor:
        asked.append(value)
        return torch.tensor(6.0)

    monkeypatch.setattr(yolov3_criterion, "mean_over_processes", other_processes_have_more)
    found = YOLOv3Criterion()(output_of(raw), targets)
    assert asked == [3]
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name] / 2)


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_padding_changes_no_loss(box_loss: str) -> None:
    """One image alone, 23 x 28 px on a canvas of 32, and padded to 64 x 96."""
    target = make_target([[1, 2, 6, 6], [8, 4, 17, 21], [20, 16, 28, 23]], [0, 1, 2], size=(23, 28))
    losses = []
    for size in ((32, 32), (64, 96)):
        slots = output_of(random_raw(1, 3, size), size).grid.slots
        places = torch.cat([slots.cells, slots.strides], dim=1).sum(dim=1)  # a raw number that is the slot's own
        raw = (places[:, None] * torch.arange(1.0, 9.0)).sin()[None]
        losses.append(YOLOv3Criterion(box_loss=box_loss, ignore_iou=0.3)(output_of(raw, size), [target]))
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], rtol=1e-6, atol=0)


def test_slots_on_padding_alone_get_no_gradient() -> None:
    raw = random_raw(1, 2).requires_grad_()
    target = make_target([[1, 2, 6, 6]], [0], size=(17, 16))  # columns 0 and 1, rows 0 to 2 of the finest level
    sum(YOLOv3Criterion()(output_of(raw), [target]).values()).backward()
    learnt = raw.grad[0, :, 4] != 0
    expected = [row < 3 and column < 2 for row in range(4) for column in range(4)]
    assert learnt.tolist() == [*expected, True, False, True, False, True]


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_no_box_at_all(box_loss: str) -> None:
    raw = random_raw(2).requires_grad_()
    losses = YOLOv3Criterion(box_loss=box_loss)(output_of(raw), [make_target(size=(32, 32))] * 2)
    sum(losses.values()).backward()
    assert {name: loss.item() for name, loss in losses.items() if name != "loss_objectness"} == dict.fromkeys(
        [name for name in losses if name != "loss_objectness"], 0.0
    )
    assert raw.grad[..., 4].all()
    assert not raw.grad[..., [0, 1, 2, 3, 5, 6]].any()


@pytest.mark.parametrize("box_loss", ["paper", "ciou"])
@pytest.mark.parametrize("boxes", [[[10, 10, 60, 70]], []], ids=["one box", "none"])
def test_every_parameter_gets_a_gradient(box_loss: str, boxes: list[list[float]]) -> None:
    torch.manual_seed(0)
    model = yolov3(TinyBackbone(), 3, width=0.1, norm="group")
    targets = [make_target(boxes, [1] * len(boxes)), make_target()]
    sum(YOLOv3Criterion(box_loss=box_loss)(model(noise_images(2), []), targets).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.isfinite().all(), name


# ---- who learns what ----


@pytest.mark.parametrize(
    ("moved", "threshold", "is_negative"),
    [(0.5, 0.7, False), (0.5, 0.79, True), (1.0, 0.7, True), (1.0, 0.59, False)],  # IoU 3.5 / 4.5 and 3 / 5
)
def test_slots_that_overlap_a_truth_box_by_more_than_the_threshold_are_ignored(
    moved: float, threshold: float, is_negative: bool
) -> None:
    raw = torch.zeros(1, 21, 6)
    raw[0, 6, 0] = -12.0  # the cell from 16 to 24 px says a box of 4 x 4 around (16, 12)
    target = make_target([[14 - moved, 10, 18 - moved, 14]], [0], size=(32, 32))  # its own cell is from 8 to 16
    assigned = YOLOv3Criterion(ignore_iou=threshold).assign(output_of(raw), [target])
    assert assigned.positives.tolist() == [5]
    assert assigned.negatives[6].item() == is_negative
    assert int(assigned.negatives.sum()) == 19 + is_negative


def test_the_positive_slot_stays_positive_however_well_others_overlap() -> None:
    raw = torch.zeros(1, 21, 6)
    target = make_target([[9, 9, 14, 14], [4, 4, 28, 24]], [0, 0], size=(32, 32))
    assigned = YOLOv3Criterion(ignore_iou=0.01).assign(output_of(raw), [target])
    assert assigned.positives.tolist() == [5, 20]
    assert not assigned.negatives[[5, 20]].any()
    assert assigned.boxes.tolist() == target.boxes.tolist()


@pytest.mark.parametrize("pieces", [1, 10**9])
def test_overlaps_are_pairwise_ious_within_an_image(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolov3_criterion, "_PAIRS", pieces)
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand((2, 40, 2), generator=generator) * 20
    boxes = torch.cat([corner, corner + 1 + 10 * torch.rand((2, 40, 2), generator=generator)], dim=2)
    regions = torch.cat([boxes[0, :3] + 1, boxes[1, :2] + 1, boxes[0, 9:10] - 1])
    images = torch.tensor([0, 0, 0, 1, 1, 0])
    found = overlaps(boxes, regions, images, 0.4)
    for image in range(2):
        expected = (pairwise_iou(boxes[image], regions[images == image]) > 0.4).any(dim=1)
        assert torch.equal(found[image], expected)
    assert 0 < found.sum() < found.numel()


@pytest.mark.parametrize(("policy", "positives", "negatives"), [("ignore", 1, 19), ("train", 2, 19), ("drop", 1, 20)])
def test_the_policy_on_difficult_boxes(policy: str, positives: int, negatives: int) -> None:
    target = make_target([[8, 11, 12, 15], [17, 19, 21, 23]], [0, 1], difficult=[False, True], size=(32, 32))
    assigned = YOLOv3Criterion(difficult=policy).assign(output_of(torch.zeros(1, 21, 7)), [target])
    assert (len(assigned.positives), int(assigned.negatives.sum())) == (positives, negatives)


def test_slots_that_overlap_a_difficult_box_are_no_negatives() -> None:
    raw = torch.zeros(1, 21, 7)
    target = make_target([[8.5, 8.5, 15.5, 15.5]], [0], difficult=[True], size=(32, 32))
    raw[0, 5, 2:4] = math.log(7 / 4)  # the cell's own box is now the difficult one
    raw[0, 16, :4] = torch.tensor([1.1, 1.1, math.log(7 / 8), math.log(7 / 16)])  # around (12, 12), on the next level
    for policy, negatives in (("ignore", [False, False]), ("drop", [True, True])):
        assigned = YOLOv3Criterion(difficult=policy).assign(output_of(raw), [target])
        assert assigned.negatives[[5, 16]].tolist() == negatives


# ---- mixup ----


def test_weights_of_one_are_no_weights_to_the_last_bit() -> None:
    """Against the same sums written without weights, losses and gradients."""
    raw, targets = random_raw().requires_grad_(), scene()
    losses = YOLOv3Criterion()(output_of(raw), targets)
    (gradient,) = torch.autograd.grad(sum(losses.values()), raw, retain_graph=True)
    assigned = YOLOv3Criterion().assign(output_of(raw), targets)
    of_slots = raw.flatten(0, 1)
    positives = of_slots[assigned.positives]
    wanted = torch.zeros(len(of_slots))
    wanted[assigned.positives] = 1
    taught = assigned.negatives | (wanted == 1)
    functional = torch.nn.functional.binary_cross_entropy_with_logits
    objectness = functional(of_slots[:, 4], wanted, reduction="none")
    assert torch.equal(losses["loss_objectness"], torch.where(taught, objectness, 0.0).sum() / 3)
    classes = functional(positives[:, 5:], assigned.classes.float(), reduction="none").sum() / 3
    assert torch.equal(losses["loss_class"], classes)
    slots = output_of(raw).grid.slots.take(assigned.positives % 21)
    offsets, log_sides = slots.encode(assigned.boxes)
    factor = 2 - (assigned.boxes[:, 2:] - assigned.boxes[:, :2]).prod(dim=1) / (32 * 32)
    center = (functional(positives[:, :2], offsets, reduction="none").sum(dim=1) * factor).sum() / 3
    size = ((positives[:, 2:4] - log_sides).abs().sum(dim=1) * factor).sum() / 3
    assert torch.equal(losses["loss_center"], center)
    assert torch.equal(losses["loss_size"], size)
    plain = torch.where(taught, objectness, 0.0).sum() / 3 + center + size + classes
    (expected,) = torch.autograd.grad(plain, raw)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("box_loss", ["paper", "giou"])
def test_a_box_counts_as_often_as_its_weight_says_and_negatives_always_once(box_loss: str) -> None:
    raw, targets = random_raw(1), scene()[:1]

    def losses(*weights: float) -> Tensor:
        targets[0].weights = torch.tensor(weights)
        return torch.stack(list(YOLOv3Criterion(box_loss=box_loss)(output_of(raw), targets).values()))

    tiny = 1e-9  # weights are above zero
    nothing = losses(tiny, tiny, tiny, tiny)
    assert nothing[0] > 5
    assert nothing[1:].abs().max() < 1e-6
    shares = [losses(*(1.0 if i == k else tiny for i in range(4))) - nothing for k in range(4)]
    assert all((share > 1e-3).all() for share in shares)
    weighted = losses(0.5, 0.2, 0.9, 0.35)
    expected = nothing + 0.5 * shares[0] + 0.2 * shares[1] + 0.9 * shares[2] + 0.35 * shares[3]
    torch.testing.assert_close(weighted, expected, rtol=1e-4, atol=1e-4)


def test_two_boxes_on_one_slot() -> None:
    boxes = [[8, 11, 12, 15], [9, 9, 14, 14], [8, 8, 12, 12], [17, 17, 21, 21]]
    target = make_target(boxes, [2, 0, 2, 1], weights=[0.25, 0.75, 0.25, 0.5], size=(32, 32))
    assigned = YOLOv3Criterion().assign(output_of(torch.zeros(1, 21, 9)), [target])
    assert assigned.positives.tolist() == [5, 10]
    assert assigned.boxes.tolist() == [[9, 9, 14, 14], [17, 17, 21, 21]]  # of the larger weight
    assert assigned.weights.tolist() == [0.75, 0.5]
    assert assigned.classes.tolist() == [[True, False, True, False], [False, True, False, False]]
    # Each class of the slot with its own box's weight, the classes of neither with the slot's.
    assert assigned.class_weights.tolist() == [[0.75, 0.75, 0.25, 0.75], [0.5] * 4]


def test_of_two_boxes_of_equal_weight_the_first_has_the_slot() -> None:
    boxes = [[8, 11, 12, 15], [9, 9, 14, 14], [8, 8, 12, 12]]
    target = make_target(boxes, [1, 0, 1], size=(32, 32))
    assigned = YOLOv3Criterion().assign(output_of(torch.zeros(1, 21, 7)), [target])
    assert assigned.boxes.tolist() == [[8, 11, 12, 15]]
    assert assigned.classes.tolist() == [[True, True]]
    target.boxes = target.boxes.flip(0)
    assigned = YOLOv3Criterion().assign(output_of(torch.zeros(1, 21, 7)), [target])
    assert assigned.boxes.tolist() == [[8, 8, 12, 12]]


def anchors_of(assigned: Assignment, grid: Grid) -> list[tuple[int, float, float, float]]:
    """(image, column, row, width of the anchor) of each positive."""
    places = [(int(slot) // len(grid.slots), int(slot) % len(grid.slots)) for slot in assigned.positives]
    return [(image, *grid.slots.cells[slot].tolist(), float(grid.slots.anchors[slot, 0])) for image, slot in places]


def test_further_positives_are_the_anchors_whose_shape_overlaps_by_more() -> None:
    # 12x15 at (14, 18): shape IoU with 4x4 16/180, with 8x16 120/188 = 0.638, with 24x20 180/480 = 0.375
    output, targets = output_of(random_raw(1)), [make_target([[8, 10.5, 20, 25.5]], [2], size=(32, 32))]
    found = {
        iou: anchors_of(YOLOv3Criterion(positive_iou=iou).assign(output, targets), output.grid)
        for iou in (None, 0.64, 0.37, 0.38, 0.05)
    }
    own, coarse, fine = (0, 0.0, 1.0, 8.0), (0, 0.0, 0.0, 24.0), (0, 1.0, 2.0, 4.0)
    assert found[None] == found[0.64] == found[0.38] == [own]  # the nearest anchor's slot, whatever its IoU
    assert found[0.37] == [own, coarse]
    assert found[0.05] == [fine, own, coarse]
    assigned = YOLOv3Criterion(positive_iou=0.05).assign(output, targets)
    assert assigned.boxes.tolist() == [[8, 10.5, 20, 25.5]] * 3
    assert assigned.classes.tolist() == [[False, False, True, False]] * 3
    assert not assigned.negatives[assigned.positives].any()


def test_a_slot_that_is_a_boxs_own_is_not_given_to_another() -> None:
    # the large box is nearest to 24x20 and would also take 8x16 in its cell, which is the small one's own
    small, large = [9.0, 9.0, 17.0, 23.0], [4.0, 6.0, 22.0, 26.0]
    output = output_of(random_raw(1))
    targets = [make_target([large, small], [0, 1], size=(32, 32), weights=[1.0, 0.2])]
    assigned = YOLOv3Criterion(positive_iou=0.3).assign(output, targets)
    at = dict(zip([width for *_, width in anchors_of(assigned, output.grid)], range(len(assigned.positives))))
    assert assigned.boxes[at[8.0]].tolist() == small
    assert assigned.classes[at[8.0]].tolist() == [False, True, False, False]


@pytest.mark.parametrize(("weights", "winner"), [([0.5, 1.0], 1), ([1.0, 0.5], 0), ([1.0, 1.0], 1)])
def test_of_two_boxes_that_want_a_further_slot_the_heavier_has_it_then_the_better_fitting(
    weights: list[float], winner: int
) -> None:
    # both are nearest to 24x20 in different images' cells of stride 32, and want 8x16 in one cell of stride 16
    boxes = [[2.0, 1.0, 14.0, 29.0], [3.0, 1.0, 13.0, 29.0]]  # 12x28 and 10x28: IoU with 8x16 0.381 and 0.457
    shapes = ([(40.0, 4.0)], [(8.0, 16.0)], [(11.0, 28.0), (11.5, 28.0)])
    grid = AnchorGrid(shapes, (8, 16, 32))([(4, 4), (2, 2), (1, 1)], torch.device("cpu"))
    output = YOLOv3Output(torch.zeros(1, len(grid.slots), 7), grid)
    targets = [make_target(boxes, [0, 1], size=(32, 32), weights=weights)]
    assigned = YOLOv3Criterion(positive_iou=0.3).assign(output, targets)
    at = [width for *_, width in anchors_of(assigned, grid)].index(8.0)
    assert assigned.boxes[at].tolist() == boxes[winner]
    assert assigned.classes[at].tolist() == [winner == 0, winner == 1]


def test_boxes_of_two_images_never_share_a_slot() -> None:
    one, two = make_target([[8, 11, 12, 15]], [1], size=(32, 32)), make_target([[9, 9, 14, 14]], [0], size=(32, 32))
    assigned = YOLOv3Criterion().assign(output_of(torch.zeros(2, 21, 7)), [one, two])
    assert assigned.positives.tolist() == [5, 21 + 5]
    assert assigned.images.tolist() == [0, 1]


# ---- precision, options ----


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_half_precision_outputs_are_judged_in_float32(box_loss: str) -> None:
    criterion = YOLOv3Criterion(box_loss=box_loss)
    raw = random_raw().half()
    expected = criterion(output_of(raw.float()), scene())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = criterion(output_of(raw), scene())
    assert all(loss.dtype == torch.float32 for loss in found.values())
    assert found == expected


def test_all_mistakes_are_named_at_once() -> None:
    wrong: dict[str, Any] = {"box_loss": "l2", "box_weight": 0, "label_smoothing": 0.1, "ignore_iou": 1.5}
    with pytest.raises(UserError) as error:
        YOLOv3Criterion(**wrong)
    for name, value in wrong.items():
        assert f"{name}={value!r}" in str(error.value)
    with pytest.raises(UserError, match="class_loss='softmax'"):
        YOLOv3Criterion(class_loss="softmax")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="difficult='dropped'"):
        YOLOv3Criterion(difficult="dropped")
