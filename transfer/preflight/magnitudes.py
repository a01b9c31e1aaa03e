"""Scales: of the maps that a head is given, of every layer's output, of the parameters.

Maps of trained networks have a standard deviation of about 0.3 to 8 (measured: 2 to 8 of EfficientNet-Lite0, whose last
convolutions are linear); outside 0.01 to 100 a new head needs another lr than usual, beyond 10,000 or below a millionth
it cannot learn. A rectifier of which 90 % of the channels are nowhere above zero on the images passes next to nothing.
Weights are judged by their root mean square times the root of a unit's inputs, about 1 in most networks, 0.03 in output
layers that are to begin small; below 0.0001 or above 100 they are named, unless they are all zero by intent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transfer.preflight.findings import Outcome
from transfer.preflight.watching import Watched, numbers

LOW, HIGH = 0.01, 100.0
"""Standard deviation of a map."""
TOO_LOW, TOO_HIGH = 1e-6, 1e4
SILENT = 0.9
WEIGHT_LOW, WEIGHT_HIGH = 1e-4, 100.0
_SHOWN = 5


def check_magnitudes(model: nn.Module, watched: Watched) -> Outcome:
    """Everything of one pass, and the parameters it was made with.

    Args:
        model: before any step.
        watched: a pass of it, in training mode.
    """
    outcome = Outcome("magnitudes")
    for owner, maps in watched.maps.items():
        if owner == "neck" and all(x is y for x, y in zip(maps, watched.maps.get("backbone", []))):
            continue  # an identity
        _check_maps(outcome, owner, maps)
    _check_layers(outcome, watched)
    _check_parameters(outcome, model)
    return outcome


@torch.no_grad()
def _check_maps(outcome: Outcome, owner: str, maps: list[Tensor]) -> None:
    facts, shown = [], []
    for level, x in enumerate(maps):
        values = x.detach().float()
        mean, std, largest = (float(v) for v in (values.mean(), values.std(), values.abs().amax()))
        facts.append({"shape": list(x.shape), "mean": mean, "std": std, "largest": largest})
        shown.append(f"{x.shape[1]}x{x.shape[2]}x{x.shape[3]} std {std:.2g}")
        name = f"map {level} of the {owner} ({x.shape[1]} channels, {x.shape[2]}x{x.shape[3]} cells)"
        if not math.isfinite(largest):
            remedy = "look at the weights and the norms before it"
            outcome.error("map-not-finite", f"{name} holds values that are not numbers", remedy)
        elif x.shape[2] * x.shape[3] > 1 and float(values.flatten(2).std(dim=2).amax()) == 0:
            remedy = "nothing can be found in it: look at the layers before it"
            outcome.error("map-without-information", f"{name} is the same in every cell", remedy)
        elif not LOW <= std <= HIGH:
            report = outcome.warning if TOO_LOW <= std <= TOO_HIGH else outcome.error
            report(
                "map-out-of-scale",
                f"{name} has a standard deviation of {std:.3g}, usual are 0.3 to 8",
                "look at weights and normalisation (frozen norm needs pretrained weights); a neck with a norm "
                "(model.fpn_norm=group) gives any backbone unit scale",
            )
    outcome.facts[owner] = facts
    outcome.lines.append(f"{owner} maps: {', '.join(shown)}")


def _check_layers(outcome: Outcome, watched: Watched) -> None:
    largest, silent = numbers(watched.largest), numbers(watched.silent)
    broken = [name for name, value in largest.items() if not math.isfinite(value)]
    if broken:
        outcome.error(
            "map-not-finite",
            f"{broken[0]} is the first of {len(broken)} layers whose output is not finite",
            "look at its weights and its input",
        )
    dead = {name: share for name, share in silent.items() if share >= SILENT}
    if dead:
        shown = ", ".join(f"{name} ({share:.0%})" for name, share in list(dead.items())[:_SHOWN])
        more = f" and {len(dead) - _SHOWN} others" if len(dead) > _SHOWN else ""
        outcome.warning(
            "layer-dead",
            f"channels that are nowhere above zero: {shown}{more}",
            "look at the biases and norms before it, and at mean and std of the backbone",
        )
    ranked = sorted(largest, key=lambda name: -largest[name])[:_SHOWN]
    outcome.facts["largest_outputs"] = {name: largest[name] for name in ranked}
    outcome.facts["silent_channels"] = {name: share for name, share in silent.items() if share > 0.5}


@torch.no_grad()
def _check_parameters(outcome: Outcome, model: nn.Module) -> None:
    parameters = dict(model.named_parameters())
    norms = numbers({name: parameter.detach().float().norm() for name, parameter in parameters.items()})
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if broken:
        outcome.error(
            "parameter-not-finite",
            f"{broken[0]} is the first of {len(broken)} parameters with values that are not numbers",
            "look at the file that model.backbone.weights names",
        )
    gains = {
        name: norms[name] / math.sqrt(parameter.numel()) * math.sqrt(parameter[0].numel())
        for name, parameter in parameters.items()
        if parameter.ndim > 1 and math.isfinite(norms[name])
    }
    odd = {name: gain for name, gain in gains.items() if gain and not WEIGHT_LOW <= gain <= WEIGHT_HIGH}
    if odd:
        shown = ", ".join(f"{name} ({gain:.2g})" for name, gain in list(odd.items())[:_SHOWN])
        more = f" and {len(odd) - _SHOWN} others" if len(odd) > _SHOWN else ""
        outcome.warning(
            "parameter-out-of-scale",
            f"root mean square times root of the inputs, usually about 1: {shown}{more}",
            "look at how they are initialised or what was loaded",
        )
    ranked = sorted(gains, key=lambda name: gains[name])
    outcome.facts["weights"] = {name: gains[name] for name in (*ranked[:_SHOWN], *ranked[-_SHOWN:])}
