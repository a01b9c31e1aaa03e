"""Distillation by hand, against its gradient in the papers and against torch's divergence; what a teacher may do."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer.losses.distillation import Teacher, distillation_loss
from transfer.types import UserError


def some_logits(rows: int = 6, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Of a student and a teacher, float64."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, rows, classes, generator=generator, dtype=torch.float64) * 3
    return drawn[0].requires_grad_(), drawn[1]


class SmallTeacher(nn.Module):
    """Means of the channels through batch norm, dropout and a linear layer: all that training mode would change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.fc = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.dropout(self.norm(images.float().mean(dim=(2, 3)))))


# ---- the loss ----


def test_two_classes_by_hand() -> None:
    # At T = 2 the student says 3/4 and 1/4, the teacher 1/5 and 4/5.
    student = torch.tensor([[2 * math.log(3), 0.0]])
    teacher = torch.tensor([[0.0, 2 * math.log(4)]])
    expected = 4 * -(0.2 * math.log(0.75) + 0.8 * math.log(0.25))
    assert distillation_loss(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-6)


def test_the_default_is_the_papers_temperature_and_a_sum_over_rows() -> None:
    student, teacher = some_logits()
    rows = distillation_loss(student, teacher, temperature=20, reduction="none")
    assert rows.shape == (6,)
    torch.testing.assert_close(distillation_loss(student, teacher), rows.sum())
    torch.testing.assert_close(distillation_loss(student, teacher, reduction="mean"), rows.mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_the_gradient_is_the_difference_of_the_softened_probabilities_times_the_temperature(temperature: float) -> None:
    student, teacher = some_logits()
    distillation_loss(student, teacher, temperature=temperature).backward()
    softened = [(logits.detach() / temperature).softmax(1) for logits in (student, teacher)]
    torch.testing.assert_close(student.grad, temperature * (softened[0] - softened[1]))


def test_at_a_large_temperature_the_gradient_is_that_of_matching_centred_logits() -> None:
    """Hinton et al., equation 4, times the T^2 of the loss."""
    student, teacher = some_logits()
    distillation_loss(student, teacher, temperature=1e5).backward()
    centred = [logits.detach() - logits.detach().mean(1, keepdim=True) for logits in (student, teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / 5, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_kullback_leibler_divergence_is_less_by_the_teachers_entropy(temperature: float) -> None:
    student, teacher = some_logits()
    soft = (teacher / temperature).softmax(1)
    entropy = -(soft * soft.log()).sum()
    divergence = functional.kl_div((student / temperature).log_softmax(1), soft, reduction="sum")
    expected = temperature**2 * (divergence + entropy)
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=temperature), expected)


def test_a_teacher_that_is_sure_is_a_label() -> None:
    student, _ = some_logits()
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    teacher = 1e4 * functional.one_hot(labels, 5).double()
    expected = functional.cross_entropy(student, labels, reduction="sum")
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=1.0), expected)


def test_equal_logits_cost_the_squared_temperature_times_log_k() -> None:
    _, teacher = some_logits(rows=1)
    assert distillation_loss(torch.zeros(1, 5), teacher).item() == pytest.approx(400 * math.log(5), rel=1e-6)


def test_half_precision_is_judged_in_float32() -> None:
    student, teacher = (logits.detach().to(torch.bfloat16) for logits in some_logits())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distillation_loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, distillation_loss(student.float(), teacher.float()))


def test_no_gradient_goes_to_the_teachers_logits() -> None:
    student, teacher = some_logits()
    teacher.requires_grad_()
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan"), "20", True])
def test_a_temperature_that_is_none_is_named(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature="):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature=temperature)


# ---- the teacher ----


def test_a_teacher_answers_in_eval_mode_without_gradients_whoever_trains_it() -> None:
    torch.manual_seed(0)
    network = SmallTeacher()
    with torch.no_grad():
        network.norm.running_mean.fill_(50.0)  # type: ignore[union-attr]
    images = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8)
    expected = copy.deepcopy(network).eval()(images)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    teacher = Teacher(network)
    for _ in range(2):
        network.train()
        said = teacher(images)
        assert torch.equal(said, expected)
        assert not said.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_teacher_is_moved_to_the_images() -> None:
    network = SmallTeacher()
    said = Teacher(network)(torch.zeros(2, 3, 5, 5, device="meta"))
    assert said.device.type == "meta"
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}


def test_a_teacher_may_be_a_function_or_give_an_object_with_logits() -> None:
    class Output:
        logits = torch.ones(2, 7)

    images = torch.zeros(2, 3, 5, 5)
    assert torch.equal(Teacher(lambda x: x.mean(dim=(2, 3)))(images), torch.zeros(2, 3))
    assert torch.equal(Teacher(lambda x: Output())(images), torch.ones(2, 7))


def test_a_deep_copy_of_a_teacher_holds_no_second_network() -> None:
    teacher = Teacher(SmallTeacher())
    assert copy.deepcopy({"teacher": teacher})["teacher"].network is teacher.network


@pytest.mark.parametrize(
    ("answer", "words"),
    [(torch.zeros(2, 4, 1, 1), r"\[2, 4, 1, 1\]"), (torch.zeros(3, 4), r"\[3, 4\]"), ([0.5, 0.5], "gives list")],
)
def test_an_answer_that_is_no_logits_is_named(answer: object, words: str) -> None:
    with pytest.raises(UserError, match=rf"{words} for 2 images: logits \[2, K\]"):
        Teacher(lambda images: answer)(torch.zeros(2, 3, 5, 5))
