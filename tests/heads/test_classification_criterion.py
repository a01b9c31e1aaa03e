"""The class loss against torch, torchvision and the papers' formulas; mixed labels, weights, a teacher, processes."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detector_builders import make_target
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from transfer.heads import classification_criterion
from transfer.heads.classification import ClassifierOutput
from transfer.heads.classification_criterion import ClassificationCriterion, image_truth
from transfer.losses.distillation import distillation_loss
from transfer.losses.soft_targets import smoothed_probabilities
from transfer.preflight.first_loss import ExpectsFirstLosses
from transfer.types import Target, UserError

LABELS = [3, 0, 4, 1]
MIXED = [{3: 0.25, 0: 0.75}, {4: 0.6, 1: 0.4}, {1: 0.5, 2: 0.5}, {0: 1.0}]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "paper": {"label_smoothing": 0.1, "smoothing_form": "paper"},
    "bce": {"loss": "bce"},
    "bce smoothed": {"loss": "bce", "label_smoothing": 0.1},
    "focal": {"loss": "focal"},
    "weighted": {"class_weights": [1.0, 2.0, 0.5, 3.0, 0.25]},
}


def class_target(classes: Sequence[int], shares: Sequence[float] = (1.0,)) -> Target:
    target = make_target()
    target.classes, target.shares = torch.tensor(classes), torch.tensor(shares)
    return target


def hard_targets() -> list[Target]:
    return [class_target([label]) for label in LABELS]


def mixed_targets() -> list[Target]:
    return [class_target(list(shares), list(shares.values())) for shares in MIXED]


def random_output(dtype: torch.dtype = torch.float32, rows: int = 4) -> ClassifierOutput:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(rows, 5, generator=generator) * 3).to(dtype).requires_grad_()
    return ClassifierOutput(logits, torch.randint(256, (rows, 3, 8, 8), dtype=torch.uint8, generator=generator))


def matrix(rows: Sequence[dict[int, float]]) -> Tensor:
    """[B, K] of what each image is taught, entry by entry."""
    return torch.tensor([[row.get(k, 0.0) for k in range(5)] for row in rows])


def smooth(probabilities: Tensor, smoothing: float, form: str) -> Tensor:
    """Row by row: the mixture of the smoothed one-hot targets as the papers print them."""
    classes = probabilities.shape[1]
    rows = []
    for row in probabilities.tolist():
        mixed = torch.zeros(classes)
        for label, share in enumerate(row):
            on, off = (
                (1 - smoothing + smoothing / classes, smoothing / classes)
                if form == "usual"
                else (1 - smoothing, smoothing / (classes - 1))
            )
            mixed += share * torch.tensor([on if k == label else off for k in range(classes)])
        rows.append(mixed)
    return torch.stack(rows)


def gradient(criterion: ClassificationCriterion, output: ClassifierOutput, targets: list[Target]) -> Tensor:
    losses = criterion(output, targets)
    (found,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), output.logits)
    return found


# ---- cross entropy ----


def test_everything_off_is_torchs_cross_entropy_to_the_last_bit() -> None:
    output, targets = random_output(), hard_targets()
    losses = ClassificationCriterion()(output, targets)
    assert list(losses) == ["loss_class"]
    expected = F.cross_entropy(output.logits, torch.tensor(LABELS))
    assert torch.equal(losses["loss_class"], expected)
    found = gradient(ClassificationCriterion(), output, targets)
    assert torch.equal(found, torch.autograd.grad(expected, output.logits)[0])


@pytest.mark.parametrize("rows", [1, 3, 7, 256])
def test_off_is_torchs_for_any_batch(rows: int) -> None:
    output = random_output(rows=rows)
    labels = [row % 5 for row in range(rows)]
    found = ClassificationCriterion()(output, [class_target([label]) for label in labels])["loss_class"]
    assert torch.equal(found, F.cross_entropy(output.logits, torch.tensor(labels)))


@pytest.mark.parametrize("rows", [LABELS, MIXED])
@pytest.mark.parametrize(("smoothing", "form"), [(0.0, "usual"), (0.1, "usual"), (0.1, "paper")])
def test_cross_entropy_of_smoothed_and_mixed_labels(rows: Any, smoothing: float, form: Any) -> None:
    output = random_output()
    targets = hard_targets() if rows is LABELS else mixed_targets()
    probabilities = smooth(matrix([{label: 1.0} for label in LABELS] if rows is LABELS else MIXED), smoothing, form)
    expected = -(probabilities * output.logits.log_softmax(1)).sum(1).mean()
    criterion = ClassificationCriterion(label_smoothing=smoothing, smoothing_form=form)
    torch.testing.assert_close(criterion(output, targets)["loss_class"], expected)


def test_mixup_by_hand() -> None:
    """Two images at 0.3 and 0.7, probabilities 1/2, 1/4, 1/4: 0.3 log 2 + 0.7 log 4."""
    output = ClassifierOutput(torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.zeros(1, 3, 4, 4))
    found = ClassificationCriterion()(output, [class_target([0, 2], [0.3, 0.7])])["loss_class"]
    assert found.item() == pytest.approx(0.3 * math.log(2) + 0.7 * math.log(4), rel=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_image_mixed_with_its_own_class_is_that_class(name: str) -> None:
    criterion, output = ClassificationCriterion(**OPTIONS[name]), random_output()
    twice = [class_target([label, label], [0.3, 0.7]) for label in LABELS]
    torch.testing.assert_close(criterion(output, twice)["loss_class"], criterion(output, hard_targets())["loss_class"])


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "focal"])
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(name: str) -> None:
    """Weighted by class, too; the focal loss is not linear in its target."""
    criterion, output = ClassificationCriterion(**OPTIONS[name]), random_output()
    first, second = hard_targets(), hard_targets()[::-1]
    pairs = [class_target([a, b], [0.2, 0.8]) for a, b in zip(LABELS, LABELS[::-1])]
    expected = 0.2 * criterion(output, first)["loss_class"] + 0.8 * criterion(output, second)["loss_class"]
    torch.testing.assert_close(criterion(output, pairs)["loss_class"], expected)


@pytest.mark.parametrize(("form", "gap"), [("paper", math.log(999 * 0.9 / 0.1)), ("usual", math.log(0.9001 / 0.0001))])
def test_at_the_optimal_gap_between_logits_the_gradient_vanishes(form: Any, gap: float) -> None:
    """K = 1000, e = 0.1: 9.1 in BoT's form (section 5.2), log of the two targets' ratio in the usual one."""
    assert gap == pytest.approx(9.1, abs=0.02)
    criterion = ClassificationCriterion(label_smoothing=0.1, smoothing_form=form)
    slopes = []
    for shift in (-0.1, 0.0, 0.1):
        logits = torch.zeros(1, 1000, dtype=torch.float64)
        logits[0, 7] = gap + shift
        output = ClassifierOutput(logits.requires_grad_(), torch.zeros(1, 3, 4, 4))
        slopes.append(gradient(criterion, output, [class_target([7])]))
    assert slopes[1].abs().max().item() < 1e-12
    assert slopes[0][0, 7] < -1e-3
    assert slopes[2][0, 7] > 1e-3


def test_half_precision_is_judged_in_float32() -> None:
    output, targets = random_output(torch.bfloat16), mixed_targets()
    exact = ClassifierOutput(output.logits.detach().float(), output.images)
    for options in OPTIONS.values():
        criterion = ClassificationCriterion(**options, teacher=lambda images: torch.eye(4, 5))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = criterion(output, targets)
        for name, loss in criterion(exact, targets).items():
            assert found[name].dtype == torch.float32
            assert torch.equal(found[name], loss)


# ---- binary losses ----


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("smoothing", "form"), [(0.0, "usual"), (0.1, "usual"), (0.1, "paper")])
def test_bce_is_torchs_mean_over_classes_and_images(mixed: bool, smoothing: float, form: Any) -> None:
    output = random_output()
    wanted = smooth(matrix(MIXED if mixed else [{label: 1.0} for label in LABELS]), smoothing, form)
    expected = F.binary_cross_entropy_with_logits(output.logits, wanted)
    criterion = ClassificationCriterion(loss="bce", label_smoothing=smoothing, smoothing_form=form)
    found = criterion(output, mixed_targets() if mixed else hard_targets())["loss_class"]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 1.0), (0.9, 0.0)])
def test_focal_is_torchvisions_mean_over_classes_and_images(mixed: bool, alpha: float | None, gamma: float) -> None:
    output = random_output()
    wanted = matrix(MIXED if mixed else [{label: 1.0} for label in LABELS])
    expected = sigmoid_focal_loss(output.logits, wanted, -1 if alpha is None else alpha, gamma, "mean")
    criterion = ClassificationCriterion(loss="focal", focal_alpha=alpha, focal_gamma=gamma)
    torch.testing.assert_close(criterion(output, mixed_targets() if mixed else hard_targets())["loss_class"], expected)


def test_smoothed_probabilities_are_themselves_without_smoothing() -> None:
    probabilities = matrix(MIXED)
    assert smoothed_probabilities(probabilities, smoothing=0.0) is probabilities
    assert torch.equal(smoothed_probabilities(torch.ones(2, 1), smoothing=0.1, form="paper"), torch.ones(2, 1))
    with pytest.raises(UserError, match=r"smoothed_probabilities: smoothing is 2.*form is 'papers'"):
        smoothed_probabilities(probabilities, smoothing=2, form="papers")  # type: ignore[arg-type]


# ---- class weights ----


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
def test_weights_multiply_the_losses_and_leave_the_normaliser(loss: Any) -> None:
    weights, output = [1.0, 2.0, 0.5, 3.0, 0.25], random_output()
    alone = [
        ClassificationCriterion(loss=loss)(
            ClassifierOutput(output.logits[i : i + 1], output.images[i : i + 1]), [class_target([label])]
        )["loss_class"]
        for i, label in enumerate(LABELS)
    ]
    expected = sum(weights[label] * part for label, part in zip(LABELS, alone)) / 4
    found = ClassificationCriterion(loss=loss, class_weights=weights)(output, hard_targets())["loss_class"]
    torch.testing.assert_close(found, expected)
    if loss == "cross_entropy":
        labels, table = torch.tensor(LABELS), torch.tensor(weights)
        torchs = F.cross_entropy(output.logits, labels, weight=table) * table[labels].sum() / 4  # its own normaliser
        torch.testing.assert_close(found, torchs)


@pytest.mark.parametrize("targets", [hard_targets, mixed_targets])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
def test_weights_of_one_change_nothing(loss: Any, targets: Callable[[], list[Target]]) -> None:
    plain, weighted = (ClassificationCriterion(loss=loss, class_weights=w) for w in (None, [1.0] * 5))
    output = random_output()
    torch.testing.assert_close(weighted(output, targets())["loss_class"], plain(output, targets())["loss_class"])


def test_weighted_truth_of_a_mixture_by_hand() -> None:
    """Shares 0.25 and 0.75 of classes of weight 3 and 1: 0.75 each, so half and half of an image that counts 1.5."""
    weights = torch.tensor([1.0, 9.0, 9.0, 3.0])
    truth = image_truth(
        [class_target([3, 0], [0.25, 0.75]), class_target([3])],
        4,
        weights,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    torch.testing.assert_close(truth.labels, torch.tensor([[0.5, 0, 0, 0.5], [0, 0, 0, 1.0]]))
    torch.testing.assert_close(truth.weights, torch.tensor([1.5, 3.0]))


# ---- distillation ----


def linear_teacher(classes: int = 5) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes))


class OfPixels(nn.Module):
    """A teacher that takes uint8."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.layers, self.num_classes = linear_teacher(classes), classes

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.float() / 64)


def test_distillation_is_the_second_term_beside_the_first() -> None:
    output, targets, teacher = random_output(), mixed_targets(), OfPixels()
    plain = ClassificationCriterion(label_smoothing=0.1)(output, targets)["loss_class"]
    criterion = ClassificationCriterion(label_smoothing=0.1, teacher=teacher, temperature=3.0)
    losses = criterion(output, targets)
    assert list(losses) == ["loss_class", "loss_distillation"]
    assert torch.equal(losses["loss_class"], plain)
    said = (teacher(output.images) / 3).softmax(1)
    expected = 9 * -(said * (output.logits / 3).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses["loss_distillation"], expected)
    halved = ClassificationCriterion(
        label_smoothing=0.1, teacher=teacher, temperature=3.0, hard_weight=0.25, soft_weight=0.5
    )(output, targets)
    torch.testing.assert_close(halved["loss_class"], 0.25 * plain)
    torch.testing.assert_close(halved["loss_distillation"], 0.5 * expected)


def test_two_classes_distilled_by_hand() -> None:
    """T = 20 by default: the student says 3/4 and 1/4, the teacher 1/5 and 4/5, of both images."""
    student = torch.tensor([[20 * math.log(3), 0.0]] * 2)
    teacher = torch.tensor([[0.0, 20 * math.log(4)]] * 2)
    output = ClassifierOutput(student, torch.zeros(2, 3, 8, 8))
    losses = ClassificationCriterion(teacher=lambda images: teacher)(output, [class_target([0]), class_target([1])])
    expected = 400 * -(0.2 * math.log(0.75) + 0.8 * math.log(0.25))
    assert losses["loss_distillation"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["loss_class"].item() == pytest.approx(20 * math.log(3) / 2, rel=1e-5)


def test_class_weights_and_smoothing_leave_the_distillation_alone() -> None:
    output, targets, teacher = random_output(), hard_targets(), OfPixels()
    found = [ClassificationCriterion(**options, teacher=teacher)(output, targets) for options in OPTIONS.values()]
    expected = distillation_loss(output.logits, teacher(output.images)) / 4
    for losses in found:
        torch.testing.assert_close(losses["loss_distillation"], expected)


def test_a_teacher_gets_no_gradient_and_is_in_nobodys_state() -> None:
    student, teacher = linear_teacher(), OfPixels()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images = random_output().images
    criterion = ClassificationCriterion(teacher=teacher)
    losses = criterion(ClassifierOutput(student(images.float() / 255), images), hard_targets())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not isinstance(criterion, nn.Module)
    assert not hasattr(criterion, "state_dict")


def test_a_copy_of_the_criterion_shares_the_teacher() -> None:
    """The preflight copies a run's task; a large teacher is not held twice."""
    teacher = OfPixels()
    copied = copy.deepcopy(ClassificationCriterion(teacher=teacher))
    assert copied.teacher is not None
    assert copied.teacher.network is teacher


def test_without_a_teacher_its_settings_are_not_read() -> None:
    output, targets = random_output(), hard_targets()
    off = ClassificationCriterion(temperature=3.0, hard_weight=0.5, soft_weight=0.5)(output, targets)
    assert off.keys() == {"loss_class"}
    assert torch.equal(off["loss_class"], F.cross_entropy(output.logits, torch.tensor(LABELS)))


def test_a_teacher_of_other_classes_is_named() -> None:
    with pytest.raises(UserError, match="teacher has 7 classes, the student 5"):
        ClassificationCriterion(teacher=OfPixels(7))(random_output(), hard_targets())


# ---- the model, first losses, processes ----


def test_the_criterion_is_checked_against_the_model() -> None:
    model = nn.Identity()
    model.num_classes = 5  # type: ignore[assignment]
    ClassificationCriterion(class_weights=[1.0] * 5, teacher=OfPixels()).check_model(model)
    ClassificationCriterion(teacher=lambda images: images).check_model(model)
    with pytest.raises(UserError, match="class_weights has 2 numbers, the model has 5 classes"):
        ClassificationCriterion(class_weights=[1, 2]).check_model(model)
    with pytest.raises(UserError, match="teacher has 7 classes, the student 5"):
        ClassificationCriterion(teacher=OfPixels(7)).check_model(model)
    with pytest.raises(UserError, match="class_weights has 2 numbers"):
        ClassificationCriterion(class_weights=[1, 2])(random_output(), hard_targets())


@pytest.mark.parametrize("targets", [hard_targets, mixed_targets])
def test_first_losses_of_an_untrained_head(targets: Callable[[], list[Target]]) -> None:
    def expected(**options: Any) -> dict[str, float]:
        criterion = ClassificationCriterion(**options)
        assert isinstance(criterion, ExpectsFirstLosses)
        return criterion.expected_first_losses(nn.Identity(), random_output(), targets())

    for smoothing in ({}, {"label_smoothing": 0.1}):
        assert expected(**smoothing) == {"loss_class": pytest.approx(math.log(5), rel=1e-6)}
        assert expected(loss="bce", **smoothing) == {"loss_class": pytest.approx(math.log(2), rel=1e-6)}
    # Of five classes one is a positive of weight 0.25, four are negatives of 0.75; each has (1/2)^2 log 2.
    focal = (0.25 + 4 * 0.75) / 5 * math.log(2) / 4
    assert expected(loss="focal") == {"loss_class": pytest.approx(focal, rel=1e-6)}
    assert expected(teacher=OfPixels(), hard_weight=0.5) == {
        "loss_class": pytest.approx(math.log(5) / 2, rel=1e-6),
        "loss_distillation": pytest.approx(400 * math.log(5), rel=1e-6),
    }


@pytest.mark.parametrize("targets", [hard_targets, mixed_targets])
@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_of_unequal_batches_equal_one(
    name: str, targets: Callable[[], list[Target]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = random_output(torch.float64)
    criterion = ClassificationCriterion(**OPTIONS[name], teacher=OfPixels())
    one = gradient(criterion, output, targets())
    monkeypatch.setattr(
        classification_criterion, "mean_over_processes", lambda count, device: torch.tensor(2.0, device=device)
    )
    parts = []
    for rows in (slice(0, 3), slice(3, 4)):
        part = ClassifierOutput(output.logits[rows].detach().requires_grad_(), output.images[rows])
        parts.append(gradient(criterion, part, targets()[rows]))
    torch.testing.assert_close(torch.cat(parts) / 2, one, rtol=1e-6, atol=1e-9)  # DDP takes the mean of gradients


def test_the_number_of_images_is_averaged_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def other_process_has_more(count: float, device: torch.device) -> Tensor:
        seen.append(count)
        return torch.tensor(2.0 * count)

    output, targets = random_output(), hard_targets()
    plain = ClassificationCriterion(teacher=OfPixels())(output, targets)
    monkeypatch.setattr(classification_criterion, "mean_over_processes", other_process_has_more)
    found = ClassificationCriterion(teacher=OfPixels())(output, targets)
    assert seen == [4]
    for name, loss in plain.items():
        torch.testing.assert_close(found[name], loss / 2)


# ---- mistakes ----


def test_images_without_a_class_and_of_no_class_are_named() -> None:
    nameless = make_target()
    nameless.path = "boxes.jpg"
    with pytest.raises(UserError, match=r"boxes\.jpg: has no class: .*classification data set"):
        ClassificationCriterion()(random_output(), [*hard_targets()[:3], nameless])
    for label in (5, -1, -100):
        for classes, shares in (([label], [1.0]), ([0, label], [0.5, 0.5])):
            strange = class_target(classes, shares)
            strange.path = "strange.jpg"
            with pytest.raises(
                UserError, match=rf"strange\.jpg: is of class {label}, the model has the classes 0 to 4"
            ):
                ClassificationCriterion()(random_output(), [strange, *hard_targets()[:3]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "cross_entropi"}, ["loss='cross_entropi'", "did you mean 'cross_entropy'"]),
        (
            {"smoothing_form": "papper", "label_smoothing": 1.0, "focal_gamma": 0.5, "temperature": 0},
            ["did you mean 'paper'", r"label_smoothing=1\.0", r"focal_gamma=0\.5", "temperature=0"],
        ),
        ({"class_weights": "balanced"}, ["class_weights='balanced'"]),
        ({"class_weights": [1.0, 0.0]}, ["number above 0"]),
        ({"class_weights": []}, ["class_weights="]),
        ({"class_weights": [1.0, float("inf")]}, ["class_weights="]),
        ({"teacher": "resnet152d", "hard_weight": -1}, ["teacher='resnet152d'", "hard_weight=-1"]),
        ({"soft_weight": 0}, ["soft_weight=0", "give no teacher"]),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: Sequence[str]) -> None:
    with pytest.raises(UserError) as caught:
        ClassificationCriterion(**options)
    for word in words:
        assert re.search(word, str(caught.value)), f"{word!r} is not in {caught.value}"
