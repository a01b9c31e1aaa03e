"""Checkpoints: tensors and plain types, whole or not there, checked before they are believed.

A checkpoint is a dict with:
    format: FORMAT
    model, ema: state dicts (`ema` None where the run keeps none)
    optimizer, scaler: state dicts, for going on
    iteration: optimizer steps done; the schedule and the batches follow from it and `seed`
    seed, world_size, best: of the run
    config: JSON text, classes as dotted names, never run
    class_names, category_ids: the label order
    backbone: input statistics and origin, plain types
    metrics, measured_at: last evaluation, plain types, and its iteration
    versions: of the libraries that wrote it
    git: commit of the code, with "+changes"; None outside of git
    data: fingerprints of the training and the test set, see `transfer.provenance.fingerprint`
    schedule, early_stopping: state dicts of what listens to measured figures
    card: parameters of the network, multiply-adds of its backbone and at which size
"""

from __future__ import annotations

import difflib
import os
import platform
import zipfile
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from transfer.engine.checkpoint_fields import wrong_fields
from transfer.types import RefusedCheckpoint, TryAgain, UserError

FORMAT = "trickstack/1"

Checkpoint = dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under its final name only when all of it is on disk.

    Args:
        path: final name; what was there is replaced in one step.
        checkpoint: tensors and plain types.
    Raises:
        TryAgain: the disk is full or not writable; the former file is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise TryAgain(f"cannot write checkpoint {str(path)!r}: {error}; the one before is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of this project without running anything in it.

    Args:
        path: a file that `save_checkpoint` wrote.
    Raises:
        RefusedCheckpoint: missing, damaged (the member is named), not safe to load, of another kind, or with fields
            that are missing or of other types (each is named).
    """
    path = Path(path)
    if path.is_dir():
        raise RefusedCheckpoint(f"{str(path)!r} is a folder, no checkpoint{_checkpoint_in(path)}")
    if not path.is_file():
        raise RefusedCheckpoint(f"no checkpoint {str(path)!r}{_nearest_file(path)}")
    if not zipfile.is_zipfile(path):
        raise RefusedCheckpoint(
            f"{str(path)!r} is no checkpoint of this project, or is cut short: give a last.pth or best.pth"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > path.stat().st_size:  # torch compresses nothing: a few kilobytes that stand for gigabytes
                raise RefusedCheckpoint(
                    f"checkpoint {str(path)!r} would unpack to {unpacked} bytes, more than it has itself"
                )
            damaged = archive.testzip()
    except UserError:
        raise
    except Exception as error:  # on damaged bytes zipfile raises of many kinds
        raise RefusedCheckpoint(f"checkpoint {str(path)!r} is damaged: {error}; take another copy") from error
    if damaged is not None:
        raise RefusedCheckpoint(f"checkpoint {str(path)!r} is damaged: its member {damaged!r} fails its checksum")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise RefusedCheckpoint(
            f"checkpoint {str(path)!r} holds more than tensors and plain types, so it is not loaded: whoever made it "
            "could run code here. If you trust it, load it where it was made and save its state dict alone"
        ) from error
    except Exception as error:  # a damaged file may raise anything
        raise RefusedCheckpoint(f"checkpoint {str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    found = checkpoint.get("format") if isinstance(checkpoint, dict) else None
    if not isinstance(found, str) or found != FORMAT:
        said = repr(found[:80]) if isinstance(found, str) else type(found).__name__
        raise RefusedCheckpoint(
            f"{str(path)!r} is not a checkpoint of this project (format {said}, need {FORMAT!r}); plain backbone "
            "weights go into the config as model.backbone.weights"
        )
    problems = wrong_fields(checkpoint, file_bytes=path.stat().st_size)
    if problems:
        raise RefusedCheckpoint(
            f"checkpoint {str(path)!r} is not as this project writes it: {'; '.join(problems)}. Take another copy"
        )
    return checkpoint


def _checkpoint_in(folder: Path) -> str:
    """A remedy that names the better one of a run directory's checkpoints, where there is one."""
    found = next((folder / name for name in ("best.pth", "last.pth") if (folder / name).is_file()), None)
    return f": give {str(found)!r}" if found else ": give a last.pth or best.pth"


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {str(path.parent)!r}"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1, cutoff=0.5)
    return f", did you mean {str(path.parent / close[0])!r}?" if close else ""


def library_versions() -> dict[str, str]:
    """Versions of what computes: goes into every checkpoint."""
    versions = {"python": platform.python_version()}
    for package in ("trickstack", "torch", "torchvision", "timm", "albumentations", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
