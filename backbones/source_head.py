"""The classifier that a backbone's weights were trained with, so that one can ask which of its classes it sees.

Source: the project's own design, for LEEP (Nguyen et al. 2020, arXiv 2002.12462), which needs the source's classes.
What stands between the last map and the classes differs (EfficientNet has one more convolution there, ConvNeXt a norm),
so it is taken from timm's whole model: all layers behind those the last map hangs on. That these, run in order, are the
whole way from the map to the logits is tried on the model and not believed.

Deviation: a head sees vectors, the mean of the last map over a region or its value at a pixel. Where a network has a
nonlinear layer before its pooling, that layer is given the mean in place of all cells.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backbones.classifier_backbone import ClassifierBackbone
from backbones.contract import Backbone, BackboneError
from backbones.timm_backbone import TimmBackbone
from backbones.weights import load_weights, read_weights

_logger = logging.getLogger(__name__)


class SourceHead(nn.Module):
    """Layers from the last map to the logits of the source's classes.

    Args:
        layers: in the order they run.
        on_maps: whether the first one reads maps [N, C, h, w], not vectors [N, C].
    """

    def __init__(self, layers: Mapping[str, nn.Module], *, on_maps: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(layers))
        self.on_maps = on_maps

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors [N, C] -> logits [N, Z]."""
        return self.layers(vectors[:, :, None, None] if self.on_maps else vectors).flatten(1)


def source_head(backbone: Backbone) -> SourceHead | None:
    """The classifier that came with a backbone's weights, on the backbone's device, in eval mode.

    Args:
        backbone: any; the weights are read anew, as a backbone keeps no classifier.

    Returns:
        From the mean of the last map (of a `ClassifierBackbone`: from `pooled`) to logits; None: there are no weights,
        they have no classifier, or what is behind the last map cannot be run by itself. The log says which.
    """
    if not isinstance(backbone, (TimmBackbone, ClassifierBackbone)) or backbone.weights_given is None:
        return None
    try:
        head = _loaded(backbone)
    except BackboneError as error:
        _logger.info("%s: no classifier of the source: %s", backbone.name, error)
        return None
    return head.to(backbone.pixel_mean.device).eval().requires_grad_(False)


def _loaded(backbone: TimmBackbone | ClassifierBackbone) -> SourceHead:
    """Raises: BackboneError where there is none."""
    import timm

    weights, plan, timm_name = backbone.weights_given, backbone.plan, backbone.timm_name
    assert weights is not None
    tensors = read_weights(weights, architecture=timm_name, full_shapes=plan.full_shapes).tensors
    options = {key: value for key, value in plan.options.items() if key != "output_stride"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        name = _classifier_name(timm.create_model(timm_name, **options))
        stored = _stored_name(tensors, name)
        full = timm.create_model(timm_name, num_classes=len(tensors[f"{stored}.weight"]), **options).eval()
    names = {key: key for key in full.state_dict()}
    if not f".{stored}".endswith(f".{name}"):
        names |= {f"{name}.{kind}": f"fc.{kind}" for kind in ("weight", "bias")}
    report = load_weights(full, weights, architecture=timm_name, full_names=names, full_shapes=plan.full_shapes)
    if isinstance(backbone, TimmBackbone):
        layers = _behind(full, {backbone.plan.full_names[key] for key in backbone.plan.before[-1]})
        head, behind = SourceHead(layers, on_maps=True), list(layers)
        _check_way(full, head, backbone.channels[-1])
    else:
        head, behind = SourceHead({"classifier": full.get_submodule(name)}, on_maps=False), [name]
    lacking = [*report.missing, *report.shape_mismatch]
    random = [key for key in lacking if any(key.startswith(f"{layer}.") for layer in behind)]
    if random:
        raise BackboneError(f"the weights lack {', '.join(random)}")
    return head


def _classifier_name(model: Any) -> str:
    """timm's name of a model's last layer. Raises: BackboneError where that is not linear."""
    name = model.pretrained_cfg.get("classifier")
    if not isinstance(name, str) or not isinstance(model.get_submodule(name), nn.Linear):
        raise BackboneError("the network does not end in one linear layer")
    return name


def _stored_name(tensors: Mapping[str, Tensor], name: str) -> str:
    """What a source calls its last layer: as timm does, or as this project's classifiers do."""
    for wanted in (name, "fc"):
        for key, tensor in tensors.items():
            if f".{key}".endswith(f".{wanted}.weight") and tensor.dim() == 2:
                return key.removesuffix(".weight")
    raise BackboneError(f"the weights have no layer {name!r}")


def _behind(full: nn.Module, before: Collection[str]) -> dict[str, nn.Module]:
    """The layers of a whole model behind the last one whose parameters the last map hangs on."""
    children = dict(full.named_children())
    last = max(place for place, child in enumerate(children) if any(key.startswith(f"{child}.") for key in before))
    return dict(list(children.items())[last + 1 :])


def _check_way(full: Any, head: SourceHead, channels: int) -> None:
    """Raises: BackboneError unless a head takes the map before it to the model's logits, and vectors to logits, too."""
    children = dict(full.named_children())
    size = full.pretrained_cfg["input_size"]  # some networks take no other, Inception-v3 none below 75 pixels
    before = children[[child for child in children if child not in dict(head.layers.named_children())][-1]]
    maps: list[Tensor] = []
    handle = before.register_forward_hook(lambda module, inputs, output: maps.append(output))
    try:
        with torch.no_grad():
            expected = full(torch.randn(2, *size, generator=torch.Generator().manual_seed(0)))
    finally:
        handle.remove()
    try:
        with torch.no_grad():
            found = head.eval().layers(maps[0]).flatten(1)
            head(torch.zeros(1, channels))
    except Exception as error:
        # Layers that cannot be run by themselves may raise anything.
        raise BackboneError(f"the layers behind the last map do not run by themselves ({error})") from error
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=1e-4):
        raise BackboneError("the layers behind the last map are not the whole way to the logits")
