"""What one run of an experiment is: a resolved config, a seed, and who makes it. Its key says which runs are the same.

Two descriptions have one key exactly where their runs are one and the same: so a baseline that two experiments share is
made once, and a run whose config was changed is another run. What a config leaves open is not in the key: the files
behind `data.train.root`, the weights behind a path, the code. The code and the library versions are kept with each run
(`state_of_code`) and the report says where they differ; in the key, every changed comment would void a week of runs.

This module, the ledger and the worker do without torch, which takes seconds to import.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

WITHOUT_EFFECT = ("loader.workers", "training.log_every", "training.pictures")
"""Keys of a config that change no figure: the batches are the same for any number of workers."""


@dataclass(frozen=True)
class Description:
    """One run to be made, in plain types: it can be sent to another process or machine as JSON."""

    name: str
    """For people: of its directory, besides the key."""
    config: dict[str, Any]
    """As `transfer.build.load_config` gives it, overrides, data and seed included."""
    seed: int
    runner: str = "transfer.training.run"
    """Dotted name of run(config, *, name, work_dir, device, resume) -> whether it came to its end; it leaves its result
    in WORK_DIR/NAME/NUMBER/results.json, goes on from NUMBER/last.pth with resume="latest", and stops with a checkpoint
    on SIGINT."""
    processes: int = 1
    """That make the run together, as torchrun would start them."""

    @property
    def key(self) -> str:
        """16 hexadecimal digits: the same for the same run."""
        config = copy.deepcopy(self.config)
        for dotted in WITHOUT_EFFECT:
            part, _, name = dotted.partition(".")
            if isinstance(config.get(part), dict):
                config[part].pop(name, None)
        fields = {"config": config, "seed": self.seed, "runner": self.runner, "processes": self.processes}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def directory(self) -> str:
        """Name of the run's directory: as `NAME-seed0-0123abcd`."""
        return f"{slug(self.name)}-seed{self.seed}-{self.key[:8]}"

    def to_json(self) -> str:
        """`from_json` gives it back."""
        return json.dumps(self.__dict__, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Description:
        """What `to_json` wrote."""
        return Description(**json.loads(text))


def slug(text: str) -> str:
    """A name that is safe in a path: "+ class smoothing" to "class_smoothing"."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.-") or "unnamed"


def function_of(dotted: str) -> Callable[..., Any]:
    """The function of a dotted name, imported now."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def state_of_code() -> dict[str, str]:
    """What computes: a digest of this project's sources, and the versions of the libraries."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("backbones", "transfer"):
        for path in sorted((root / package).rglob("*.py")):
            if "experiments" not in path.relative_to(root).parts:  # what runs the runs does not change them
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    versions = {"code": digest.hexdigest()[:12], "python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "albumentations", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
