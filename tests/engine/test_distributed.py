"""Two processes train as one does at the same global batch."""

from __future__ import annotations

import copy
import multiprocessing
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_task import ALONE, toy_run

from transfer import training
from transfer.assemble import build_run
from transfer.engine.distributed import World, agree_on_attempt, choose_device, world
from transfer.engine.train import Event, Step, train
from transfer.types import UserError


def one_process(config: dict[str, Any], here: World) -> dict[str, Any]:
    """Three steps and an evaluation."""
    run, evaluator, _ = build_run(copy.deepcopy(config), here)
    losses: list[dict[str, float]] = []
    images: list[int] = []

    def hook(event: Event) -> None:
        assert isinstance(event, Step) or here.is_main, "only process 0 is told of evaluations and checkpoints"
        if isinstance(event, Step):
            losses.append(event.losses)
            images.append(event.images)

    seen: list[int] = []
    finished = train(run, lambda model: evaluator(model, seen.append), [hook])
    return {
        "finished": bool(finished),
        "losses": losses,
        "images": images,
        "model": run.task.model.state_dict(),
        "measured": sum(seen),
        "predicted": len(evaluator.predictions),
        "figures": [result.values for result in evaluator.results],
    }


def _worker(rank: int, ports: tuple[int, int], config: dict[str, Any], folder: Path) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(ports[0])
    torch.set_num_threads(1)
    with world("cpu") as here:
        assert (here.rank, here.size, here.is_main) == (rank, 2, rank == 0)
        state = one_process(config, here)
        state["any"] = [here.any(rank == 1), here.any(False)]
        state["gathered"] = here.gather(f"from {rank}")
        state["told"] = here.broadcast(f"by {rank}")
    torch.save(state, folder / f"rank{rank}.pt")
    os.environ["MASTER_PORT"] = str(ports[1])
    training.run(config, name="two", work_dir=folder / f"runs{rank}", device="cpu")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="starts its processes by fork, which spares them the imports")
def test_two_processes_train_as_one(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    tiny_config["model"]["backbone"]["norm"] = "frozen"  # batch statistics would see half a batch each
    tiny_config["loader"]["batch_size"] = 4
    tiny_config["training"].update(epochs=None, iterations=3, evaluate_every=0)
    alone = one_process(tiny_config, ALONE)
    context, ports = multiprocessing.get_context("fork"), (_free_port(), _free_port())
    workers = [context.Process(target=_worker, args=(rank, ports, tiny_config, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert [worker.exitcode for worker in workers] == [0, 0]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]

    for first, second, single in zip(ranks[0]["losses"], ranks[1]["losses"], alone["losses"]):
        assert {name: (first[name] + second[name]) / 2 for name in single} == pytest.approx(single, abs=1e-5)
    assert len(alone["losses"]) == 3
    assert ranks[0]["images"] == ranks[1]["images"] == alone["images"] == [4, 4, 4]
    for name, tensor in alone["model"].items():
        assert torch.equal(ranks[0]["model"][name], ranks[1]["model"][name]), name
        torch.testing.assert_close(ranks[0]["model"][name], tensor, rtol=1e-3, atol=1e-5)
    assert ranks[0]["measured"] + ranks[1]["measured"] == 5
    assert min(ranks[0]["measured"], ranks[1]["measured"]) > 0
    assert (ranks[0]["predicted"], ranks[1]["predicted"]) == (5, 0)
    assert ranks[0]["figures"] == ranks[1]["figures"]
    assert ranks[0]["figures"][0] == pytest.approx(alone["figures"][0], abs=1e-4)
    assert ranks[0]["any"] == ranks[1]["any"] == [True, False]
    assert [rank["gathered"] for rank in ranks] == [["from 0", "from 1"], []]
    assert [rank["told"] for rank in ranks] == ["by 0", "by 0"]

    assert (tmp_path / "runs0" / "two" / "001" / "results.json").is_file()
    assert not (tmp_path / "runs1").exists()  # process 1 writes nothing


def test_alone_nothing_is_exchanged() -> None:
    assert (ALONE.gather(3), ALONE.broadcast(3), ALONE.any(True), ALONE.any(False)) == ([3], 3, True, False)


def test_another_number_of_processes_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run()
    run.world = World(0, 2, torch.device("cpu"))
    with pytest.raises(UserError, match=r"1 processes, this run 0 and 2"):
        run.restore(toy_run().state())


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with world("cpu") as here:
        assert here == ALONE


def test_devices_that_are_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="made for cpu and cuda"):
        choose_device("meta")


def test_an_attempt_is_agreed_on_whatever_earlier_ones_left_in_the_store() -> None:
    """Processes come one after another, and find the words of those that died."""
    store, names = torch.distributed.HashStore(), []

    def come(rank: int) -> str:
        time.sleep(0.03 * rank)
        return agree_on_attempt(store, rank, 3)

    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(come, range(3)))
        assert len(set(found)) == 1
        names.append(found[0])
        store.set("came/2", "died before the others came")
    assert len(set(names)) == 3


def test_a_process_that_does_not_come_is_not_awaited_for_ever() -> None:
    for rank in (0, 1):
        store = torch.distributed.HashStore()
        store.set_timeout(timedelta(seconds=0.05))
        with pytest.raises(torch.distributed.DistStoreError):
            agree_on_attempt(store, rank, 2)
        if rank:
            store.set("attempt", "of those who died")
            with pytest.raises(torch.distributed.DistStoreError, match="no agreement"):
                agree_on_attempt(store, rank, 2, timedelta(seconds=0.05))


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        given = {
            "WORLD_SIZE": "2",
            "RANK": "0",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        message = rf"process 0 of 2 did not meet the others at 127\.0\.0\.1:{port}: .*taken"
        with pytest.raises(UserError, match=message), world("cpu"):
            pass


def test_every_buffer_comes_from_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda buffer, src: sent.append((id(buffer), src)))
    norm = torch.nn.BatchNorm2d(3)
    World(0, 1, torch.device("cpu")).share_buffers(norm)
    assert not sent
    World(1, 2, torch.device("cpu")).share_buffers(norm)
    assert sent == [(id(buffer), 0) for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked)]
