"""The loop: its arithmetic by hand on a toy, and on a tiny detector that nothing but the seed decides a run."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_task import ALONE, Result, ToyTask, batch, gradient, toy_run

from transfer.assemble import build_run
from transfer.engine.checkpoint import load_checkpoint
from transfer.engine.distributed import World
from transfer.engine.hooks import CheckpointKeeper, MetricsFile
from transfer.engine.settings import TrainingSettings
from transfer.engine.train import Ending, Evaluation, Event, Run, Saving, Step, train
from transfer.types import UserError


def no_evaluation(model: nn.Module) -> Sequence[Result]:
    return []


class Events:
    """A hook that keeps what it was told."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.all.append(copy.copy(event))

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.all if isinstance(event, kind)]


def interrupt_after(iteration: int, number: int = signal.SIGINT) -> Callable[[Event], None]:
    def hook(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == iteration:
            signal.raise_signal(number)

    return hook


# The arithmetic of a step, by hand


def test_a_step_is_gradient_descent_on_the_mean_loss() -> None:
    run, events = toy_run(iterations=2), Events()
    weight = run.task.model.weight.detach().clone()
    assert train(run, no_evaluation, [events])
    for number in range(2):
        weight = weight - 0.01 * gradient(weight, [batch(number)])
    torch.testing.assert_close(run.task.model.weight.detach(), weight)
    first, second = events.of(Step)
    x = batch(0).images[:, :, 0, 0].double()
    expected = float(((x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)) ** 2).mean())
    assert first.losses == pytest.approx({"loss_square": expected}, rel=1e-6)
    assert (first.iteration, second.iteration, first.total, first.per_epoch) == (1, 2, 2, 4)
    assert (first.images, first.lr, first.grad_norm, first.skipped_step) == (2, 0.01, None, False)
    assert (first.skipped_files, second.skipped_files) == ([], ["broken1.jpg"])
    assert second.dropped == {"crop": 1}
    assert second.seconds >= second.loader_seconds >= 0


def test_two_micro_batches_are_one_step_with_the_mean_gradient() -> None:
    run, events = toy_run(iterations=1, accumulate=2), Events()
    weight = run.task.model.weight.detach().clone()
    train(run, no_evaluation, [events])
    expected = weight - 0.01 * gradient(weight, [batch(0), batch(1)])
    torch.testing.assert_close(run.task.model.weight.detach(), expected)
    (step,) = events.of(Step)
    losses = [float(((b.images[:, :, 0, 0].float() @ weight) ** 2).mean()) for b in (batch(0), batch(1))]
    assert step.losses["loss_square"] == pytest.approx(sum(losses) / 2)
    assert step.images == 4
    assert step.dropped == {"crop": 1}


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_told() -> None:
    run, events = toy_run(iterations=1, clip_norm=0.5), Events()
    weight = run.task.model.weight.detach().clone()
    full = gradient(weight, [batch(0)])
    train(run, no_evaluation, [events])
    assert events.of(Step)[0].grad_norm == pytest.approx(float(full.norm()), rel=1e-5)
    assert float(full.norm()) > 0.5
    torch.testing.assert_close(run.task.model.weight.detach(), weight - 0.01 * 0.5 * full / full.norm())


def test_random_draws_of_the_model_follow_from_seed_and_iteration() -> None:
    """The second step's draw is the same whether or not a first one was made in this process."""
    whole, events = toy_run(ToyTask(noise=True), iterations=3), Events()
    torch.manual_seed(99)
    train(whole, no_evaluation, [events])
    tail, tail_events = toy_run(ToyTask(noise=True), iterations=3), Events()
    again = toy_run(ToyTask(noise=True), iterations=3)
    train(again, no_evaluation, [interrupt_after(1), keep := Events()])
    tail.restore(keep.of(Saving)[-1].checkpoint)
    train(tail, no_evaluation, [tail_events])
    assert [s.losses for s in tail_events.of(Step)] == [s.losses for s in events.of(Step)[1:]]
    other, other_events = toy_run(ToyTask(noise=True), iterations=3, seed=1), Events()
    train(other, no_evaluation, [other_events])
    assert other_events.of(Step)[0].losses["loss_noise"] != events.of(Step)[0].losses["loss_noise"]


# What happens when


def test_evaluations_fall_on_their_epochs_and_on_the_last_step() -> None:
    for every, expected in ((1, [4, 8, 10]), (2, [8, 10]), (0.5, [2, 4, 6, 8, 10]), (0, [10]), (0.01, [*range(1, 11)])):
        run, events = toy_run(iterations=10, evaluate_every=every), Events()
        train(run, lambda model: [Result(0.5)], [events])
        assert [e.iteration for e in events.of(Evaluation)] == expected
        assert [e.checkpoint["iteration"] for e in events.of(Saving) if e.checkpoint["measured_at"]][-1] == 10


@pytest.mark.parametrize(("every", "expected"), [(1, [4, 8, 10]), (0.5, [2, 4, 6, 8, 10]), (0, [10])])
def test_checkpoints_fall_on_their_epochs_and_around_each_evaluation(every: float, expected: list[int]) -> None:
    run, events = toy_run(iterations=10, evaluate_every=0, checkpoint_every=every), Events()
    train(run, lambda model: [Result(0.5)], [events])
    saved = [(e.checkpoint["iteration"], e.checkpoint["measured_at"]) for e in events.of(Saving)]
    assert saved == [(iteration, 0) for iteration in expected] + [(10, 10)]  # before measuring, and with the figures
    order = [type(event).__name__ for event in events.all[-4:]]
    assert order == ["Step", "Saving", "Evaluation", "Saving"]


def test_the_best_is_the_highest_figure_so_far() -> None:
    figures = iter([0.25, 0.5, 0.5, 0.125, math.nan, 0.75])
    run, events = toy_run(epochs=6), Events()
    train(run, lambda model: [Result(next(figures)), Result(9.0)], [events])
    assert [e.is_best for e in events.of(Evaluation)] == [True, True, False, False, False, True]
    before, after = events.of(Saving)[::2], events.of(Saving)[1::2]
    assert [e.is_best for e in after] == [True, True, False, False, False, True]
    assert not any(e.is_best for e in before)
    assert before[-1].checkpoint["best"] == after[-2].checkpoint["best"] == 0.5
    assert run.best == 0.75
    assert events.of(Saving)[-1].checkpoint["metrics"][0] == {
        "protocol": "by hand",
        "main": "figure",
        "values": {"figure": 0.75},
    }


def test_an_undefined_figure_is_never_best() -> None:
    figures = iter([math.nan, 0.25])
    run, events = toy_run(), Events()
    train(run, lambda model: [Result(next(figures))], [events])
    assert [e.is_best for e in events.of(Evaluation)] == [False, True]


def test_without_validation_data_nothing_is_best(tmp_path: Path) -> None:
    run, events = toy_run(track_best=False), Events()
    train(run, lambda model: [Result(0.5)], [events, CheckpointKeeper(tmp_path)])
    assert not any(e.is_best for e in events.of(Evaluation) + events.of(Saving))
    assert run.best is None
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_the_model_is_measured_in_eval_mode_and_trained_in_training_mode() -> None:
    modes: list[bool] = []
    run = toy_run()
    losses = run.task.losses
    run.task.losses = lambda model, batch: modes.append(model.training) or losses(model, batch)  # type: ignore
    train(run, lambda model: modes.append(model.training) or [], [])  # type: ignore[func-returns-value]
    assert modes == [True] * 4 + [False] + [True] * 4 + [False]


def test_the_average_is_measured_where_there_is_one_and_nothing_is_made_where_not() -> None:
    measured: list[nn.Module] = []
    run, events = toy_run(ema={"decay": 0.5, "warm_up": 0}, iterations=2), Events()
    weights = [run.task.model.weight.detach().clone()]
    record = lambda event: weights.append(run.task.model.weight.detach().clone()) if isinstance(event, Step) else None  # noqa: E731
    train(run, lambda model: measured.append(model) or [Result(0.1)], [record, events])  # type: ignore[func-returns-value]
    assert run.ema is not None
    assert measured == [run.ema.module]
    expected = 0.5 * (0.5 * weights[0] + 0.5 * weights[1]) + 0.5 * weights[2]
    torch.testing.assert_close(run.ema.module.weight.detach(), expected)
    assert not run.ema.module.weight.requires_grad
    saved = events.of(Saving)[-1].checkpoint
    torch.testing.assert_close(saved["ema"]["module"]["weight"], expected)

    measured.clear()
    without, events = toy_run(iterations=2), Events()
    train(without, lambda model: measured.append(model) or [], [events])  # type: ignore[func-returns-value]
    assert measured == [without.task.model]
    assert events.of(Saving)[-1].checkpoint["ema"] is None
    torch.testing.assert_close(without.task.model.weight.detach(), weights[2], rtol=0, atol=0)


# What goes wrong


def test_a_loss_that_is_no_number_names_the_files_and_changes_no_weight() -> None:
    run, events = toy_run(ToyTask(scale=lambda step: math.nan if step == 3 else 1.0), iterations=5), Events()
    after: list[Tensor] = []
    record = lambda event: after.append(run.task.model.weight.detach().clone())  # noqa: E731
    with pytest.raises(UserError) as caught:
        train(run, no_evaluation, [events, record])
    message = str(caught.value)
    assert "iteration 2: loss_square=nan" in message
    assert "folder/image4.jpg (seed 1004), folder/image5.jpg (seed 1005)" in message
    assert "image3" not in message
    assert "lr" in message
    assert torch.equal(run.task.model.weight.detach(), after[-1])
    assert len(events.of(Step)) == 2
    assert run.iteration == 2


def test_an_infinite_loss_in_a_later_micro_batch_changes_no_weight() -> None:
    run = toy_run(ToyTask(scale=lambda step: math.inf if step == 2 else 1.0), iterations=1, accumulate=2)
    before = run.task.model.weight.detach().clone()
    with pytest.raises(UserError, match=r"loss_square=inf.*image2.*image3"):
        train(run, no_evaluation, [])
    assert torch.equal(run.task.model.weight.detach(), before)


def test_an_infinite_gradient_under_clipping_names_the_files_and_changes_no_weight() -> None:
    run = toy_run(iterations=3, clip_norm=1.0)
    before = run.task.model.weight.detach().clone()
    run.task.model.weight.register_hook(lambda gradient: gradient * math.inf)  # the loss itself stays finite
    with pytest.raises(UserError, match=r"iteration 0: a gradient is infinite.*image0.*image1.*lr"):
        train(run, no_evaluation, [])
    assert torch.equal(run.task.model.weight.detach(), before)
    assert run.iteration == 0


def test_an_evaluation_that_fails_costs_no_training() -> None:
    def failing(model: nn.Module) -> list[Any]:
        raise UserError("a broken test image")

    run, events = toy_run(evaluate_every=0, checkpoint_every=0), Events()
    with pytest.raises(UserError, match="broken test image"):
        train(run, failing, [events])
    assert [saving.checkpoint["iteration"] for saving in events.of(Saving)] == [8]
    assert not events.of(Saving)[0].is_best


@pytest.mark.parametrize("ema", [None, {"decay": 0.5}])
def test_buffers_are_shared_before_each_evaluation(monkeypatch: pytest.MonkeyPatch, ema: dict[str, Any] | None) -> None:
    order: list[tuple[str, nn.Module]] = []
    monkeypatch.setattr(World, "share_buffers", lambda world, module: order.append(("share", module)))
    run = toy_run(ema=ema)

    def evaluate(model: nn.Module) -> list[Any]:
        order.append(("evaluate", model))
        return [Result(0.5)]

    assert train(run, evaluate, [])
    measured = run.task.model if run.ema is None else run.ema.module
    assert order == [("share", measured), ("evaluate", measured)] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_step_at_hand_and_stops(number: int) -> None:
    before = signal.getsignal(number)
    run, events = toy_run(), Events()
    assert not train(run, lambda model: [Result(0.5)], [interrupt_after(3, number), events])
    assert [s.iteration for s in events.of(Step)] == [1, 2, 3]
    assert [s.checkpoint["iteration"] for s in events.of(Saving)] == [3]
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once() -> None:
    run, before = toy_run(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(run, no_evaluation, [interrupt_after(1), interrupt_after(1)])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_stopped_after_its_last_step_is_measured_when_it_goes_on() -> None:
    run, events = toy_run(), Events()
    assert not train(run, lambda model: [Result(0.5)], [interrupt_after(8), events])
    assert [e.iteration for e in events.of(Evaluation)] == [4]
    again, more = toy_run(), Events()
    again.restore(events.of(Saving)[-1].checkpoint)
    assert train(again, lambda model: [Result(0.75)], [more])
    assert [e.iteration for e in more.of(Evaluation)] == [8]
    assert not more.of(Step)
    assert again.best == 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, r"seed 7 .* this run 0"),
        ({"world_size": 4}, r"4 processes"),
        ({"ema": {}}, r"training\.ema was switched"),
        ({"model": {"other": torch.zeros(1)}}, r"another model"),
        ({"scaler": {"mode": "bfloat16", "scaler": {}}}, r"bfloat16"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change: dict[str, Any], message: str) -> None:
    state = {**toy_run().state(), **change}
    with pytest.raises(UserError, match=message):
        toy_run().restore(state)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, ["give either epochs"]),
        ({"epochs": 1, "iterations": 1}, ["give either epochs"]),
        ({"epochs": -1}, ["epochs=-1 must be a number, above 0"]),
        ({"iterations": 2.5}, ["iterations=2.5 must be a whole number, above 0"]),
        ({"epochs": "2x"}, ["epochs='2x'"]),
        ({"epochs": 1, "accumulate": 0, "seed": -1}, ["accumulate=0", "seed=-1 must be a whole number, 0 or more"]),
        ({"epochs": 1, "log_every": 0, "clip_norm": True}, ["log_every=0", "clip_norm=True"]),
        ({"epochs": 1, "ema": True}, ["ema=True must be None or a dict"]),
        ({"epochs": math.nan}, ["epochs=nan"]),
    ],
)
def test_settings_that_make_no_sense_are_named_together(settings: dict[str, Any], found: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        TrainingSettings(**settings)
    assert all(text in str(caught.value) for text in found)


def test_the_length_of_a_run() -> None:
    assert TrainingSettings(epochs=1.5).total(per_epoch=5) == 8
    assert TrainingSettings(epochs=0.01).total(per_epoch=5) == 1
    assert TrainingSettings(iterations=7).total(per_epoch=5) == 7


# A real detector: nothing but the seed decides


def detector_run(config: dict[str, Any], **training: Any) -> Run:
    config = copy.deepcopy(config)
    config["training"].update(training)
    return build_run(config, ALONE)[0]


def trained(run: Run) -> dict[str, Tensor]:
    assert train(run, no_evaluation, [])
    return {name: tensor.clone() for name, tensor in run.task.model.state_dict().items()}


def assert_same_bits(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal nested states, tensors bit for bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same_bits(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), where
        for number, pair in enumerate(zip(ours, theirs)):
            assert_same_bits(*pair, f"{where}[{number}]")
    else:
        assert ours == theirs, where


def test_a_run_does_not_depend_on_workers_or_the_time_but_on_the_seed(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.loading.number_of_workers", lambda asked: asked)  # however many cores there are
    settings = {"epochs": None, "iterations": 20, "evaluate_every": 0}
    alone = trained(detector_run(tiny_config, **settings))
    torch.manual_seed(5)  # what was drawn before is of no consequence
    assert_same_bits(trained(detector_run(tiny_config, **settings)), alone)
    tiny_config["loader"]["workers"] = 2
    assert_same_bits(trained(detector_run(tiny_config, **settings)), alone)
    tiny_config["loader"]["workers"] = 0
    other = trained(detector_run(tiny_config, **settings, seed=1))
    assert other.keys() == alone.keys()
    assert not torch.equal(other["predictor.logits.weight"], alone["predictor.logits.weight"])


def rows_without_times(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "loader_seconds")} for row in rows]


@pytest.mark.parametrize("stop", [3, 4], ids=["within an epoch", "at an evaluation"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(
    tiny_config: dict[str, Any], tmp_path: Path, stop: int
) -> None:
    tiny_config["data"]["val"] = {**tiny_config["data"]["test"], "splits": "val"}
    tiny_config["training"].update(epochs=None, iterations=9, ema={"decay": 0.9, "warm_up": 3})

    def start(folder: Path, *hooks: Callable[[Event], None]) -> tuple[Run, bool]:
        run, evaluator, _ = build_run(copy.deepcopy(tiny_config), ALONE)
        folder.mkdir(exist_ok=True)
        if (folder / "last.pth").exists():
            run.restore(load_checkpoint(folder / "last.pth"))
        keep = [MetricsFile(folder / "metrics.jsonl", run.iteration), CheckpointKeeper(folder)]
        return run, train(run, evaluator, [*keep, *hooks])

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, finished = start(whole)
    assert finished
    _, finished = start(parts, interrupt_after(stop))
    assert not finished
    with open(parts / "metrics.jsonl", "a", encoding="utf-8") as file:  # steps of a killed run, after its checkpoint
        file.write('{"iteration": 5, "total": 1.0}\n{"iteration": 6, "tot')
    _, finished = start(parts)
    assert finished
    assert_same_bits(load_checkpoint(parts / "last.pth"), load_checkpoint(whole / "last.pth"))
    assert_same_bits(load_checkpoint(parts / "best.pth"), load_checkpoint(whole / "best.pth"))
    rows = rows_without_times(whole / "metrics.jsonl")
    assert rows_without_times(parts / "metrics.jsonl") == rows
    assert [row["iteration"] for row in rows if "evaluation" in row] == [4, 8, 9]
    assert [row["iteration"] for row in rows if "total" in row] == [*range(1, 10)]


def test_a_detectors_micro_batches_are_one_step_with_the_mean_gradient(tiny_config: dict[str, Any]) -> None:
    tiny_config["model"]["backbone"]["norm"] = "frozen"  # batch statistics would see other batches
    tiny_config["loader"]["batch_size"] = 4
    tiny_config["optimizer"].update(momentum=0.0, nesterov=False, weight_decay=0.0, lr=0.1, base_batch=None)
    tiny_config["schedule"] = {"type": "transfer.optim.schedules.Constant"}
    run = detector_run(tiny_config, epochs=None, iterations=1, accumulate=2, clip_norm=None)
    before = {n: p.detach().clone() for n, p in run.task.model.named_parameters() if p.requires_grad}
    summed = {name: torch.zeros_like(p) for name, p in before.items()}
    micro_batches = list(run.batches(0))
    assert [len(b.targets) for b in micro_batches] == [2, 2]
    run.task.model.train()
    for each in micro_batches:
        loss = sum(run.task.losses(run.task.model, each).values())
        parameters = [p for p in run.task.model.parameters() if p.requires_grad]
        for name, part in zip(before, torch.autograd.grad(loss, parameters)):  # type: ignore[arg-type]
            summed[name] += part
    train(run, no_evaluation, [])
    moved = 0.0
    for name, parameter in run.task.model.named_parameters():
        if name in before:
            torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * summed[name] / 2, rtol=1e-4, atol=1e-6)
            moved += float((parameter.detach() - before[name]).abs().sum())
    assert moved > 0


def test_what_is_frozen_stays_and_nothing_but_training_keeps_gradients(tiny_config: dict[str, Any]) -> None:
    tiny_config["model"]["backbone"].update(frozen_stages=2, norm="batch")
    tiny_config["training"].update(epochs=None, iterations=3, ema={"decay": 0.5})
    run, evaluator, _ = build_run(tiny_config, ALONE)
    model = run.task.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(run, evaluator, [])
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    trained_ones = [name for name, p in model.named_parameters() if p.requires_grad]
    assert frozen
    assert all(name.startswith("backbone.") for name in frozen)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert sum(not torch.equal(after[name], before[name]) for name in trained_ones) > 0.8 * len(trained_ones)
    assert all(p.grad is None for p in model.parameters())
    assert run.ema is not None
    assert not any(p.requires_grad for p in run.ema.module.parameters())
    assert not any(p.boxes.requires_grad or p.scores.requires_grad for p in evaluator.predictions)


def test_a_broken_loss_of_a_detector_leaves_it_as_it_was(tiny_config: dict[str, Any]) -> None:
    tiny_config["model"]["backbone"]["norm"] = "frozen"
    run = detector_run(tiny_config)
    state = copy.deepcopy(run.task.model.state_dict())
    criterion = run.task.criterion
    run.task.criterion = lambda output, targets: {  # type: ignore[method-assign]
        **criterion(output, targets),
        "loss_box": output.box_deltas.sum() * math.nan,
    }
    with pytest.raises(UserError, match=r"loss_box=nan.*\.jpg \(seed \d+\).*\.jpg \(seed \d+\)"):
        train(run, no_evaluation, [])
    assert_same_bits(run.task.model.state_dict(), state)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    finished: list[Ending] = []
    thread = Thread(target=lambda: finished.append(train(toy_run(), no_evaluation, [])))
    thread.start()
    thread.join()
    assert finished == [Ending.FINISHED]


@pytest.mark.parametrize("stop", ["error", "interrupt", "end", "broken test image"])
def test_no_worker_outlives_the_run(
    tiny_config: dict[str, Any], devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    monkeypatch.setattr("transfer.loading.number_of_workers", lambda asked: asked)
    shutil.copytree(devkit, tmp_path / "copy")
    broken = {"error": range(8), "broken test image": [12, 15]}.get(stop, [])
    for index in broken:
        (tmp_path / "copy" / "VOC2007" / "JPEGImages" / f"{index:06d}.jpg").write_bytes(b"\xff\xd8\xff no JPEG")
    for node in (tiny_config["data"]["train"], tiny_config["data"]["test"]):
        node["root"] = str(tmp_path / "copy")
    tiny_config["loader"]["workers"] = 1
    others = set(multiprocessing.active_children())
    run, evaluator, _ = build_run(tiny_config, ALONE)

    def children() -> set[Any]:
        return set(multiprocessing.active_children()) - others

    evaluate = evaluator if stop == "broken test image" else no_evaluation
    if broken:
        with pytest.raises(UserError, match=r"\.jpg: is no image in a known format") as caught:
            train(run, evaluate, [])
        assert "Traceback" not in str(caught.value)
    else:
        ending = train(run, evaluate, [interrupt_after(3)] if stop == "interrupt" else [])
        assert ending is (Ending.FINISHED if stop == "end" else Ending.INTERRUPTED)
    assert not children()


# Time limits


def test_beyond_its_deadline_a_run_saves_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("transfer.engine.train.time.monotonic", lambda: now[0])

    def tick(event: Event) -> None:
        now[0] += isinstance(event, Step)

    unbroken, run, events = toy_run(), toy_run(), Events()
    assert train(unbroken, no_evaluation, []) is Ending.FINISHED
    run.deadline = 2.5
    assert train(run, no_evaluation, [tick, events]) is Ending.OUT_OF_TIME
    assert [s.iteration for s in events.of(Step)] == [1, 2, 3]
    assert [s.checkpoint["iteration"] for s in events.of(Saving)] == [3]
    again = toy_run()
    again.restore(events.of(Saving)[-1].checkpoint)
    assert train(again, no_evaluation, []) is Ending.FINISHED
    assert_same_bits(again.task.model.state_dict(), unbroken.task.model.state_dict())


def test_an_evaluation_that_would_end_too_late_is_left_to_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("transfer.engine.train.time.monotonic", lambda: now[0])

    def evaluate(model: nn.Module) -> Sequence[Result]:
        now[0] += 10
        return [Result(0.5)]

    run, events = toy_run(), Events()
    run.deadline = 15.0  # time for one evaluation, not for two
    assert train(run, evaluate, [events]) is Ending.OUT_OF_TIME
    assert [e.iteration for e in events.of(Evaluation)] == [4]
    assert run.iteration == run.total == 8
    again, more = toy_run(), Events()
    again.restore(events.of(Saving)[-1].checkpoint)
    again.deadline = now[0] + 1  # too little, but the evaluation comes first: each start brings the run on
    assert train(again, evaluate, [more]) is Ending.OUT_OF_TIME  # no time for what comes after
    assert [e.iteration for e in more.of(Evaluation)] == [8]
    last, none = toy_run(), Events()
    last.restore(more.of(Saving)[-1].checkpoint)
    assert train(last, evaluate, [none]) is Ending.FINISHED
    assert not none.all
