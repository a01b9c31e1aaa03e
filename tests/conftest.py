"""Shared fixtures. One thread and no network: the same figures on any machine."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]


def _shared(name: str) -> Path:
    """The folder `name` of the development data: $TRICKSTACK_DATA, or ../shared beside the checkout."""
    root = Path(os.environ.get("TRICKSTACK_DATA", REPOSITORY.parent / "shared"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"needs the development data: no folder {name!r} in $TRICKSTACK_DATA or ../shared")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs (bccd, fruit, voc_mini, ...)."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Folder of real ImageNet weights."""
    return _shared("weights")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with VOC2007/ in it: 17 small drawn images, splits train, val, trainval and test. Not to be changed."""
    from tiny_devkit import write_devkit

    return write_devkit(tmp_path_factory.mktemp("devkit"))


@pytest.fixture(scope="session")
def tiny_config_file(tmp_path_factory: pytest.TempPathFactory, devkit: Path) -> Path:
    """The config file of a tiny detector on `devkit`."""
    from tiny_devkit import write_config

    return write_config(tmp_path_factory.mktemp("configs") / "tiny.py", devkit)


@pytest.fixture(scope="session")
def _loaded_tiny_config(tiny_config_file: Path) -> dict[str, Any]:
    from transfer.build import load_config

    return load_config(tiny_config_file)


@pytest.fixture
def tiny_config(_loaded_tiny_config: dict[str, Any]) -> dict[str, Any]:
    """The config of a tiny detector on `devkit`, as `load_config` gives it; each test has its own copy."""
    return copy.deepcopy(_loaded_tiny_config)


@pytest.fixture
def _loggers_as_before() -> Iterator[None]:
    """The tools set up logging for a process of their own: undo it."""
    loggers = [logging.getLogger(name) for name in (None, "trickstack", "transfer", "backbones")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def run_tool(
    _loggers_as_before: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Calls a tool in this process as its command line would: (name, arguments) -> (exit code, standard error)."""
    import runpy

    def call(tool: str, *arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [tool, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(REPOSITORY / "tools" / f"{tool}.py"), run_name="__main__")
        return int(stopped.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_config_file: Path) -> Path:
    """The run directory of two epochs of the tiny detector. Not to be changed."""
    from transfer import training
    from transfer.build import load_config

    work_dir = tmp_path_factory.mktemp("runs")
    assert training.run(load_config(tiny_config_file), name="tiny", work_dir=work_dir, device="cpu")
    return work_dir / "tiny" / "001"
