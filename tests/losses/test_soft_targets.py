"""Smoothed cross entropy against torch, against targets built by hand, and against its known optimum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from transfer.losses.soft_targets import soft_cross_entropy
from transfer.types import UserError

FORMS = ["usual", "paper"]


def some(shape: tuple[int, ...] = (7, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator) * 3
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits, labels


def hand_made_targets(labels: Tensor, classes: int, smoothing: float, form: str) -> Tensor:
    """[N, K], entry by entry as the two papers print them."""
    rows = []
    for label in labels.tolist():
        if form == "usual":
            row = [smoothing / classes] * classes
            row[label] = 1 - smoothing + smoothing / classes
        else:
            row = [smoothing / (classes - 1)] * classes
            row[label] = 1 - smoothing
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize("shape", [(7, 5), (1000, 150), (2, 5, 9, 11), (1, 1), (0, 5)])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_no_smoothing_is_torchs_cross_entropy_to_the_last_bit(shape: tuple[int, ...], reduction: str) -> None:
    logits, labels = some(shape)
    if shape[0] == 0 and reduction == "mean":
        assert soft_cross_entropy(logits, labels, reduction="mean").item() == 0  # torch's is not a number
        return
    found = soft_cross_entropy(logits, labels, reduction=reduction)
    assert torch.equal(found, functional.cross_entropy(logits, labels, reduction=reduction))


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_no_smoothing_with_ignored_rows_is_torchs_too(reduction: str) -> None:
    logits, labels = some((2, 5, 9, 11))
    labels[:, :4] = 255
    found = soft_cross_entropy(logits, labels, reduction=reduction, ignore_index=255)
    assert torch.equal(found, functional.cross_entropy(logits, labels, reduction=reduction, ignore_index=255))


@pytest.mark.parametrize("shape", [(7, 5), (64, 1000), (2, 5, 9, 11)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("ignore", [False, True])
def test_the_usual_form_is_torchs_label_smoothing(shape: tuple[int, ...], reduction: str, ignore: bool) -> None:
    logits, labels = some(shape)
    index = 255 if ignore else -100
    if ignore:
        labels[0] = 255
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction=reduction, ignore_index=index)
    found = soft_cross_entropy(logits, labels, smoothing=0.1, reduction=reduction, ignore_index=255 if ignore else None)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_against_targets_built_entry_by_entry(form: str) -> None:
    logits, labels = some()
    targets = hand_made_targets(labels, 5, 0.3, form)
    expected = -(targets * (logits - logits.logsumexp(1, keepdim=True))).sum(1)
    found = soft_cross_entropy(logits, labels, smoothing=0.3, form=form, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    as_probabilities = soft_cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(as_probabilities, expected, rtol=1e-6, atol=1e-6)


def test_the_papers_form_at_equal_logits_by_hand() -> None:
    # Two classes at log 3 and 0 have probabilities 3/4 and 1/4; the paper's targets for e = 0.2 are 0.8 and 0.2.
    logits = torch.tensor([[math.log(3.0), 0.0]])
    expected = -0.8 * math.log(0.75) - 0.2 * math.log(0.25)
    found = soft_cross_entropy(logits, torch.tensor([0]), smoothing=0.2, form="paper")
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_papers_optimal_gap_between_logits() -> None:
    """Minimise over the logits themselves: the true class ends up log((K - 1)(1 - e) / e) = 9.1 above the rest."""
    classes, smoothing = 1000, 0.1
    logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = soft_cross_entropy(logits, torch.tensor([3]), smoothing=smoothing, form="paper")
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    found = logits.detach()[0]
    rest = torch.cat([found[:3], found[4:]])
    assert (found[3] - rest).max().item() == pytest.approx(9.104, abs=2e-3)
    assert (found[3] - rest).min().item() == pytest.approx(math.log(999 * 0.9 / 0.1), abs=2e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixed_labels_give_the_mixture_of_losses(form: str, smoothing: float) -> None:
    logits, first = some()
    second = first.roll(1)
    one_hots = [functional.one_hot(labels, 5).float() for labels in (first, second)]
    mixed = 0.3 * one_hots[0] + 0.7 * one_hots[1]
    options = {"smoothing": smoothing, "form": form, "reduction": "none"}
    expected = 0.3 * soft_cross_entropy(logits, first, **options) + 0.7 * soft_cross_entropy(logits, second, **options)
    torch.testing.assert_close(soft_cross_entropy(logits, mixed, **options), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.ones(3, 1)])
def test_one_class_has_nothing_to_smooth(form: str, labels: Tensor) -> None:
    loss = soft_cross_entropy(torch.randn(3, 1), labels, smoothing=0.1, form=form, reduction="none")
    assert torch.equal(loss, torch.zeros(3))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_multiply_the_rows_and_leave_the_normaliser(smoothing: float) -> None:
    logits, labels = some()
    weights = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0, 2.0, 0.1])
    rows = soft_cross_entropy(logits, labels, smoothing=smoothing, reduction="none")
    total = sum(row * weight for row, weight in zip(rows.tolist(), weights.tolist()))
    options = {"smoothing": smoothing, "weights": weights}
    assert soft_cross_entropy(logits, labels, **options).item() == pytest.approx(total, rel=1e-6)
    assert soft_cross_entropy(logits, labels, reduction="mean", **options).item() == pytest.approx(total / 7, rel=1e-6)
    ones = soft_cross_entropy(logits, labels, smoothing=smoothing, weights=torch.ones(7), reduction="none")
    assert torch.equal(ones, rows)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_rows_have_no_gradient_and_all_ignored_is_zero(smoothing: float) -> None:
    logits, labels = some()
    logits.requires_grad_()
    labels[2] = 255
    soft_cross_entropy(logits, labels, smoothing=smoothing, ignore_index=255).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[2], torch.zeros(5))
    assert bool((logits.grad[[0, 1, 3, 4, 5, 6]] != 0).all())
    logits.grad = None
    nothing = soft_cross_entropy(logits, torch.full((7,), 255), smoothing=smoothing, ignore_index=255, reduction="mean")
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(logits.grad, torch.zeros(7, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("label", [-100, -1, 5])
def test_a_label_outside_the_classes_is_never_ignored_in_silence(smoothing: float, label: int) -> None:
    logits, labels = some()
    labels[0] = label
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        soft_cross_entropy(logits, labels, smoothing=smoothing)


def test_nonsense_is_refused_all_at_once() -> None:
    logits, labels = some()
    with pytest.raises(UserError, match=r"smoothing is 1\.0.*form is 'papers'.*reduction is 'avg'"):
        soft_cross_entropy(logits, labels, smoothing=1.0, form="papers", reduction="avg")
    with pytest.raises(UserError, match="weight 0 instead"):
        soft_cross_entropy(logits, logits.softmax(1), ignore_index=255)
