"""The second stage: levels by the paper's formula, pooling by hand, sampled regions, losses against torchvision's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detector_builders import make_target
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import roi_align

from transfer.heads.box_head import (
    BACKGROUND,
    BoxCriterion,
    BoxPredictor,
    PyramidRoIAlign,
    RegionSampler,
    RegionTargets,
    TwoLayerHead,
)
from transfer.types import UserError

STRIDES = (4, 8, 16, 32)


# ---- pooling ----


def square(side: float, x: float = 0.0, y: float = 0.0) -> list[float]:
    return [float(x), float(y), float(x + side), float(y + side)]


@pytest.mark.parametrize(
    ("side", "stride"),
    [(1, 4), (111.9, 4), (112, 8), (223.9, 8), (224, 16), (447.9, 16), (448, 32), (895, 32), (5000, 32)],
)
def test_the_level_of_a_square(side: float, stride: int) -> None:
    boxes = torch.tensor([square(side, 3, 5)])
    assert STRIDES[PyramidRoIAlign(STRIDES).levels(boxes).item()] == stride
    assert PyramidRoIAlign((16, 32)).levels(boxes).item() == (stride == 32)


def test_the_level_is_that_of_the_fpn_paper_for_any_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = torch.exp(torch.rand((300, 2), generator=generator) * 8)
    boxes = torch.cat([torch.full((300, 2), 7.0), 7 + sides], dim=1)
    for strides, canonical in ((STRIDES, 224.0), (STRIDES, 56.0), ((8, 16, 32), 224.0)):
        finest, coarsest = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
        expected = []
        for x0, y0, x1, y1 in boxes.tolist():
            k = math.floor(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / canonical))
            expected.append(min(max(k, finest), coarsest) - finest)
        assert PyramidRoIAlign(strides, canonical_side=canonical).levels(boxes).tolist() == expected
        assert set(expected) == set(range(len(strides)))


def test_a_region_without_area_belongs_to_the_finest_level() -> None:
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [5.0, 5.0, 5.0, 900.0]])
    assert PyramidRoIAlign(STRIDES).levels(boxes).tolist() == [0, 0]


@pytest.mark.parametrize("ratio", [0, -1])
def test_a_number_of_samples_that_grows_with_the_region_is_refused(ratio: int) -> None:
    with pytest.raises(UserError, match="sampling_ratio"):
        PyramidRoIAlign(STRIDES, sampling_ratio=ratio)


def random_maps(channels: int = 3, batch: int = 2) -> list[Tensor]:
    """Maps of a 128x192 image, and one coarser that is not for pooling."""
    generator = torch.Generator().manual_seed(1)
    return [torch.rand((batch, channels, 128 // s, 192 // s), generator=generator) for s in (*STRIDES, 64)]


def test_every_region_is_pooled_from_its_own_image_and_level() -> None:
    maps, pool = random_maps(), PyramidRoIAlign(STRIDES, output_size=5, canonical_side=56.0)
    boxes = [
        torch.tensor([square(100, 10, 20), square(10, 5, 5), square(60, 50, 30)]),
        torch.tensor([square(20, 100, 40), square(120, 30, 3), square(30, 7, 77), square(16, 3, 3)]),
    ]
    pooled = pool(maps, boxes)
    expected = []
    for image, regions in enumerate(boxes):
        for region in regions:
            level = int(pool.levels(region[None]).item())
            features = maps[level][image : image + 1]
            expected.append(roi_align(features, [region[None]], 5, 1 / STRIDES[level], 2, aligned=True))
    torch.testing.assert_close(pooled, torch.cat(expected))
    assert {int(level) for level in pool.levels(torch.cat(boxes))} == {0, 1, 2, 3}


def test_a_bin_holds_the_coordinates_of_its_middle_whatever_the_level() -> None:
    # A map that holds, in pixels, where each of its cells lies: linear, so interpolation is exact inside it.
    maps = []
    for stride in STRIDES:
        y = (torch.arange(512 // stride) + 0.5) * stride
        x = (torch.arange(768 // stride) + 0.5) * stride
        maps.append(torch.stack(torch.meshgrid(x, y, indexing="xy"))[None])  # [1, 2, H, W]: x, then y
    box = [100.0, 80.0, 310.0, 290.0]  # sqrt(area) 210
    for canonical, level in ((2000.0, 0), (400.0, 1), (200.0, 2), (100.0, 3)):
        pool = PyramidRoIAlign(STRIDES, output_size=7, canonical_side=canonical)
        assert pool.levels(torch.tensor([box])).item() == level
        (pooled,) = pool(maps, [torch.tensor([box])])
        middles = (torch.arange(7) + 0.5) * 30
        torch.testing.assert_close(pooled[0], (100 + middles).expand(7, 7))
        torch.testing.assert_close(pooled[1], (80 + middles)[:, None].expand(7, 7))


def test_what_a_gpu_reads_level_by_level_is_what_a_cpu_reads_at_once() -> None:
    pool = PyramidRoIAlign(STRIDES, output_size=3, canonical_side=56.0)
    maps = [x.requires_grad_() for x in random_maps()[:-1]]
    boxes = torch.tensor([square(120, 30, 3), square(10, 5, 5), square(60, 50, 30), square(30, 7, 77)])
    regions = torch.cat([torch.tensor([[0.0], [1.0], [1.0], [0.0]]), boxes], dim=1)
    assert pool.levels(boxes).tolist() == [3, 0, 2, 1]
    by_level, at_once = pool._read_levels(maps, regions), pool._read_rows(maps, regions)
    torch.testing.assert_close(by_level, at_once)
    slopes = torch.randn(by_level.shape, generator=torch.Generator().manual_seed(4))
    for one, other in zip(torch.autograd.grad(by_level, maps, slopes), torch.autograd.grad(at_once, maps, slopes)):
        torch.testing.assert_close(one, other)


def test_no_regions_in_one_image_or_in_all() -> None:
    maps, pool = [x.requires_grad_() for x in random_maps()], PyramidRoIAlign(STRIDES, output_size=3)
    some = torch.tensor([square(30)])
    assert torch.equal(pool(maps, [some[:0], some]), pool([x[1:] for x in maps], [some]))
    nothing = pool(maps, [some[:0], some[:0]])
    assert nothing.shape == (0, 3, 3, 3)
    predictor = BoxPredictor(8, 4)
    logits, deltas = predictor(TwoLayerHead(3, 3, width=8)(nothing))
    assert (logits.shape, deltas.shape) == ((0, 5), (0, 4, 4))
    (logits.sum() + deltas.sum()).backward()
    assert all(x.grad is None or not x.grad.any() for x in maps)
    assert all(x.grad is not None for x in predictor.parameters())


# ---- head and predictor ----


def test_the_head_is_two_layers_with_a_rectifier_after_each() -> None:
    torch.manual_seed(0)
    head = TwoLayerHead(3, 2, width=5)
    regions = torch.randn(4, 3, 2, 2)
    first, second = (layer for layer in head.layers if isinstance(layer, torch.nn.Linear))
    expected = ((regions.flatten(1) @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias).clamp(
        0
    )
    torch.testing.assert_close(head(regions), expected)
    assert head.width == expected.shape[1] == 5


def test_a_new_head_keeps_the_scale_of_what_passes_it() -> None:
    # He et al. 2015: the mean square is the same before and after a layer with a rectifier.
    torch.manual_seed(0)
    regions = torch.randn(200, 16, 4, 4)
    out = TwoLayerHead(16, 4, width=512)(regions)
    assert out.square().mean().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_each_class_has_its_own_four_deltas(num_classes: int) -> None:
    predictor = BoxPredictor(6, num_classes)
    predictor.deltas.bias.data = torch.arange(4.0 * num_classes)
    logits, deltas = predictor(torch.zeros(3, 6))
    assert logits.shape == (3, num_classes + 1)
    assert torch.equal(deltas, torch.arange(4.0 * num_classes).view(num_classes, 4).expand(3, num_classes, 4))


# ---- sampler ----


def test_truth_boxes_join_the_proposals() -> None:
    truth = [[10, 10, 30, 30], [50, 50, 90, 80]]
    targets = [make_target(truth, [4, 2], weights=[0.3, 0.7]), make_target()]
    regions, wanted = RegionSampler()([torch.zeros(0, 4), torch.zeros(0, 4)], targets)
    assert [x.tolist() for x in regions] == [truth, []]
    assert wanted.labels.tolist() == [4, 2]
    assert wanted.weights.tolist() == pytest.approx([0.3, 0.7])
    assert wanted.boxes.tolist() == truth


def test_regions_and_what_they_are_to_be_taught() -> None:
    first = make_target([[0, 0, 10, 10], [20, 0, 30, 10]], [7, 3], weights=[0.25, 0.5])
    proposals = torch.tensor(
        [
            [22.0, 0.0, 30.0, 10.0],  # IoU 0.8 with the second box
            [0.0, 0.0, 10.0, 4.9],  # background: 0.49
            [0.0, 0.0, 10.0, 5.0],  # 0.5 of the first box
            [50.0, 50.0, 60.0, 60.0],
        ]
    )
    second = make_target([[1, 1, 5, 9]], [5], weights=[0.75])
    regions, wanted = RegionSampler(count=100, positive_fraction=0.5)([proposals, proposals[3:]], [first, second])
    # Of each image the positives in their order, the truth boxes last among them, then the background.
    assert torch.equal(regions[0], torch.cat([proposals[[0, 2]], first.boxes, proposals[[1, 3]]]))
    assert torch.equal(regions[1], torch.cat([second.boxes, proposals[3:]]))
    assert wanted.labels.tolist() == [3, 7, 7, 3, BACKGROUND, BACKGROUND, 5, BACKGROUND]
    assert wanted.weights.tolist() == [0.5, 0.25, 0.25, 0.5, 1, 1, 0.75, 1]
    assert torch.equal(wanted.boxes, torch.cat([first.boxes[[1, 0, 0, 1]], second.boxes]))


def many_proposals(box: list[float], near: int, far: int, seed: int = 0) -> Tensor:
    """Proposals on a box and proposals off it."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.tensor([box]) + torch.rand((near, 4), generator=generator)
    off = torch.tensor([[200.0, 200.0, 220.0, 220.0]]) + torch.rand((far, 4), generator=generator)
    return torch.cat([on, off])


@pytest.mark.parametrize(("near", "positives"), [(50, 8), (2, 3), (0, 1)])
def test_how_many_regions_and_positives(near: int, positives: int) -> None:
    box = [10.0, 10.0, 60.0, 60.0]
    sampler = RegionSampler(count=32, positive_fraction=0.25)
    regions, wanted = sampler([many_proposals(box, near, 100)], [make_target([box], [0])])
    assert len(regions[0]) == len(wanted.labels) == len(wanted.weights) == 32
    assert (wanted.labels == 0).sum() == len(wanted.boxes) == positives  # the truth box is among the candidates


def test_the_draw_is_of_the_image_s_seed_whatever_the_batch() -> None:
    box = [10.0, 10.0, 60.0, 60.0]
    proposals = [many_proposals(box, 50, 100, seed) for seed in (0, 1)]
    targets = [make_target([box], [0], seed=5), make_target([box], [1], seed=6)]
    sampler = RegionSampler(count=16)
    together, _ = sampler(proposals, targets)
    alone, _ = sampler(proposals[1:], targets[1:])
    assert torch.equal(together[1], alone[0])
    targets[1].seed = 7
    assert not torch.equal(sampler(proposals[1:], targets[1:])[0][0], alone[0])


@pytest.mark.parametrize(("policy", "labels"), [("train", [0, 1, 0, 1]), ("drop", [1, 1, -1]), ("ignore", [1, 1])])
def test_the_policy_on_difficult_boxes(policy: str, labels: list[int]) -> None:
    truth = [[0, 0, 10, 10], [20, 0, 30, 10]]
    target = make_target(truth, [0, 1], weights=[0.25, 0.5], difficult=[True, False])
    proposals = torch.tensor([[0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 9.0]])
    _, wanted = RegionSampler(count=100, positive_fraction=1.0, difficult=policy)([proposals], [target])
    assert wanted.labels.tolist() == labels
    assert wanted.weights.tolist() == [{0: 0.25, 1: 0.5, BACKGROUND: 1.0}[label] for label in labels]
    assert wanted.boxes.tolist() == [truth[label] for label in labels if label != BACKGROUND]


def test_images_without_boxes_give_background() -> None:
    proposals = torch.tensor([square(10), square(20, 30)])
    regions, wanted = RegionSampler()([proposals, proposals[:0]], [make_target(), make_target()])
    assert [len(x) for x in regions] == [2, 0]
    assert wanted.labels.tolist() == [BACKGROUND] * 2
    assert wanted.weights.tolist() == [1, 1]
    assert wanted.boxes.shape == (0, 4)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match="difficult='no'"):
        RegionSampler(difficult="no")


# ---- criterion ----


def teach(labels: list[int], boxes: Any = (), weights: list[float] | None = None) -> RegionTargets:
    return RegionTargets(
        labels=torch.tensor(labels, dtype=torch.int64),
        weights=torch.tensor(weights or [1.0] * len(labels)),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
    )


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_losses_by_hand(weight: float) -> None:
    regions = [torch.tensor([[40.0, 0.0, 60.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 20.0]])]
    wanted = teach([BACKGROUND, 1], [[1.0, 0.0, 11.0, 20.0]], [1.0, weight])
    logits = torch.zeros(2, 4)  # three classes
    logits[0, 3] = math.log(5)  # background: 5 / 8
    logits[1, 1] = math.log(3)  # the class: 3 / 6
    deltas = torch.full((2, 3, 4), 99.0)  # only the positive's, of its class, count
    deltas[1, 1] = torch.tensor([0.95, 0.0, 0.0, -2.0])  # wanted: 1 px of 10, times 10: (1, 0, 0, 0)
    classes, box = BoxCriterion()(logits, deltas, regions, wanted)
    assert classes.item() == pytest.approx((math.log(8 / 5) + weight * math.log(2)) / 2, rel=1e-5)
    square_part, linear_part = 0.05**2 / 2 * 9, 2 - 1 / 18
    assert box.item() == pytest.approx(weight * (square_part + linear_part) / 2, rel=1e-5)


def outputs(num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, list[Tensor], RegionTargets]:
    """Random outputs for eleven regions of two images, six of them positive."""
    generator = torch.Generator().manual_seed(seed)
    labels = [2, 0, 1, BACKGROUND, BACKGROUND, 0, 2, 0, BACKGROUND, BACKGROUND, BACKGROUND]
    corner = torch.rand((11, 2), generator=generator) * 50
    regions = torch.cat([corner, corner + 10 + 40 * torch.rand((11, 2), generator=generator)], dim=1)
    positive = torch.tensor(labels) >= 0
    boxes = regions[positive] + 4 * torch.rand((6, 4), generator=generator)
    wanted = RegionTargets(
        torch.tensor(labels) % num_classes * positive + ~positive * BACKGROUND, torch.ones(11), boxes
    )
    logits = torch.randn((11, num_classes + 1), generator=generator)
    deltas = torch.randn((11, num_classes, 4), generator=generator)
    return logits, deltas, [regions[:5], regions[5:]], wanted


@pytest.mark.parametrize("num_classes", [1, 3])
def test_losses_and_gradients_are_torchvisions(num_classes: int) -> None:
    logits, deltas, regions, wanted = outputs(num_classes)

    def torchvisions(logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        # There the background is class 0 and has deltas, too.
        labels = wanted.labels + 1
        shift = torch.zeros(11, 4)
        coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        shift[labels > 0] = coder.encode_single(wanted.boxes, torch.cat(regions)[labels > 0])
        with_background = torch.cat([torch.zeros(11, 1, 4), deltas], dim=1).flatten(1)
        return fastrcnn_loss(torch.cat([logits[:, -1:], logits[:, :-1]], 1), with_background, [labels], [shift])

    results = []
    for compute in (lambda x, y: BoxCriterion()(x, y, regions, wanted), torchvisions):
        x, y = logits.clone().requires_grad_(), deltas.clone().requires_grad_()
        losses = compute(x, y)
        sum(losses).backward()
        results.append((*losses, x.grad, y.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"label_smoothing": 0.1, "smoothing_form": "paper"}])
def test_each_box_counts_as_often_as_its_weight_says_and_the_normaliser_does_not_know(options: dict[str, Any]) -> None:
    logits, deltas, regions, wanted = outputs()
    positive = torch.nonzero(wanted.labels != BACKGROUND).flatten()
    criterion = BoxCriterion(**options)

    def losses(weights: Tensor) -> Tensor:
        wanted.weights = torch.ones(11).index_copy(0, positive, weights)
        return torch.stack(criterion(logits, deltas, regions, wanted))

    nothing = losses(torch.zeros(6))
    assert nothing[0] > 0  # the background still counts
    assert nothing[1] == 0
    shares = [losses(torch.eye(6)[k]) - nothing for k in range(6)]
    assert all((share > 1e-4).all() for share in shares)
    weights = torch.tensor([0.5, 0.2, 0.9, 1.0, 0.1, 0.3])
    expected = nothing + sum(weight * share for weight, share in zip(weights, shares))
    torch.testing.assert_close(losses(weights), expected)


def test_without_smoothing_and_with_weights_of_one_it_is_torchs_cross_entropy_to_the_last_bit() -> None:
    for seed in range(5):
        logits, deltas, regions, wanted = outputs(seed=seed)
        logits *= 3
        labels = wanted.labels.where(wanted.labels != BACKGROUND, torch.tensor(3))
        classes, _ = BoxCriterion(label_smoothing=0.0)(logits, deltas, regions, wanted)
        assert torch.equal(classes, functional.cross_entropy(logits, labels, reduction="none").sum() / 11)
        torch.testing.assert_close(classes, functional.cross_entropy(logits, labels))
        paper = BoxCriterion(label_smoothing=0.0, smoothing_form="paper")(logits, deltas, regions, wanted)[0]
        assert torch.equal(classes, paper)


def test_smoothing_is_torchs_with_the_background_as_one_of_the_classes() -> None:
    logits, deltas, regions, wanted = outputs()
    labels = wanted.labels.where(wanted.labels != BACKGROUND, torch.tensor(3))
    classes, box = BoxCriterion(label_smoothing=0.2)(logits, deltas, regions, wanted)
    torch.testing.assert_close(classes, functional.cross_entropy(logits, labels, label_smoothing=0.2))
    assert torch.equal(box, BoxCriterion()(logits, deltas, regions, wanted)[1])
    paper, _ = BoxCriterion(label_smoothing=0.2, smoothing_form="paper")(logits, deltas, regions, wanted)
    target = torch.full((11, 4), 0.2 / 3).scatter(1, labels[:, None], 0.8)
    torch.testing.assert_close(paper, -(target * logits.log_softmax(1)).sum(1).mean())


def test_background_alone_gives_no_box_loss_but_a_gradient_of_zeros() -> None:
    logits, deltas = torch.zeros(4, 3, requires_grad=True), torch.ones(4, 2, 4, requires_grad=True)
    regions = [torch.tensor([square(10)]).repeat(4, 1)]
    classes, box = BoxCriterion()(logits, deltas, regions, teach([BACKGROUND] * 4))
    (classes + box).backward()
    assert classes.item() == pytest.approx(math.log(3))
    assert box.item() == 0
    assert torch.equal(deltas.grad, torch.zeros(4, 2, 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_regions_give_losses_of_zero_with_a_graph(smoothing: float) -> None:
    logits, deltas = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 2, 4, requires_grad=True)
    losses = BoxCriterion(label_smoothing=smoothing)(logits, deltas, [torch.zeros(0, 4)], teach([]))
    assert [loss.item() for loss in losses] == [0, 0]
    assert all(loss.requires_grad for loss in losses)


def test_bfloat16_outputs_are_judged_in_float32() -> None:
    logits, deltas, regions, wanted = outputs()
    logits, deltas = logits.to(torch.bfloat16), deltas.to(torch.bfloat16)
    for options in ({}, {"label_smoothing": 0.1}):
        expected = BoxCriterion(**options)(logits.float(), deltas.float(), regions, wanted)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = BoxCriterion(**options)(logits, deltas, regions, wanted)
        assert all(loss.dtype == torch.float32 for loss in found)
        assert torch.equal(torch.stack(found), torch.stack(expected))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(UserError, match=f"label_smoothing={smoothing}"):
        BoxCriterion(label_smoothing=smoothing)


def test_half_precision_does_not_move_the_regions() -> None:
    """The maps may be rounded, the corners may not: bfloat16 knows 776 and 780, but not 777."""
    ramp = torch.arange(256.0).repeat(1, 1, 4, 1).to(torch.bfloat16)  # [1, 1, 4, 256]: up to 255 it is exact
    regions = [torch.tensor([[777.0, 2.0, 805.0, 14.0]])]
    pool = PyramidRoIAlign((4,), output_size=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool([ramp], regions)
    # bins of 14 px, 3.5 cells: their middles are 784 and 798 px, and a map's value at x px is x / 4 - 0.5
    assert pooled[0, 0, 0].float().tolist() == pytest.approx([195.5, 199.0], abs=0.51)  # bfloat16 steps by 1 here
    assert pool([ramp.float()], regions)[0, 0, 0].tolist() == pytest.approx([195.5, 199.0], abs=1e-3)
