"""The processes of a run: one, or as many as torchrun starts (one a GPU; gloo where there is no GPU)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

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

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        count = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(count)
        return bool(count.item() > 0)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r} is not a device: give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r}: training and tests are made for cpu and cuda; give one of them")
    if device.type == "cuda" and device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"--device {name!r}: all of torchrun's processes would share one GPU; give cuda")
    if device.type == "cuda":
        index = device.index if device.index is not None else local_rank
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise UserError(f"--device {name!r}: {torch.cuda.device_count()} CUDA devices are usable here; give cpu")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


@contextmanager
def world(device_name: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, or be alone; leaves them at the end.

    Args:
        device_name: see `choose_device`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, choose_device(device_name))
        return
    if "RANK" not in os.environ:
        raise UserError(f"WORLD_SIZE={size} is set but RANK is not: start several processes with torchrun")
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(device_name, local_rank)
    # A prefix of its own for each restart by torchrun: under torch 2.14 the addresses of the processes that died are
    # found in the store otherwise, and gloo waits for them.
    store, _, _ = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()
