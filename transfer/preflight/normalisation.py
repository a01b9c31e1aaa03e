"""Whether images reach the network in the scale that its weights were trained with.

Two checks. The first asks whether pixels are 0 to 255 with some contrast, and what the network is fed: natural pictures
normalised well have a channel mean within 1.5 of zero and a standard deviation of 0.3 to 3; pale ones have less (blood
cells under the microscope 0.12), so it is a warning from a mean of 2.5 and below 0.08 or above 5. A mean beyond 20, or
a standard deviation below 0.02 or above 20, is an error.

The second asks the weights: a pretrained network keeps in its first batch norm the mean and variance that its first
layer gave on the images of its training. The same layer is run here on some images of the data set, whose contrast and
brightness are first made those of natural pictures (mean 0.485, 0.456, 0.406 of ImageNet, standard deviation 0.28), so
that it does not matter whether the data are bright or pale; and only channels are compared that answer to brightness
rather than to edges (more than half of their variance comes from it), so that it does not matter how sharp the data
are. The distance is the Kullback-Leibler divergence of the two normal distributions, the median over these channels.
Measured with EfficientNet-Lite0 on six data sets, blood cells and road scenes among them, sharp and blurred, and with
two MobileNets-v1 on three: 0.00 to 0.02 with the right mean and std, 0.36 to 1.6 with others that are in use, above 100
with 0..255 for 0..1.
So above 0.2, with another pair of numbers that fits to 0.1, it is an error; with none, a warning.

What cannot be seen: swapped colour channels (0.00 against 0.01), and networks without batch norm or pretraining.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.contract import IMAGENET_MEAN, IMAGENET_STD, Backbone, Triple
from transfer.preflight.findings import Outcome
from transfer.types import Batch, Sample

NATURAL_STD = 0.28
"""Standard deviation of natural pictures' pixels, in [0, 1]."""
FITS, DOUBTFUL = 0.1, 0.2
"""Divergence up to which statistics agree, and from which they do not."""
LEAST_CHANNELS = 3
_LEAST_SHARE = 1e-3
"""Channels whose variance is less than this share of the largest are dead, not compared."""
_PALE, _BRIGHT = 0.485 - NATURAL_STD, 0.485 + NATURAL_STD
ALTERNATIVES: dict[str, tuple[Triple, Triple]] = {
    "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)": (IMAGENET_MEAN, IMAGENET_STD),
    "mean 0.5, std 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mean 0, std 1 (images in 0..1)": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "mean 0, std 1/255 (images in 0..255)": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "mean (0.485, 0.456, 0.406), std 1/255": (IMAGENET_MEAN, (1 / 255, 1 / 255, 1 / 255)),
}
"""What weights are commonly trained with."""


class _Reached(Exception):
    """The first batch norm was reached: the rest of the network need not run."""


def check_normalisation(backbone: Backbone, batches: Sequence[Batch], samples: Sequence[Sample]) -> Outcome:
    """Pixels, what the network is fed, and what its first batch norm expects.

    Args:
        backbone: a copy; its mode is that of training.
        batches: as training gets them.
        samples: decoded images before any augmentation.
    """
    outcome = Outcome("normalisation")
    _check_pixels(outcome, backbone, batches)
    if not outcome.is_wrong:
        _check_statistics(outcome, backbone, samples)
    return outcome


def _check_pixels(outcome: Outcome, backbone: Backbone, batches: Sequence[Batch]) -> None:
    # Of each image's own part, without padding, every seventh pixel: [3, pixels] of all of them
    parts = [
        image[:, : target.size[0], : target.size[1]].flatten(1)[:, ::7]
        for batch in batches
        for image, target in zip(batch.images, batch.targets)
    ]
    pixels = torch.cat(parts, dim=1)
    largest = int(pixels.max())
    if largest <= 1:
        outcome.error(
            "images-scaled",
            f"the largest pixel of {len(parts)} images is {largest}: they were scaled to 0..1 before they became uint8",
            "give images as decoded, uint8 in 0..255: the backbone normalises",
        )
        return
    if float(pixels.float().std()) < 1:
        outcome.error(
            "images-uniform",
            f"the pixels of {len(parts)} images differ by less than 1 of 255 (standard deviation): nothing is on them",
            "look at preflight.jpg, and at how data.train decodes its images",
        )
        return
    device = backbone.pixel_mean.device
    normalized = backbone.normalize(pixels.view(1, 3, 1, -1).to(device)).float()[0, :, 0]  # [3, pixels]
    means, stds = (values.tolist() for values in (normalized.mean(dim=1), normalized.std(dim=1)))
    outcome.facts = {"input_mean": means, "input_std": stds, "declared": [list(backbone.mean), list(backbone.std)]}
    shown = f"mean {_shown(means)}, standard deviation {_shown(stds)} of R, G, B"
    outcome.lines.append(f"what the network is fed: {shown}")
    farthest, narrowest, widest = max(map(abs, means)), min(stds), max(stds)
    if farthest <= 2.5 and narrowest >= 0.08 and widest <= 5:
        return
    gross = farthest > 20 or narrowest < 0.02 or widest > 20
    report = outcome.error if gross else outcome.warning
    report(
        "input-unusual",
        f"after normalisation with mean {_shown(backbone.mean)} and std {_shown(backbone.std)}: {shown}",
        "look at preflight.jpg; if the pictures are as they should be, look at the backbone's mean and std"
        + ("" if gross else " (pictures that are pale by nature need nothing)"),
    )


def _check_statistics(outcome: Outcome, backbone: Backbone, samples: Sequence[Sample]) -> None:
    layers = [layer for layer in backbone.modules() if isinstance(layer, _BatchNorm) and _is_trained(layer)]
    images = _natural(samples, backbone) if layers else None
    if not layers or images is None:
        outcome.facts["statistics"] = "no batch norm that was trained before"
        outcome.lines.append("mean and std against the weights: not checked, no batch norm that was trained before")
        return
    declared = _distance(backbone, layers, images, backbone.mean, backbone.std)
    if declared is None:
        outcome.facts["statistics"] = "too few channels of the first batch norm answer to brightness"
        outcome.lines.append("mean and std against the weights: not checked, too few channels answer to brightness")
        return
    others = {
        name: distance
        for name, (mean, std) in ALTERNATIVES.items()
        if not _alike((mean, std), (backbone.mean, backbone.std))
        and (distance := _distance(backbone, layers, images, mean, std)) is not None
    }
    best = min(others, key=lambda name: others[name])
    outcome.facts["statistics"] = {"declared": declared, **others}
    outcome.lines.append(
        f"mean and std against the weights' own statistics: divergence {declared:.2f} ({FITS} or less is right)"
    )
    if declared <= DOUBTFUL:
        return
    message = (
        f"with mean {_shown(backbone.mean)} and std {_shown(backbone.std)}, the first layer gives other values than "
        f"its batch norm was trained with: divergence {declared:.2f}, with the right numbers below {FITS}"
    )
    if others[best] <= FITS:
        message += f"; {best} fit: {others[best]:.2f}"
        outcome.error(
            "normalisation-wrong", message, "give the backbone the mean and std its weights were trained with"
        )
    else:
        remedy = "look up what the weights were trained with; of images unlike photographs this is no fault"
        outcome.warning("normalisation-wrong", message, remedy)


def _alike(ours: tuple[Triple, Triple], theirs: tuple[Triple, Triple]) -> bool:
    return bool(np.allclose(ours, theirs, atol=1e-3))


def _is_trained(layer: _BatchNorm) -> bool:
    """Whether its statistics are other than those it was built with."""
    if layer.running_mean is None or layer.running_var is None:
        return False
    return bool((layer.running_mean != 0).any() or (layer.running_var != 1).any())


def _natural(samples: Sequence[Sample], backbone: Backbone) -> Tensor | None:
    """[N, 3, H, W] float in 0..1 (and a little beyond): the pictures with natural brightness and contrast."""
    if not samples:
        return None
    height, width = backbone.input_size
    pictures = [cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_AREA) for sample in samples]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    centred = images - images.mean(dim=(0, 2, 3), keepdim=True)
    if float(centred.std()) < 1e-3:
        return None
    natural = centred / centred.std() * NATURAL_STD + torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    return natural.to(backbone.pixel_mean.device)


def _distance(
    backbone: Backbone, layers: Sequence[_BatchNorm], images: Tensor, mean: Triple, std: Triple
) -> float | None:
    """Median divergence between what reaches the first batch norm and its statistics; None: too few channels."""
    reached = _first_input(backbone, layers, images, mean, std)
    if reached is None:
        return None
    layer, values = reached
    assert layer.running_mean is not None
    assert layer.running_var is not None
    expected, spread = layer.running_mean.double(), layer.running_var.double()
    found, variance = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3))  # [C]
    levels = []
    for level in (_PALE, _BRIGHT):
        uniform = torch.full_like(images[:1], level)
        answer = _first_input(backbone, layers, uniform, mean, std)
        assert answer is not None
        levels.append(answer[1][0, :, values.shape[2] // 2, values.shape[3] // 2])
    by_brightness = ((levels[1] - levels[0]) / 2).square()  # [C]: variance that brightness alone would give
    chosen = (spread > _LEAST_SHARE * spread.max()) & (variance > 0) & (by_brightness > 0.5 * variance)
    if int(chosen.sum()) < LEAST_CHANNELS:
        return None
    found, variance, expected, spread = (x[chosen] for x in (found, variance, expected, spread))
    divergence = 0.5 * ((spread / variance).log() + (variance + (found - expected).square()) / spread - 1)
    return float(divergence.median())


@torch.no_grad()
def _first_input(
    backbone: Backbone, layers: Sequence[_BatchNorm], images: Tensor, mean: Triple, std: Triple
) -> tuple[_BatchNorm, Tensor] | None:
    """The batch norm that is reached first, and what reaches it, [N, C, H, W] float64; None: none is."""
    reached: list[tuple[_BatchNorm, Tensor]] = []

    def stop(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        reached.append((layer, inputs[0].double()))
        raise _Reached

    handles = [layer.register_forward_pre_hook(stop) for layer in layers]
    low, wide = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    try:
        backbone.features((images - low) / wide)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return reached[0] if reached else None


def _shown(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
