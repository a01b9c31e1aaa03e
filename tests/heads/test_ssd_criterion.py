"""The losses of SSD by hand and against torchvision's, hard negative mining, and the rules of who learns what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detector_builders import TinyBackbone, make_target, noise_images
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator as TorchvisionBoxes
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from transfer.heads import ssd_criterion
from transfer.heads.ssd import BOX_CODE, SSDOutput, ssd
from transfer.heads.ssd_criterion import SSDCriterion, hardest_negatives
from transfer.ops.anchors import DefaultBoxes, DefaultBoxGenerator
from transfer.ops.boxes import decode_boxes, encode_boxes, pairwise_iou
from transfer.types import Target, UserError

SIZE = (32, 32)
CPU = torch.device("cpu")


def defaults_of(size: tuple[int, int] = SIZE) -> DefaultBoxes:
    """At 32 px: 4 * 4 * 4 + 2 * 2 * 6 + 1 * 4 = 92."""
    generator = DefaultBoxGenerator([8, 16, 32], sides=[6, 12, 24, 36], ratios=[[2], [2, 3], [2]])
    return generator([(size[0] // s, size[1] // s) for s in (8, 16, 32)], size, CPU)


def random_output(images: int = 3, classes: int = 4, size: tuple[int, int] = SIZE, *, seed: int = 0) -> SSDOutput:
    generator, defaults = torch.Generator().manual_seed(seed), defaults_of(size)
    logits = 2 * torch.randn((images, len(defaults), classes + 1), generator=generator)
    return SSDOutput(logits, torch.randn((images, len(defaults), 4), generator=generator), defaults)


def scene() -> list[Target]:
    """Three images of 32 px: several boxes, one, none."""
    return [
        make_target([[1, 2, 6, 6], [8, 4, 17, 21], [3, 5, 30, 28], [20, 20, 25, 23]], [0, 3, 1, 2], size=SIZE),
        make_target([[10, 9, 30, 31]], [2], size=SIZE),
        make_target(size=SIZE),
    ]


def row_of_squares(count: int = 6) -> DefaultBoxes:
    """Squares of side 8 beside each other."""
    left = 8.0 * torch.arange(count)
    boxes = torch.stack([left, torch.zeros(count), left + 8, torch.full((count,), 8.0)], dim=1)
    return DefaultBoxes(boxes, boxes[:, :2])


def log_softmax(logits: Sequence[float], place: int) -> float:
    return logits[place] - math.log(sum(math.exp(x) for x in logits))


# ---- values ----


def test_both_losses_by_hand() -> None:
    # A box of 10 by 8 around (13, 4): the second square's with dx = 1/8, dw = log 1.25 (IoU 7 / 11). Two classes.
    output = SSDOutput(torch.zeros(1, 6, 3), torch.zeros(1, 6, 4), row_of_squares())
    output.logits[0, 1] = torch.tensor([0.5, 1.0, 0.0])
    output.logits[0, 3] = torch.tensor([0.0, 2.0, 0.0])  # hard
    output.logits[0, 4] = torch.tensor([0.0, 0.0, 3.0])  # easiest
    output.logits[0, 5] = torch.tensor([0.0, 0.0, 1.0])  # second easiest
    output.deltas[0, 1] = torch.tensor([1.0, 0.2, 0.0, -2.0])
    losses = SSDCriterion()(output, [make_target([[8, 0, 18, 8]], [1], size=(8, 48))])
    assert list(losses) == ["loss_class", "loss_box"]
    negatives = 2 * math.log(3) - log_softmax([0, 2, 0], 2)  # squares 0, 2 and 3; there are three times as many as one
    assert losses["loss_class"].item() == pytest.approx(-log_softmax([0.5, 1, 0], 1) + negatives, rel=1e-5)
    # Offsets over the variances 0.1 and 0.2: wanted are 1.25, 0, 5 log 1.25, 0; beyond 1 the loss is linear.
    expected = 0.5 * 0.25**2 + 0.5 * 0.2**2 + (5 * math.log(1.25) - 0.5) + (2 - 0.5)
    assert losses["loss_box"].item() == pytest.approx(expected, rel=1e-5)


def test_the_code_has_the_released_variances_and_decodes_what_it_encodes() -> None:
    assert [1 / factor for factor in BOX_CODE] == pytest.approx([0.1, 0.1, 0.2, 0.2])
    references = defaults_of().boxes
    boxes = references + torch.tensor([1.0, -2.0, 3.0, 2.5])
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, references, BOX_CODE), references, BOX_CODE), boxes)


def torchvisions_losses(output: SSDOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
    """torchvision's matching and losses; its background is class 0."""
    backbone = nn.Identity()
    backbone.out_channels = [1]  # type: ignore[assignment]
    model = TorchvisionSSD(backbone, TorchvisionBoxes([[2]]), SIZE, output.logits.shape[2])
    boxes, matched = output.default_boxes.boxes, []
    for target in targets:
        matched.append(torch.full((len(boxes),), -1))
        if len(target.boxes):
            iou = pairwise_iou(target.boxes, boxes)
            assert len(iou.argmax(dim=1).unique()) == len(iou)  # where two want one, it leaves it to the last
            matched[-1] = model.proposal_matcher(iou)
    truth = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]
    outputs = {"cls_logits": output.logits.roll(1, dims=2), "bbox_regression": output.deltas}
    return model.compute_loss(truth, outputs, [boxes] * len(targets), matched)


@pytest.mark.parametrize("seed", range(4))
def test_losses_are_torchvision_s(seed: int) -> None:
    output, targets = random_output(seed=seed), scene()
    expected = torchvisions_losses(output, targets)
    found = SSDCriterion()(output, targets)
    torch.testing.assert_close(found["loss_class"], expected["classification"])
    torch.testing.assert_close(found["loss_box"], expected["bbox_regression"])
    assert found["loss_class"] > 1


def test_the_factor_on_the_box_loss() -> None:
    output, targets = random_output(), scene()
    one, three = SSDCriterion()(output, targets), SSDCriterion(box_weight=3.0)(output, targets)
    torch.testing.assert_close(three["loss_box"], 3 * one["loss_box"])
    assert torch.equal(three["loss_class"], one["loss_class"])


def test_smoothed_classes_are_torch_s_and_the_background_is_one_of_them() -> None:
    output, targets = random_output(), scene()
    criterion = SSDCriterion(label_smoothing=0.1)
    assigned = criterion.assign(output, targets)
    chosen = hardest_negatives(output.logits, assigned.possible_negatives, 3 * assigned.counts)  # as without smoothing
    labels = torch.full((3 * 92,), 4)
    labels[assigned.positives] = assigned.labels
    taught = chosen.flatten()
    taught[assigned.positives] = True
    logits = output.logits.flatten(0, 1)[taught]
    expected = F.cross_entropy(logits, labels[taught], label_smoothing=0.1, reduction="sum") / len(assigned.positives)
    torch.testing.assert_close(criterion(output, targets)["loss_class"], expected)
    plain = F.cross_entropy(logits, labels[taught], reduction="sum") / len(assigned.positives)
    torch.testing.assert_close(SSDCriterion()(output, targets)["loss_class"], plain)


# ---- hard negative mining ----


def test_negatives_are_the_hardest_and_exactly_three_times_the_positives() -> None:
    output, targets = random_output(), scene()
    assigned = SSDCriterion().assign(output, targets)
    counts = assigned.counts.tolist()
    assert counts[0] >= 4
    assert counts[1] >= 1
    assert counts[2] == 0
    chosen = hardest_negatives(output.logits, assigned.possible_negatives, 3 * assigned.counts)
    assert chosen.sum(dim=1).tolist() == [3 * count for count in counts]
    background_loss = -output.logits.log_softmax(dim=2)[..., -1]
    for image in range(2):
        left = assigned.possible_negatives[image] & ~chosen[image]
        assert background_loss[image][chosen[image]].min() > background_loss[image][left].max()
    assert not (chosen.flatten()[assigned.positives]).any()


def test_mining_by_hand() -> None:
    logits = torch.tensor([[[0.0, 3], [2, 0], [1, 0], [4, 0], [3, 0]], [[9.0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]])
    possible = torch.tensor([[True, True, True, False, True], [False, True, False, True, True]])
    chosen = hardest_negatives(logits, possible, torch.tensor([2, 2]))
    assert chosen.tolist() == [[False, True, False, False, True], [False, True, False, True, False]]
    more_than_there_are = hardest_negatives(logits, possible, torch.tensor([9, 0]))
    assert more_than_there_are.tolist() == [possible[0].tolist(), [False] * 5]
    # Sure of any object is hard, whichever class it is.
    spread = torch.tensor([[[2.0, 0, 0, 1], [1.5, 1.5, 1.5, 1]]])
    assert hardest_negatives(spread, torch.ones(1, 2, dtype=torch.bool), torch.tensor([1])).tolist() == [[False, True]]


@pytest.mark.parametrize("ratio", [1, 2, 5])
def test_the_ratio_is_an_option_and_only_what_is_chosen_learns(ratio: int) -> None:
    output, targets = random_output(), scene()
    output.logits.requires_grad_()
    output.deltas.requires_grad_()
    criterion = SSDCriterion(negatives_per_positive=ratio)
    assigned = criterion.assign(output, targets)
    sum(criterion(output, targets).values()).backward()
    learnt = (output.logits.grad != 0).any(dim=2)
    assert learnt.sum(dim=1).tolist() == [count * (1 + ratio) for count in assigned.counts.tolist()]
    assert (output.deltas.grad != 0).any(dim=2).flatten().nonzero().flatten().tolist() == assigned.positives.tolist()


def test_an_image_s_negatives_do_not_depend_on_the_rest_of_the_batch() -> None:
    output, targets = random_output(), scene()
    alone = []
    for image in range(3):
        part = slice(image, image + 1)
        alone.append(
            SSDCriterion()(SSDOutput(output.logits[part], output.deltas[part], output.default_boxes), targets[part])
        )
    counts = SSDCriterion().assign(output, targets).counts
    together = SSDCriterion()(output, targets)
    for name, loss in together.items():
        sums = sum(losses[name] * count for losses, count in zip(alone, counts))
        torch.testing.assert_close(loss, sums / counts.sum())


# ---- processes, padding, difficult boxes ----


def test_losses_are_divided_by_the_mean_number_of_positives_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    output, targets = random_output(), scene()
    expected = SSDCriterion()(output, targets)
    count = len(SSDCriterion().assign(output, targets).positives)
    asked = []

    def another_process_has_none(value: float, device: torch.device) -> Tensor:
        asked.append(value)
        return torch.tensor(value / 2)

    monkeypatch.setattr(ssd_criterion, "mean_over_processes", another_process_has_none)
    found = SSDCriterion()(output, targets)
    assert asked == [count]
    for name, loss in found.items():
        torch.testing.assert_close(loss, 2 * expected[name])
    # One positive in two processes: divided by a half, not by one.
    one = SSDOutput(output.logits[1:2], output.deltas[1:2], output.default_boxes)
    single = SSDCriterion(iou=0.99)
    assert len(single.assign(one, targets[1:2]).positives) == 1
    monkeypatch.undo()
    alone = single(one, targets[1:2])
    monkeypatch.setattr(ssd_criterion, "mean_over_processes", another_process_has_none)
    for name, loss in single(one, targets[1:2]).items():
        torch.testing.assert_close(loss, 2 * alone[name])


def test_padding_changes_no_loss() -> None:
    """One image of 23 x 28 px on a canvas of 32, and padded to 64 x 96."""
    target = make_target([[1, 2, 6, 6], [8, 4, 17, 21], [20, 16, 28, 23]], [0, 1, 2], size=(23, 28))
    losses = []
    for size in (SIZE, (64, 96)):
        defaults = defaults_of(size)
        own = (defaults.boxes * torch.tensor([1.0, 3.0, 5.0, 7.0])).sum(dim=1)  # a number that is the box's own
        numbers = (own[:, None] * torch.arange(1.0, 9.0)).sin()[None]
        losses.append(SSDCriterion()(SSDOutput(numbers[..., :4], numbers[..., 4:], defaults), [target]))
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], rtol=1e-6, atol=0)


def test_nothing_on_padding_alone_is_ever_chosen() -> None:
    output = random_output(1)
    target = make_target([[1, 2, 9, 14]], [0], size=(17, 16))
    on_padding = ~output.default_boxes.on_image([(17, 16)])
    output.logits[on_padding] = torch.tensor([9.0, 9, 9, 9, -9])  # harder than anything
    assigned = SSDCriterion(iou=0.01).assign(output, [target])
    assert on_padding.sum() == 10 * 4 + 2 * 6  # columns 2 and 3 and row 3 of the finest map, column 1 of the next
    assert not (assigned.possible_negatives & on_padding).any()
    assert not on_padding.flatten()[assigned.positives].any()
    assert len(assigned.positives) + int(assigned.possible_negatives.sum()) == 92 - 52


@pytest.mark.parametrize(("policy", "positives", "negatives"), [("ignore", 1, 3), ("train", 2, 4), ("drop", 1, 5)])
def test_the_policy_on_difficult_boxes(policy: str, positives: int, negatives: int) -> None:
    # The difficult box overlaps squares 3 and 4 by 5/11 and by 3/13: neither by a half, square 3 most.
    target = make_target([[0, 0, 8, 8], [27, 0, 35, 8]], [0, 1], difficult=[False, True], size=(8, 48))
    if policy == "ignore":
        target.boxes = torch.cat([target.boxes, torch.tensor([[40.0, 0, 48, 6]])])  # square 5 by 3/4
        target.labels, target.weights = torch.tensor([0, 1, 1]), torch.ones(3)
        target.difficult = torch.tensor([False, True, True])
    output = SSDOutput(torch.zeros(1, 6, 3), torch.zeros(1, 6, 4), row_of_squares())
    assigned = SSDCriterion(difficult=policy).assign(output, [target])
    assert (len(assigned.positives), int(assigned.possible_negatives.sum())) == (positives, negatives)


def test_default_boxes_on_an_ignored_region_are_no_negatives_however_hard() -> None:
    target = make_target([[0, 0, 8, 8], [24, 0, 32, 8]], [0, 1], difficult=[False, True], size=(8, 48))
    output = SSDOutput(torch.zeros(1, 6, 3), torch.zeros(1, 6, 4), row_of_squares())
    output.logits[0, 3] = torch.tensor([0.0, 30.0, 0.0])
    assert SSDCriterion()(output, [target])["loss_class"].item() == pytest.approx(4 * math.log(3), rel=1e-5)
    assert SSDCriterion(difficult="drop")(output, [target])["loss_class"].item() > 30


# ---- mixup ----


def test_weights_of_one_are_no_weights_to_the_last_bit() -> None:
    """Against the same sums written without weights, losses and gradients."""
    output, targets = random_output(), scene()
    numbers = (output.logits.requires_grad_(), output.deltas.requires_grad_())
    losses = SSDCriterion()(output, targets)
    found = torch.autograd.grad(sum(losses.values()), numbers, retain_graph=True)
    assigned = SSDCriterion().assign(output, targets)
    chosen = hardest_negatives(output.logits, assigned.possible_negatives, 3 * assigned.counts).flatten()
    rows = torch.cat([assigned.positives, chosen.nonzero().flatten()])
    labels = torch.cat([assigned.labels, torch.full((int(chosen.sum()),), 4)])
    classes = F.cross_entropy(output.logits.flatten(0, 1)[rows], labels, reduction="none").sum()
    wanted = encode_boxes(assigned.boxes, output.default_boxes.boxes[assigned.positives % 92], BOX_CODE)
    distance = F.smooth_l1_loss(output.deltas.flatten(0, 1)[assigned.positives], wanted, reduction="none")
    classes, box = classes / len(assigned.positives), distance.sum(dim=1).sum() / len(assigned.positives)
    assert torch.equal(losses["loss_class"], classes)
    assert torch.equal(losses["loss_box"], box)
    for gradient, expected in zip(found, torch.autograd.grad(classes + box, numbers)):
        assert torch.equal(gradient, expected)


def test_weights_of_a_half_halve_the_positives_part_and_leave_the_negatives() -> None:
    output, targets = random_output(), scene()
    assigned = SSDCriterion().assign(output, targets)
    full = SSDCriterion()(output, targets)
    for target in targets:
        target.weights = target.weights / 2
    half = SSDCriterion()(output, targets)
    torch.testing.assert_close(half["loss_box"], full["loss_box"] / 2)
    of_positives = F.cross_entropy(output.logits.flatten(0, 1)[assigned.positives], assigned.labels, reduction="sum")
    of_positives = of_positives / len(assigned.positives)
    torch.testing.assert_close(half["loss_class"], full["loss_class"] - of_positives / 2)
    assert of_positives < full["loss_class"]  # negatives have a part, too


def test_each_box_counts_with_its_own_weight() -> None:
    output, targets = random_output(1), scene()[:1]

    def losses(*weights: float) -> Tensor:
        targets[0].weights = torch.tensor(weights)
        return torch.stack(list(SSDCriterion()(output, targets).values()))

    tiny = 1e-9  # weights are above zero
    nothing = losses(tiny, tiny, tiny, tiny)
    shares = [losses(*(1.0 if i == k else tiny for i in range(4))) - nothing for k in range(4)]
    assert all((share > 1e-3).all() for share in shares)
    expected = nothing + 0.5 * shares[0] + 0.2 * shares[1] + 0.9 * shares[2] + 0.35 * shares[3]
    torch.testing.assert_close(losses(0.5, 0.2, 0.9, 0.35), expected, rtol=1e-4, atol=1e-4)


# ---- edges, precision, options ----


def test_no_box_at_all_teaches_nothing() -> None:
    output = random_output(2)
    output.logits.requires_grad_()
    output.deltas.requires_grad_()
    losses = SSDCriterion()(output, [make_target(size=SIZE)] * 2)
    sum(losses.values()).backward()
    assert {name: loss.item() for name, loss in losses.items()} == {"loss_class": 0.0, "loss_box": 0.0}
    assert not output.logits.grad.any()
    assert not output.deltas.grad.any()


@pytest.mark.parametrize("boxes", [[[10, 10, 60, 70]], []], ids=["one box", "none"])
def test_every_parameter_gets_a_gradient(boxes: list[list[float]]) -> None:
    torch.manual_seed(0)
    model = ssd(TinyBackbone(), 3, image_size=96, l2_norm="all", extra_widths=[32])
    targets = [make_target(boxes, [1] * len(boxes)), make_target()]
    sum(SSDCriterion()(model(noise_images(2), []), targets).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.isfinite().all(), name


def test_a_box_without_area_is_no_positive() -> None:
    output, target = random_output(1), make_target([[5, 5, 5, 9], [8, 4, 17, 21]], [0, 3], size=SIZE)
    assigned = SSDCriterion().assign(output, [target])
    assert set(assigned.labels.tolist()) == {3}
    assert all(loss.isfinite() for loss in SSDCriterion()(output, [target]).values())


def test_half_precision_outputs_are_judged_in_float32() -> None:
    output = random_output()
    half = SSDOutput(output.logits.half(), output.deltas.half(), output.default_boxes)
    rounded = SSDOutput(half.logits.float(), half.deltas.float(), output.default_boxes)
    expected = SSDCriterion(label_smoothing=0.1)(rounded, scene())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = SSDCriterion(label_smoothing=0.1)(half, scene())
    assert all(loss.dtype == torch.float32 for loss in found.values())
    assert found == expected


def test_all_mistakes_are_named_at_once() -> None:
    wrong: dict[str, Any] = {"iou": 0, "negatives_per_positive": 2.5, "box_weight": 0, "label_smoothing": True}
    with pytest.raises(UserError) as error:
        SSDCriterion(**wrong)
    for name, value in wrong.items():
        assert f"{name}={value!r}" in str(error.value)
    with pytest.raises(UserError, match="difficult='dropped'"):
        SSDCriterion(difficult="dropped")
