"""The processes of a run: one, or as many as torchrun or srun starts (one a GPU; gloo where there is no GPU)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from transfer.engine.launch import Place, launched_place
from transfer.types import UserError


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value in order of rank, on rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        gathered: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, gathered, dst=0)
        return gathered or []

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, everywhere."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Rank 0's buffers, everywhere: running statistics differ between processes after a training step."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def check_same(self, what: str, value: str) -> None:
        """Make sure that all processes were given the same; called on all of them.

        Raises:
            UserError: on every process, where one of them has another value than process 0.
        """
        values = self.gather(value)
        others = self.broadcast([rank for rank, other in enumerate(values) if other != values[0]])
        if others:
            raise UserError(
                f"{what} of process 0 differs from that of {', '.join(map(str, others))}: all processes of a run need "
                "the same files and the same command; for several runs at a time set WORLD_SIZE=1"
            )

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        count = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(count)
        return bool(count.item() > 0)


def choose_device(name: str, place: Place | None = None) -> torch.device:
    """The device of a name: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".

    Args:
        name: as above.
        place: of this process among those that run together, each on a GPU of its own; None: it is alone.
    Raises:
        UserError: no such device here.
    """
    place = Place() if place is None else place
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r} is not a device: give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r}: training and tests are made for cpu and cuda; give one of them")
    if device.type == "cuda" and device.index is not None and place.size > 1:
        raise UserError(f"--device {name!r}: all {place.size} processes would share one GPU; give cuda")
    if device.type == "cuda":
        usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index if device.index is not None else place.local_rank
        if place.by_slurm and usable:
            index %= usable  # Slurm may show each task its own GPUs alone, counted from 0
        if index >= usable:
            raise UserError(f"--device {name!r}: {usable} CUDA devices are usable here; give cpu")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


@contextmanager
def world(device_name: str = "auto") -> Iterator[World]:
    """Join the processes that were started together, or be alone; leaves them at the end.

    Args:
        device_name: see `choose_device`.
    """
    place = launched_place()
    device = choose_device(device_name, place)
    if place.size == 1:
        yield World(0, 1, device)
        return
    _join(place, "nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(place.rank, place.size, device)
    finally:
        dist.destroy_process_group()


def _join(place: Place, backend: str) -> None:
    """Raises: UserError where the processes do not find each other."""
    meet = f"{place.address}:{place.port}"
    try:
        store, _, _ = next(dist.rendezvous(f"tcp://{meet}" if place.by_slurm else "env://", place.rank, place.size))
        # A prefix of its own for each attempt: torchrun's store outlives its workers (torch 2.14), and gloo would wait
        # for processes whose addresses it finds there though they are dead.
        attempt = agree_on_attempt(dist.PrefixStore("attempts", store), place.rank, place.size)
        dist.init_process_group(backend, store=dist.PrefixStore(attempt, store), rank=place.rank, world_size=place.size)
    except dist.DistError as error:
        raise UserError(
            f"process {place.rank} of {place.size} did not meet the others at {meet}: {error}. Were all started, with "
            "the same address? Is the port taken by another run (give another), or closed by a firewall?"
        ) from error


def agree_on_attempt(store: dist.Store, rank: int, size: int, timeout: timedelta = timedelta(minutes=30)) -> str:
    """A name that all processes of this attempt have, and none of an earlier one had.

    TORCHELASTIC_RESTART_COUNT would not do: each node counts the failures of its own workers alone. Each process says
    a random word; process 0 repeats all it heard beside its own, until every other one has found itself in that.

    Args:
        store: of this attempt and possibly of earlier ones.
        rank: of this process.
        size: number of processes.
        timeout: how long the others are awaited; the store has one of its own for a word that was never said.
    Raises:
        torch.distributed.DistError: a process does not come within the time.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank:
        store.set(f"came/{rank}", own)
    while time.monotonic() < deadline:
        if rank:
            attempt, *met = store.get("attempt").decode().split()
            if own in met:
                store.set(f"agreed/{rank}", attempt)
                return attempt
        else:
            came = [store.get(f"came/{other}").decode() for other in range(1, size)]
            store.set("attempt", " ".join([own, *came]))
            answers = [f"agreed/{other}" for other in range(1, size)]
            if store.check(answers) and all(store.get(answer).decode() == own for answer in answers):
                return own
        time.sleep(0.01)
    raise dist.DistStoreError(f"no agreement within {timeout}")
