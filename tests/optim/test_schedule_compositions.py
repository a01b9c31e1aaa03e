"""Warm-ups of both kinds, a schedule held for whole epochs, and steps followed by a cosine, at every step."""

from __future__ import annotations

import math

import pytest
from lr_curves import EXACT, PER_EPOCH, TOTAL, curve, torch_curve
from torch.optim import lr_scheduler

from transfer.optim.schedules import Constant, Cosine, Held, Plateau, Schedule, Sequence, Step, WarmUp
from transfer.types import UserError


def test_constant_warm_up_is_low_and_then_jumps() -> None:
    """Goyal et al. 2017, section 2.2: a low constant lr for the first 5 epochs, then the full one."""
    found = curve(WarmUp(epochs=5, mode="constant", start=0.1, then=Constant()))
    assert found == [0.1] * 50 + [1.0] * 70
    theirs = torch_curve(lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=0.1, total_iters=50))
    assert found == pytest.approx(theirs, **EXACT)


def test_what_follows_a_warm_up_is_the_same_after_both_kinds() -> None:
    gradual = curve(WarmUp(epochs=2, start=0.5, then=Cosine()))
    constant = curve(WarmUp(epochs=2, start=0.5, mode="constant", then=Cosine()))
    assert gradual[20:] == constant[20:]
    assert gradual[19] == constant[20] == 1.0
    assert gradual[:20] == pytest.approx([0.5 + 0.5 * i / 20 for i in range(1, 21)], **EXACT)


def test_a_cosine_held_for_an_epoch_is_torchs_stepped_once_an_epoch() -> None:
    found = curve(Held(Cosine()))
    assert found == pytest.approx([(1 + math.cos(math.pi * (i // 10) / 12)) / 2 for i in range(TOTAL)], **EXACT)
    theirs = torch_curve(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=12), every=PER_EPOCH)
    assert found == pytest.approx(theirs, **EXACT)


@pytest.mark.parametrize("epochs", [3, 5])
def test_a_cosine_held_for_some_epochs_at_a_time(epochs: int) -> None:
    plain, held = curve(Cosine(final=0.1)), curve(Held(Cosine(final=0.1), epochs=epochs))
    assert held == [plain[i - i % (10 * epochs)] for i in range(TOTAL)]
    assert len(set(held)) == math.ceil(12 / epochs)  # the last of the blocks of 5 is cut short


def test_blocks_count_from_the_end_of_the_warm_up() -> None:
    found = curve(WarmUp(iterations=15, then=Held(Cosine(), epochs=2)))
    plain = curve(WarmUp(iterations=15, then=Cosine()))
    assert found[:15] == plain[:15]
    assert found[15:] == [plain[i - (i - 15) % 20] for i in range(15, TOTAL)]


def test_blocks_that_are_no_whole_number_begin_at_the_nearest_iteration() -> None:
    plain, held = curve(Cosine()), curve(Held(Cosine(), epochs=1 / 3))  # begin at 0, 3.33, 6.67, 10
    assert held[:10] == [plain[i] for i in (0, 0, 0, 3, 3, 3, 3, 7, 7, 7)]


def test_steps_for_the_first_half_then_a_cosine() -> None:
    """/10 at epochs 2 and 4, then from the level reached half a cosine to 0 over epochs 6 to 12."""
    schedule = Sequence([(0.5, Step([2, 4], unit="epoch")), (0.5, Cosine())])
    cosine = [0.01 * (1 + math.cos(math.pi * t / 60)) / 2 for t in range(60)]
    assert curve(schedule) == pytest.approx([1.0] * 20 + [0.1] * 20 + [0.01] * 20 + cosine, **EXACT)
    anew = curve(Sequence(schedule.pieces, carry=False))
    assert anew[60:] == pytest.approx([100 * value for value in cosine], **EXACT)


def test_steps_then_a_held_cosine_after_a_warm_up() -> None:
    """A warm-up of 2 epochs, 5 epochs of steps (/2 at epoch 4 of the run), 5 of a cosine held for an epoch."""
    then = Sequence([(0.5, Step([4], unit="epoch", gamma=0.5)), (0.5, Held(Cosine()))])
    found = curve(WarmUp(epochs=2, then=then))
    cosine = [0.5 * (1 + math.cos(math.pi * (t // 10) / 5)) / 2 for t in range(50)]
    expected = [i / 20 for i in range(1, 21)] + [1.0] * 20 + [0.5] * 30 + cosine
    assert found == pytest.approx(expected, **EXACT)


def problem(schedule: Schedule) -> str:
    with pytest.raises(UserError) as caught:
        schedule.factor(0, total=TOTAL, per_epoch=PER_EPOCH)
    return str(caught.value)


def test_what_cannot_be_held_is_refused() -> None:
    assert "blocks of 12 epochs in the 12 epochs" in problem(Held(Cosine(), epochs=12))
    assert "blocks of 0.05 epochs" in problem(Held(Cosine(), epochs=0.05))
    assert "[15]" in problem(Held(Step([15], unit="epoch")))
    assert "Plateau follows the evaluations" in problem(WarmUp(epochs=1, then=Held(Plateau())))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Held(Cosine(), epochs=0), "epochs is 0"),
        (lambda: Held(Cosine(), epochs="2"), "epochs is '2'"),
        (lambda: WarmUp(epochs=1, mode="constant", then=Cosine()), "trains nothing"),
        (lambda: WarmUp(epochs=1, mode="linear", then=Cosine()), "mode is 'linear'"),
    ],
)
def test_nonsense_is_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
