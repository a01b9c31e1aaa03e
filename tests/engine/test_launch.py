"""Which process this one is, by the environment alone."""

from __future__ import annotations

import pytest
import torch

from transfer.engine.distributed import choose_device
from transfer.engine.launch import Place, expand_hosts, launched_place
from transfer.types import UserError

TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_NODELIST": "gpu[03-08]",
}  # fmt: skip


def test_nobody_started_it() -> None:
    assert launched_place({}) == Place() == Place(0, 1, 0)
    assert launched_place({"WORLD_SIZE": "1"}) == Place()


def test_torchrun_goes_before_slurm() -> None:
    assert launched_place(TORCHRUN) == Place(3, 4, 1, "node1", 29500)
    assert launched_place({**SRUN, **TORCHRUN}) == Place(3, 4, 1, "node1", 29500)  # srun torchrun ...
    assert launched_place({**SRUN, "WORLD_SIZE": "1"}) == Place()  # several runs at a time, on purpose


def test_a_task_of_srun() -> None:
    """The step's own tasks and nodes, not the job's; the first node is where the processes meet."""
    place = launched_place(SRUN)
    assert place == Place(3, 4, 1, "gpu07", place.port, by_slurm=True)
    assert launched_place({**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).port == place.port
    ports = {
        launched_place({**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port
        for job in range(123456, 123476)
        for step in range(5)
    }
    assert len(ports) == 100  # jobs and steps that run at once do not meet each other
    assert 1024 < min(ports) <= max(ports) < 32768
    named = launched_place({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "7000"})
    assert (named.address, named.port) == ("10.0.0.1", 7000)
    old = {key: value for key, value in SRUN.items() if not key.startswith("SLURM_STEP_N")}
    assert launched_place(old) == Place(3, 8, 1, "gpu03", place.port, by_slurm=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_STEP_ID": None},  # in a batch script
        {"SLURM_STEP_ID": "4294967291"},  # in a batch script, of a Slurm that numbers it
        {"SLURM_STEP_ID": "4294967290"},  # in an interactive shell
        {"SLURM_PROCID": None},
        {"SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_one_process_within_a_job(changes: dict[str, str | None]) -> None:
    given = {**SRUN, "SLURM_PROCID": "0", **changes}
    assert launched_place({key: value for key, value in given.items() if value is not None}) == Place()


def test_what_makes_no_sense_is_refused_all_at_once() -> None:
    with pytest.raises(UserError, match=r"RANK is not set; LOCAL_RANK='x' .*; MASTER_PORT is not set; MASTER_ADDR"):
        launched_place({"WORLD_SIZE": "2", "LOCAL_RANK": "x"})
    with pytest.raises(UserError, match="WORLD_SIZE='two' is no whole number"):
        launched_place({**TORCHRUN, "WORLD_SIZE": "two"})
    with pytest.raises(UserError, match="RANK=4 is not below WORLD_SIZE=4"):
        launched_place({**TORCHRUN, "RANK": "4"})
    with pytest.raises(UserError, match=r"SLURM_STEP_NODELIST='gpu\[07' cannot be read: set MASTER_ADDR"):
        launched_place({**SRUN, "SLURM_STEP_NODELIST": "gpu[07"})
    with pytest.raises(UserError, match="SLURM_PROCID=9 is not below SLURM_STEP_NUM_TASKS=4"):
        launched_place({**SRUN, "SLURM_PROCID": "9"})


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("localhost", ["localhost"]),
        ("a,b-1,10.0.0.2", ["a", "b-1", "10.0.0.2"]),
        ("node[003-005,009],gpu1", ["node003", "node004", "node005", "node009", "gpu1"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[1,3]-ib,m[2]", ["n1-ib", "n3-ib", "m2"]),
        ("r[0-1]n[1-2]", ["r0n1", "r0n2", "r1n1", "r1n2"]),
    ],
)
def test_lists_of_hosts(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize("text", ["", "n[1", "n1]", "n[]", "n[a-b]", "n[1-]", "n[3-1]", "a,,b", ","])
def test_what_is_no_list_of_hosts(text: str) -> None:
    with pytest.raises(ValueError):
        expand_hosts(text)


def test_the_gpu_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may show every task its own GPUs alone; torchrun shows all of them all."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def index(usable: int, place: Place) -> int | None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: usable)
        return choose_device("cuda", place).index

    by_srun, by_torchrun = Place(3, 4, 3, "a", 1, by_slurm=True), Place(3, 4, 3, "a", 1)
    assert [index(usable, by_srun) for usable in (4, 1, 2)] == [3, 0, 1]
    assert index(4, by_torchrun) == 3
    with pytest.raises(UserError, match="2 CUDA devices are usable"):
        index(2, by_torchrun)
    with pytest.raises(UserError, match="all 4 processes would share one GPU"):
        choose_device("cuda:0", by_torchrun)
    assert [device.index for device in chosen] == [3, 0, 1, 3]
