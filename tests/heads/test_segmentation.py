"""The criterion and the postprocess that every segmentation head shares."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from segmentation_builders import StagedBackbone, mask_target
from torch import Tensor

from transfer.heads import segmentation
from transfer.heads.fcn import fcn
from transfer.heads.segmentation import (
    SegmentationCriterion,
    SegmentationOutput,
    SegmentationPostprocess,
    image_logits,
    label_map,
    upsampled,
)
from transfer.losses.image_by_image import sums_of
from transfer.losses.pixel_cross_entropy import OHEMCrossEntropy, PixelCrossEntropy
from transfer.losses.pixel_focal import PixelFocal
from transfer.losses.region import Dice, Lovasz
from transfer.losses.weighted_sum import WeightedSum
from transfer.types import Target, UserError


def random_output(
    count: int = 2, classes: int = 3, cells: tuple[int, int] = (4, 6), stride: int = 8, *, auxiliary: bool = False
) -> SegmentationOutput:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, classes, *cells, generator=generator)
    other = torch.randn(count, classes, cells[0] // 2, cells[1] // 2, generator=generator) if auxiliary else None
    return SegmentationOutput(logits, other, (cells[0] * stride, cells[1] * stride))


def random_masks(*sizes: tuple[int, int], classes: int = 3) -> list[Target]:
    generator = torch.Generator().manual_seed(1)
    return [mask_target(torch.randint(classes, size, generator=generator)) for size in sizes]


# ---- criterion ----


def test_losses_are_cross_entropy_of_upsampled_logits_on_what_is_not_padding() -> None:
    output, targets = random_output(auxiliary=True), random_masks((32, 48), (20, 31))
    losses = SegmentationCriterion()(output, targets)
    masks = torch.stack([F.pad(t.mask, (0, 48 - t.size[1], 0, 32 - t.size[0]), value=255).long() for t in targets])
    for name, logits, weight in (
        ("loss_segmentation", output.logits, 1.0),
        ("loss_auxiliary", output.auxiliary, 0.5),
    ):
        assert logits is not None
        full = F.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=False)
        torch.testing.assert_close(losses[name], weight * F.cross_entropy(full, masks, ignore_index=255))
    assert list(losses) == ["loss_segmentation", "loss_auxiliary"]


def test_logits_at_full_size_are_taken_as_they_are() -> None:
    output, targets = random_output(1, stride=1), random_masks((4, 6))
    expected = F.cross_entropy(output.logits, torch.stack([t.mask.long() for t in targets]))
    torch.testing.assert_close(SegmentationCriterion()(output, targets)["loss_segmentation"], expected)
    assert upsampled(output.logits, output.size) is output.logits


class Tempered(PixelCrossEntropy):
    """A user's own: half of it, by its own `__call__`."""

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        return super().__call__(logits, masks) / 2


class HalfSums(PixelCrossEntropy):
    def sums(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        losses, weights = super().sums(logits, masks)
        return losses / 2, weights


def test_the_sums_are_taken_where_they_are_what_the_loss_is_made_of() -> None:
    assert sums_of(Tempered()) is None
    assert sums_of(F.cross_entropy) is None
    for loss in (PixelCrossEntropy(), OHEMCrossEntropy(), PixelFocal(), HalfSums()):
        assert sums_of(loss) == loss.sums
    output, targets = random_output(), random_masks((32, 48), (20, 31))
    plain, tempered, half = (
        SegmentationCriterion(loss)(output, targets)["loss_segmentation"].item()
        for loss in (PixelCrossEntropy(), Tempered(), HalfSums())
    )
    assert tempered == pytest.approx(plain / 2)
    assert half == pytest.approx(plain / 2)


@pytest.mark.parametrize("loss", [PixelCrossEntropy(), Tempered()])
def test_only_the_gradient_of_the_small_logits_is_kept(loss: PixelCrossEntropy) -> None:
    """The full logits have 64 times their numbers."""
    output, targets = random_output(), random_masks((32, 48), (20, 31))
    output.logits.requires_grad_()
    saved: list[weakref.ref[Tensor]] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = SegmentationCriterion(loss)(output, targets)
    alive = [tensor for each in saved if (tensor := each()) is not None and tensor.is_floating_point()]
    kept = sum({tensor.data_ptr(): tensor.nbytes for tensor in alive}.values())
    assert losses["loss_segmentation"].requires_grad  # so what it needs is still held
    if type(loss) is PixelCrossEntropy:
        assert output.logits.nbytes <= kept <= 4 * output.logits.nbytes  # with the upsampling's matrices of 4x6 cells
    else:
        assert kept >= 64 * output.logits.nbytes


@pytest.mark.parametrize("auxiliary_weight", [None, 0.0, 0.4])
def test_without_auxiliary_logits_there_is_no_such_loss(auxiliary_weight: float | None) -> None:
    losses = SegmentationCriterion(auxiliary_weight=auxiliary_weight)(random_output(1), random_masks((32, 48)))
    assert list(losses) == ["loss_segmentation"]


def test_the_auxiliary_weight_is_a_factor() -> None:
    output, targets = random_output(1, auxiliary=True), random_masks((32, 48))
    once = SegmentationCriterion(auxiliary_weight=1)(output, targets)["loss_auxiliary"]
    assert torch.equal(SegmentationCriterion(auxiliary_weight=0.25)(output, targets)["loss_auxiliary"], 0.25 * once)
    assert torch.equal(SegmentationCriterion()(output, targets)["loss_auxiliary"], 0.5 * once)


@pytest.mark.parametrize("loss", [PixelCrossEntropy, OHEMCrossEntropy, PixelFocal, Dice, Lovasz])
def test_cells_that_only_ignored_pixels_and_padding_see_get_exactly_no_gradient(loss: type) -> None:
    """Stride 8, bilinear: pixel columns up to 27 draw on cells up to 3; cells 4 and 5 lie under the rest."""
    output = random_output(2)
    targets = random_masks((32, 28), (32, 48))
    assert targets[1].mask is not None
    targets[1].mask[:, 28:] = 255
    output.logits.requires_grad_()
    losses = SegmentationCriterion(loss())(output, targets)
    losses["loss_segmentation"].backward()
    slopes = output.logits.grad
    assert slopes is not None
    assert not slopes[..., 4:].any()
    assert slopes[..., :4].any(dim=1).all()


def test_half_precision_logits_are_taken_in_float32() -> None:
    output, targets = random_output(1), random_masks((32, 48))
    half = SegmentationOutput(output.logits.half(), None, output.size)
    loss = SegmentationCriterion()(half, targets)["loss_segmentation"]
    assert loss.dtype == torch.float32
    full = SegmentationOutput(output.logits.half().float(), None, output.size)
    assert torch.equal(loss, SegmentationCriterion()(full, targets)["loss_segmentation"])


def test_a_batch_of_nothing_but_ignored_pixels_has_no_loss() -> None:
    targets = [mask_target(torch.full((32, 48), 255))]
    losses = SegmentationCriterion()(random_output(1, auxiliary=True), targets)
    assert [loss.item() for loss in losses.values()] == [0, 0]


def test_a_mask_with_a_class_too_many_is_named() -> None:
    targets = random_masks((32, 48), (32, 48))
    targets[1].path = "street.png"
    assert targets[1].mask is not None
    targets[1].mask[3, 4] = 7
    with pytest.raises(UserError, match=r"street\.png: its mask holds class 7, the model has the classes 0 to 2"):
        SegmentationCriterion(Lovasz())(random_output(), targets)


def test_an_image_without_a_mask_is_named() -> None:
    targets = random_masks((32, 48))
    targets[0].mask = None
    with pytest.raises(UserError, match=r"image\.jpg: has no mask"):
        SegmentationCriterion()(random_output(1), targets)


def test_the_criterion_is_checked_against_the_model() -> None:
    backbone = StagedBackbone()
    with_head, without = fcn(backbone, 3), fcn(backbone, 3, auxiliary=False)
    SegmentationCriterion(auxiliary_weight=0.4).check_model(with_head)
    SegmentationCriterion().check_model(without)
    SegmentationCriterion(auxiliary_weight=0).check_model(without)
    with pytest.raises(UserError, match=r"auxiliary_weight=0\.4: the model has no auxiliary head"):
        SegmentationCriterion(auxiliary_weight=0.4).check_model(without)
    weighted = SegmentationCriterion(WeightedSum([PixelCrossEntropy(class_weights=[1, 2])], [1.0]))
    with pytest.raises(UserError, match="class_weights has 2 numbers, the model has 3 classes"):
        weighted.check_model(without)


def test_mistakes_in_the_criterion_are_named() -> None:
    with pytest.raises(UserError, match=r"loss=.*auxiliary_weight=-1"):
        SegmentationCriterion({"typ": "Dice"}, auxiliary_weight=-1)  # type: ignore[arg-type]


# ---- postprocess ----


def naive_labels(logits: Tensor, covered: tuple[int, int], target: Target) -> Tensor:
    """Step by step with torch alone."""
    full = F.interpolate(logits[None], size=covered, mode="bilinear", align_corners=False)
    valid = full[:, :, : target.size[0], : target.size[1]]
    return F.interpolate(valid, size=target.original_size, mode="bilinear", align_corners=False)[0].argmax(0)


@pytest.mark.parametrize("numbers", [1, 5000, 2**26])
def test_label_maps_are_of_the_original_size_however_many_classes_are_upsampled_at_once(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "_NUMBERS", numbers)
    output = random_output(3, classes=7)
    targets = [
        mask_target(torch.zeros(1, 1), size=size, original_size=original)
        for size, original in (((32, 48), (32, 48)), ((30, 41), (61, 83)), ((17, 48), (9, 25)))
    ]
    maps = SegmentationPostprocess()(output, targets)
    for image, (found, target) in enumerate(zip(maps, targets)):
        assert found.labels.dtype == torch.uint8
        assert found.labels.shape == target.original_size
        assert torch.equal(found.labels.long(), naive_labels(output.logits[image], output.size, target))
        assert len(found.labels.unique()) > 3


def test_a_cell_covers_its_pixels() -> None:
    """One hot cell (2, 3) of stride 8 comes out around pixel (16..23, 24..31), in an image of twice the size, too."""
    logits = torch.zeros(1, 2, 4, 6)
    logits[0, 0], logits[0, 1, 2, 3] = 0.5, 1.0
    output = SegmentationOutput(logits, None, (32, 48))
    for scale in (1, 2):
        target = mask_target(torch.zeros(1, 1), size=(32, 48), original_size=(32 * scale, 48 * scale))
        (found,) = SegmentationPostprocess()(output, [target])
        rows, columns = torch.nonzero(found.labels, as_tuple=True)
        for places, first in ((rows, 16), (columns, 24)):
            middle = (places.min().item() + places.max().item() + 1) / 2
            assert middle == scale * (first + 4)


def test_of_equal_logits_the_first_class_wins_in_every_order_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    output = SegmentationOutput(torch.zeros(1, 5, 2, 2), None, (4, 4))
    for numbers in (1, 2**20):
        monkeypatch.setattr(segmentation, "_NUMBERS", numbers)
        (found,) = SegmentationPostprocess()(output, random_masks((4, 4)))
        assert not found.labels.any()


def test_probabilities_are_the_softmax_at_the_size_asked_for() -> None:
    output, targets = random_output(), random_masks((32, 48), (24, 40))
    for target in targets:
        target.original_size = (50, 70)
    found = SegmentationPostprocess().probabilities(output, targets)
    for image, (part, labels) in enumerate(zip(found, SegmentationPostprocess()(output, targets))):
        assert part.shape == (3, 50, 70)
        torch.testing.assert_close(part.sum(dim=0), torch.ones(50, 70))
        assert torch.equal(label_map(part).labels, labels.labels)
        logits = image_logits(output.logits[image], output.size, targets[image].size, (50, 70))
        torch.testing.assert_close(part[0] / part[1], (logits[0] - logits[1]).exp(), rtol=1e-4, atol=1e-6)
    asked = SegmentationPostprocess().probabilities(output, targets, sizes=[(16, 24), (9, 5)])
    assert [tuple(part.shape) for part in asked] == [(3, 16, 24), (3, 9, 5)]


def test_probabilities_of_mirrored_logits_are_mirrored() -> None:
    """What averaging over flips relies on."""
    output, targets = random_output(1), random_masks((32, 48))
    targets[0].original_size = (45, 63)
    mirrored = SegmentationOutput(output.logits.flip(-1), None, output.size)
    (found,), (turned,) = (SegmentationPostprocess().probabilities(x, targets) for x in (output, mirrored))
    torch.testing.assert_close(turned.flip(-1), found)
