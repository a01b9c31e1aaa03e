"""Pixel and region losses: by hand, against torch, torchvision and smp, and on ignored pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from transfer.losses import pixel_cross_entropy
from transfer.losses.pixel_cross_entropy import OHEMCrossEntropy, PixelCrossEntropy
from transfer.losses.pixel_focal import PixelFocal
from transfer.losses.region import Dice, Jaccard, Lovasz, Tversky
from transfer.losses.weighted_sum import SegmentationLoss, WeightedSum, check_classes
from transfer.types import UserError

CLASS_WEIGHTS = (0.5, 1.0, 2.0, 4.0)
PIXEL_LOSSES: dict[str, Callable[[], SegmentationLoss]] = {
    "cross entropy": PixelCrossEntropy,
    "smoothed": lambda: PixelCrossEntropy(smoothing=0.1),
    "smoothed, paper": lambda: PixelCrossEntropy(smoothing=0.1, form="paper"),
    "class weights": lambda: PixelCrossEntropy(class_weights=CLASS_WEIGHTS),
    "OHEM": lambda: OHEMCrossEntropy(threshold=0.3),
    "OHEM, share": lambda: OHEMCrossEntropy(threshold=1e-6, min_kept=0.25),
    "OHEM, all": lambda: OHEMCrossEntropy(smoothing=0.1, class_weights=CLASS_WEIGHTS),
    "focal": PixelFocal,
    "focal, alpha": lambda: PixelFocal(alpha=0.25, gamma=1.5),
}
REGION_LOSSES: dict[str, Callable[[], SegmentationLoss]] = {
    "Dice": Dice,
    "Dice, log": lambda: Dice(log_loss=True, smooth=1.0),
    "Jaccard": Jaccard,
    "Jaccard, log": lambda: Jaccard(log_loss=True),
    "Tversky": lambda: Tversky(alpha=0.3, beta=0.7),
    "Tversky, gamma": lambda: Tversky(alpha=0.3, beta=0.7, gamma=1.5, smooth=1.0),
    "Lovasz": Lovasz,
    "Lovasz, per image": lambda: Lovasz(per_image=True),
    "sum": lambda: WeightedSum([PixelCrossEntropy(), Dice(), Lovasz()], [1.0, 0.5, 2.0]),
}
LOSSES = {**PIXEL_LOSSES, **REGION_LOSSES}
every_loss = pytest.mark.parametrize("name", LOSSES)


def some(classes: int = 4, size: tuple[int, int] = (7, 9)) -> tuple[Tensor, Tensor]:
    """Two images; the first three rows of one and the last columns of the other are ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, classes, *size, generator=generator)
    masks = torch.randint(classes, (2, *size), generator=generator, dtype=torch.uint8)
    masks[0, :3], masks[1, :, 6:] = 255, 255
    return logits, masks


def gradient(loss: SegmentationLoss, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, masks)
    assert value.shape == ()
    (found,) = torch.autograd.grad(value, logits)
    return value.detach(), found


def logits_of(probabilities: Sequence[Sequence[float]]) -> Tensor:
    """[1, K, 1, P] whose softmax is these, pixel by pixel."""
    return torch.tensor(probabilities).log().T[None, :, None]


# ---- ignored pixels ----


@every_loss
def test_ignored_pixels_get_exactly_no_gradient_and_the_others_some(name: str) -> None:
    logits, masks = some()
    _, found = gradient(LOSSES[name](), logits, masks)
    by_pixel = found.movedim(1, -1)
    assert torch.equal(by_pixel[masks == 255], torch.zeros_like(by_pixel[masks == 255]))
    assert by_pixel[masks != 255].any()
    assert found.isfinite().all()


@every_loss
def test_what_the_model_says_of_ignored_pixels_changes_no_bit(name: str) -> None:
    logits, masks = some()
    loss = LOSSES[name]()
    value, found = gradient(loss, logits, masks)
    other = logits.clone()
    other.movedim(1, -1)[masks == 255] = torch.tensor([1e4, -1e4, 300.0, 0.0])
    other_value, other_found = gradient(loss, other, masks)
    assert torch.equal(value, other_value)
    assert torch.equal(found, other_found)


@every_loss
def test_a_batch_without_a_valid_pixel_costs_nothing_and_still_has_a_gradient_of_zeros(name: str) -> None:
    logits, masks = some()
    value, found = gradient(LOSSES[name](), logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert torch.equal(found, torch.zeros_like(logits))


@every_loss
def test_the_masks_type_does_not_matter(name: str) -> None:
    logits, masks = some()
    loss = LOSSES[name]()
    assert torch.equal(loss(logits, masks), loss(logits, masks.long()))


@pytest.mark.parametrize("name", [name for name in LOSSES if "OHEM, share" not in name and "per image" not in name])
def test_a_frame_of_ignored_pixels_is_as_if_it_were_not_there(name: str) -> None:
    """The normaliser counts valid pixels: smp's own smoothed cross entropy would be diluted here."""
    logits, masks = some()
    masks[masks == 255] = 1
    framed_logits, framed = F.pad(logits, (2, 3, 1, 0), value=7.0), F.pad(masks, (2, 3, 1, 0), value=255)
    loss = LOSSES[name]()
    torch.testing.assert_close(loss(framed_logits, framed), loss(logits, masks))


def test_an_image_without_a_valid_pixel_is_left_out_of_lovasz_by_image() -> None:
    """smp 0.6 returns an empty tensor for such a batch."""
    logits, masks = some()
    masks[0] = 255
    loss = Lovasz(per_image=True)
    assert torch.equal(loss(logits, masks), loss(logits[1:], masks[1:]))


# ---- cross entropy ----


def test_cross_entropy_by_hand() -> None:
    logits = logits_of([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    masks = torch.tensor([[[0, 2, 255]]])
    expected = -(math.log(0.5) + math.log(0.7)) / 2
    assert PixelCrossEntropy()(logits, masks).item() == pytest.approx(expected, rel=1e-6)
    # weights 1 and 3: a mean of both losses, the second counting three times
    expected = -(math.log(0.5) + 3 * math.log(0.7)) / 4
    weighted = PixelCrossEntropy(class_weights=[1, 0, 3])
    assert weighted(logits, masks).item() == pytest.approx(expected, rel=1e-6)
    # smoothing 0.3 of three classes: 0.8, 0.1, 0.1, the weight on the whole pixel
    first = -(0.8 * math.log(0.5) + 0.2 * math.log(0.25))
    second = -(0.1 * math.log(0.1) + 0.1 * math.log(0.2) + 0.8 * math.log(0.7))
    both = PixelCrossEntropy(smoothing=0.3, class_weights=[1, 0, 3])
    assert both(logits, masks).item() == pytest.approx((first + 3 * second) / 4, rel=1e-6)
    # the paper's form: 0.7 and 0.3 / 2 each
    first = -(0.7 * math.log(0.5) + 0.3 * math.log(0.25))
    second = -(0.15 * math.log(0.1) + 0.15 * math.log(0.2) + 0.7 * math.log(0.7))
    paper = PixelCrossEntropy(smoothing=0.3, form="paper")
    assert paper(logits, masks).item() == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"class_weights": CLASS_WEIGHTS}])
def test_cross_entropy_is_torchs(options: dict) -> None:
    logits, masks = some()
    weight = torch.tensor(options["class_weights"]) if "class_weights" in options else None
    expected = F.cross_entropy(
        logits, masks.long(), weight, ignore_index=255, label_smoothing=options.get("smoothing", 0.0)
    )
    torch.testing.assert_close(PixelCrossEntropy(**options)(logits, masks), expected)


def test_equal_class_weights_change_nothing_whatever_their_size() -> None:
    logits, masks = some()
    torch.testing.assert_close(
        PixelCrossEntropy(class_weights=[8.0] * 4, smoothing=0.1)(logits, masks),
        PixelCrossEntropy(smoothing=0.1)(logits, masks),
    )


def test_a_batch_of_weightless_classes_costs_nothing() -> None:
    logits, masks = some()
    masks[masks != 255] = 0
    assert PixelCrossEntropy(class_weights=[0, 1, 1, 1])(logits, masks).item() == 0


# ---- OHEM ----


def ohem_by_sorting(logits: Tensor, masks: Tensor, threshold: float, share: float) -> float:
    """Pixel by pixel, in plain Python, from the definition."""
    kept: list[float] = []
    for image, mask in zip(logits.softmax(1), masks):
        own = sorted(
            float(image[int(mask[y, x]), y, x])
            for y in range(mask.shape[0])
            for x in range(mask.shape[1])
            if mask[y, x] != 255
        )
        hard = [p for p in own if p < threshold]
        kept += hard if len(hard) >= share * len(own) else own[: math.ceil(share * len(own))]
    return -sum(math.log(p) for p in kept) / len(kept)


@pytest.mark.parametrize(("threshold", "share"), [(0.7, 0.0), (0.05, 0.0), (0.05, 0.5), (0.2, 0.3), (1.0, 0.1)])
def test_ohem_is_its_definition(threshold: float, share: float) -> None:
    logits, masks = some()
    found = OHEMCrossEntropy(threshold=threshold, min_kept=share)(logits, masks).item()
    assert found == pytest.approx(ohem_by_sorting(logits, masks, threshold, share), rel=1e-5)


def test_ohem_by_hand() -> None:
    """Own class at 0.9, 0.6, 0.2 and 0.95: below 0.7 are two."""
    logits = logits_of([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.95, 0.05]])
    masks = torch.tensor([[[0, 1, 0, 0]]])
    found = OHEMCrossEntropy(threshold=0.7, min_kept=0.5)
    assert found(logits, masks).item() == pytest.approx(-(math.log(0.6) + math.log(0.2)) / 2, rel=1e-6)
    # three quarters of four pixels: the 0.9 comes in
    found = OHEMCrossEntropy(threshold=0.7, min_kept=0.75)
    assert found(logits, masks).item() == pytest.approx(-math.log(0.6 * 0.2 * 0.9) / 3, rel=1e-6)
    _, slope = gradient(OHEMCrossEntropy(threshold=0.7, min_kept=0.5), logits, masks)
    assert slope[0, :, 0].any(dim=0).tolist() == [False, True, True, False]


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1, "class_weights": CLASS_WEIGHTS}])
def test_ohem_that_keeps_all_is_cross_entropy(options: dict) -> None:
    logits, masks = some()
    all_kept = OHEMCrossEntropy(min_kept=1.0, **options)(logits, masks)
    torch.testing.assert_close(all_kept, PixelCrossEntropy(**options)(logits, masks))


def test_which_pixels_are_hard_does_not_depend_on_the_batch() -> None:
    logits, masks = some()
    loss = OHEMCrossEntropy(threshold=0.01, min_kept=0.3)
    together = loss.hard_pixels(logits, masks.long())
    alone = [loss.hard_pixels(logits[i : i + 1], masks[i : i + 1].long()) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))
    assert together.flatten(1).sum(1).tolist() == [math.ceil(0.3 * 4 * 9), math.ceil(0.3 * 7 * 6)]


# ---- focal ----


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (2.0, 0.25), (0.0, None), (1.0, 0.9)])
def test_focal_is_torchvisions_over_valid_pixels_and_classes(gamma: float, alpha: float | None) -> None:
    logits, masks = some()
    valid = masks != 255
    one_hot = F.one_hot(masks[valid].long(), 4).float()  # [P, K]
    expected = sigmoid_focal_loss(logits.movedim(1, -1)[valid], one_hot, -1 if alpha is None else alpha, gamma, "mean")
    torch.testing.assert_close(PixelFocal(gamma=gamma, alpha=alpha)(logits, masks), expected)


# ---- regions ----

PROBABILITIES = [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]
TRUTH = torch.tensor([[[0, 1, 1, 0]]])
# class 0: overlap 0.9 + 0.2 = 1.1, predicted 2.0, true 2; class 1: overlap 0.4 + 0.7 = 1.1, predicted 2.0, true 2


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (Dice, 1 - 2 * 1.1 / 4),
        (lambda: Dice(smooth=1.0), 1 - (2 * 1.1 + 2) / (4 + 2)),
        (lambda: Dice(log_loss=True), -math.log(2 * 1.1 / 4)),
        (Jaccard, 1 - 1.1 / 2.9),
        (lambda: Jaccard(smooth=1.0), 1 - 2.1 / 3.9),
        (lambda: Tversky(alpha=0.3, beta=0.9), 1 - 1.1 / (1.1 + 0.3 * 0.9 + 0.9 * 0.9)),
        (lambda: Tversky(alpha=0.3, beta=0.9, gamma=2.0), (1 - 1.1 / (1.1 + 0.3 * 0.9 + 0.9 * 0.9)) ** 2),
        (Tversky, 1 - 2 * 1.1 / 4),
    ],
)
def test_overlap_losses_by_hand(loss: Callable[[], SegmentationLoss], expected: float) -> None:
    assert loss()(logits_of(PROBABILITIES), TRUTH).item() == pytest.approx(expected, rel=1e-5)


def test_tversky_weighs_false_positives_by_alpha_and_false_negatives_by_beta() -> None:
    """One pixel of class 0 is true, two are found; of class 1 three are true, two found."""
    logits = logits_of([[0.999999, 1e-6], [0.999999, 1e-6], [1e-6, 0.999999], [1e-6, 0.999999]])
    masks = torch.tensor([[[0, 1, 1, 1]]])
    expected = ((1 - 1 / (1 + 0.2)) + (1 - 2 / (2 + 0.9))) / 2
    assert Tversky(alpha=0.2, beta=0.9)(logits, masks).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [Jaccard, Lovasz])
def test_of_a_hard_prediction_both_jaccard_losses_are_one_minus_iou(loss: Callable[[], SegmentationLoss]) -> None:
    generator = torch.Generator().manual_seed(3)
    found = torch.randint(4, (2, 8, 8), generator=generator)
    truth = torch.where(torch.rand(2, 8, 8, generator=generator) < 0.6, found, 3 - found)
    ious = [((found == k) & (truth == k)).sum() / ((found == k) | (truth == k)).sum() for k in range(4)]
    logits = 100 * F.one_hot(found, 4).movedim(-1, 1).float()
    torch.testing.assert_close(loss()(logits, truth), 1 - torch.stack(ious).mean())


def test_lovasz_by_hand() -> None:
    """Three pixels, one of class 1: errors 0.6 (a false 1), 0.3 (the missed 1), 0.1; Jaccard loss grows 1/2, 1/2, 0."""
    logits = logits_of([[0.4, 0.6], [0.3, 0.7], [0.9, 0.1]])
    masks = torch.tensor([[[0, 1, 0]]])
    of_class_1 = 0.6 * 0.5 + 0.3 * 0.5
    # class 0: errors 0.6 (missed), 0.3 (a false 0), 0.1 (missed); two are true: losses 1/2, 2/3, 1
    of_class_0 = 0.6 * 1 / 2 + 0.3 * (2 / 3 - 1 / 2) + 0.1 * (1 - 2 / 3)
    assert Lovasz()(logits, masks).item() == pytest.approx((of_class_0 + of_class_1) / 2, rel=1e-5)


def test_lovasz_by_image_is_the_mean_over_images() -> None:
    logits, masks = some()
    alone = [Lovasz()(logits[i : i + 1], masks[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(Lovasz(per_image=True)(logits, masks), sum(alone) / 2)  # type: ignore[operator]


def test_an_absent_class_counts_in_dice_and_not_in_lovasz() -> None:
    """As the docstring says of smp."""
    logits = logits_of([[0.7, 0.3 - 1e-6, 1e-6], [0.2, 0.8 - 1e-6, 1e-6]])
    masks = torch.tensor([[[0, 1]]])
    of_present = (1 - 2 * 0.7 / 1.9) + (1 - 2 * 0.8 / 2.1)
    assert Dice()(logits, masks).item() == pytest.approx(of_present / 3, abs=1e-5)
    two = Lovasz()(logits[:, :2], masks)  # softmax of two classes: the third had next to nothing
    torch.testing.assert_close(Lovasz()(logits, masks), two, atol=1e-5, rtol=0)


# ---- several processes ----


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_two_processes_with_an_image_each_equal_one_with_both(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks = some()
    logits = logits.double()
    loss = PIXEL_LOSSES[name]()
    one, slope = gradient(loss, logits, masks)
    counts: list[Tensor] = []

    def note(value: Tensor, device: torch.device) -> Tensor:
        counts.append(value.double())
        return value.double()

    def mean_of_both(value: Tensor, device: torch.device) -> Tensor:
        return (counts[0] + counts[1]) / 2

    monkeypatch.setattr(pixel_cross_entropy, "mean_over_processes", note)
    for image in range(2):
        loss(logits[image : image + 1], masks[image : image + 1])
    assert counts[0] != counts[1]
    monkeypatch.setattr(pixel_cross_entropy, "mean_over_processes", mean_of_both)
    parts = [gradient(loss, logits[i : i + 1], masks[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(sum(value for value, _ in parts) / 2, one, rtol=1e-6, atol=0)  # type: ignore[operator]
    torch.testing.assert_close(torch.cat([part for _, part in parts]) / 2, slope, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_a_process_without_a_valid_pixel_costs_nothing_where_another_has_some(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_cross_entropy, "mean_over_processes", lambda value, device: value.float() + 10.0)
    logits, masks = some()
    value, found = gradient(PIXEL_LOSSES[name](), logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert not found.any()


# ---- sums ----


def test_a_weighted_sum_is_one() -> None:
    logits, masks = some()
    parts: list[SegmentationLoss] = [PixelCrossEntropy(), Dice(), Lovasz()]
    expected = PixelCrossEntropy()(logits, masks) + 0.5 * Dice()(logits, masks) + 2 * Lovasz()(logits, masks)
    torch.testing.assert_close(WeightedSum(parts, [1.0, 0.5, 2.0])(logits, masks), expected)


def test_a_weight_of_zero_is_the_loss_left_out() -> None:
    logits, masks = some()
    value, found = gradient(PixelCrossEntropy(), logits, masks)
    zero_value, zero_found = gradient(WeightedSum([PixelCrossEntropy(), Dice()], [1, 0]), logits, masks)
    assert torch.equal(value, zero_value)
    assert torch.equal(found, zero_found)


def test_class_weights_are_checked_within_a_sum() -> None:
    loss = WeightedSum([Dice(), WeightedSum([OHEMCrossEntropy(class_weights=[1, 2, 3])], [1])], [1, 1])
    check_classes(loss, 3)
    with pytest.raises(UserError, match=r"OHEMCrossEntropy: class_weights has 3 numbers, the model has 4 classes"):
        check_classes(loss, 4)
    with pytest.raises(UserError, match="class_weights has 3 numbers"):
        loss(*some())


# ---- mistakes ----


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PixelCrossEntropy(smoothing=1.0, form="papper"), [r"smoothing=1\.0", "did you mean 'paper'"]),
        (lambda: PixelCrossEntropy(class_weights="1,2"), ["class_weights='1,2'"]),
        (lambda: PixelCrossEntropy(class_weights=[0.0, 0.0]), ["not all 0"]),
        (lambda: PixelCrossEntropy(class_weights=[1.0, -1.0]), ["each at least 0"]),
        (lambda: OHEMCrossEntropy(threshold=0.0, min_kept=100_000, smoothing=2), ["threshold", "0.19", "smoothing=2"]),
        (lambda: PixelFocal(gamma=0.5, alpha=2), [r"gamma=0\.5", "alpha=2"]),
        (lambda: Dice(smooth=-1, log_loss="yes"), ["smooth=-1", "log_loss='yes'"]),
        (lambda: Tversky(gamma=0.75, alpha="a"), [r"gamma=0\.75", "infinite", "alpha='a'"]),
        (lambda: Tversky(alpha=0, beta=0), ["both 0"]),
        (lambda: Lovasz(per_image=1), ["per_image=1"]),
        (lambda: WeightedSum([Dice()], [1.0, 2.0]), ["list of 1 numbers"]),
        (lambda: WeightedSum([], []), ["at least one loss"]),
        (lambda: WeightedSum([{"type": "Dice"}], [-1]), ["losses=", "weights="]),
    ],
)
def test_mistakes_are_named(make: Callable[[], SegmentationLoss], words: Sequence[str]) -> None:
    with pytest.raises(UserError) as caught:
        make()
    for word in words:
        assert re.search(word, str(caught.value)), f"{word!r} is not in {caught.value}"
