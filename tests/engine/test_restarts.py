"""Which run a restarted process goes on with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transfer.engine.distributed import World
from transfer.engine.restarts import AGENT_FILE, agents_of, own_agent, own_checkpoint, sign

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none"}


def run_of(root: Path, name: str, agents: list[str], *, saved: bool = True) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    sign(folder, agents)
    if saved:
        (folder / "last.pth").touch()
    return folder / "last.pth"


def test_a_run_is_found_by_any_of_its_agents(tmp_path: Path) -> None:
    mine = run_of(tmp_path, "002", ["node1 7", "node2 7"])
    run_of(tmp_path, "003", ["node3 7"])
    for agents in (["node1 7"], ["node2 7"], ["node2 7", "node4 9"]):  # process 0 has moved; a node was replaced
        assert own_checkpoint(tmp_path, agents) == mine
    assert own_checkpoint(tmp_path, ["node1 77"]) is None
    assert own_checkpoint(tmp_path, []) is None
    assert own_checkpoint(tmp_path / "nothing", ["node1 7"]) is None


def test_the_newest_run_with_a_checkpoint_counts(tmp_path: Path) -> None:
    for name in ("002", "999"):
        run_of(tmp_path, name, ["a 1"])
    newest = run_of(tmp_path, "1000", ["a 1"])
    run_of(tmp_path, "1001", ["a 1"], saved=False)
    assert own_checkpoint(tmp_path, ["a 1"]) == newest


def test_a_run_changes_hands(tmp_path: Path) -> None:
    path = run_of(tmp_path, "001", ["a 1"])
    sign(path.parent, ["b 2"])  # another job goes on with it
    assert own_checkpoint(tmp_path, ["a 1"]) is None
    assert own_checkpoint(tmp_path, ["b 2"]) == path
    sign(path.parent, [])  # then somebody without torchrun
    assert not (path.parent / AGENT_FILE).exists()


def test_without_torchrun_there_is_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert own_agent() is None
    assert agents_of(World(0, 1, torch.device("cpu"))) == []


def test_the_workers_of_an_agent_agree_before_and_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    first = own_agent({**TORCHRUN, "RANK": "0", "TORCHELASTIC_RESTART_COUNT": "0"})
    assert first == own_agent({**TORCHRUN, "RANK": "3", "TORCHELASTIC_RESTART_COUNT": "2"})
    assert first != own_agent({"TORCHELASTIC_RUN_ID": "another"})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert agents_of(World(0, 1, torch.device("cpu"))) == [first]
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert first != own_agent(TORCHRUN)


@pytest.mark.skipif(sys.platform != "linux", reason="the time at which a process began is read from /proc")
def test_the_same_number_again_is_another_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Field 22 of /proc/PID/stat, after a name that may hold blanks and brackets; a container's 7 comes every time."""
    own = own_agent(TORCHRUN, os.getpid())
    with subprocess.Popen(["sleep", "60"]) as later:
        try:
            other = own_agent(TORCHRUN, later.pid)
        finally:
            later.kill()
    assert own is not None
    assert other is not None
    began, later_began = int(own.split()[2]), int(other.split()[2])
    assert began < later_began
    uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    assert 0 <= uptime - later_began / os.sysconf("SC_CLK_TCK") < 600
    stat = "7 (a ) b) S 1 " + " ".join(map(str, range(5, 60)))
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: stat if self.name == "stat" else "boot\n")
    assert own_agent(TORCHRUN, 7) == " ".join([own.split()[0], "7", "22", "boot", "none"])
