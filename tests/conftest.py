"""Shared fixtures. One thread and no network: the same figures on any machine."""

from __future__ import annotations

import os
from pathlib import Path

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
