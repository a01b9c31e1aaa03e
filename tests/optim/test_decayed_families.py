"""The trick "no bias decay" in a dozen timm families: what decays is what a walk over the kinds of modules finds.

The walk knows nothing of dimensions or names, which the rule of `parameter_groups` goes by: it takes the weights of all
convolutions and linear layers. What else decays, having several dimensions, is listed by name: position embeddings,
class tokens, tables of relative positions.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from transfer.optim.param_groups import parameter_groups

FAMILIES: dict[str, tuple[int, str]] = {
    "resnet18": (21, ""),  # 17 and 3 projections, and the classifier
    "resnet18d": (23, ""),  # the stem has 3
    "vgg11_bn": (11, ""),  # its name: 8 convolutions and 3 layers of classifier
    "densenet121": (121, ""),  # its name
    "inception_v3": (95, ""),
    "mobilenetv1_100": (28, ""),  # 28 layers, counting depthwise and pointwise apart, as its paper does
    "mobilenetv3_small_050": (54, ""),
    "efficientnet_lite0": (50, ""),
    "regnetx_002": (45, ""),  # 13 blocks of 3, 4 projections, the stem and the classifier
    "darknet53": (53, ""),  # its name
    "convnext_atto": (41, ""),
    "vit_tiny_patch16_224": (50, r"cls_token|pos_embed"),
    "swin_tiny_patch4_window7_224": (53, r"layers\.\d\.blocks\.\d\.attn\.relative_position_bias_table"),
}
"""Name -> (convolutions and linear layers, pattern of the other parameters that decay)."""


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_weights_of_convolutions_and_linear_layers_decay(name: str) -> None:
    import timm

    count, others = FAMILIES[name]
    with torch.device("meta"):
        model = timm.create_model(name)
    layers = {
        f"{module_name}.weight"
        for module_name, module in model.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear))
    }
    assert len(layers) == count
    named = dict(model.named_parameters())
    expected = layers | {parameter for parameter in named if others and re.fullmatch(others, parameter)}
    assert others == "" or expected > layers

    groups = parameter_groups(model, lr=0.1, weight_decay=1e-4, decay_norm_and_bias=False)
    name_of = {id(parameter): parameter_name for parameter_name, parameter in named.items()}
    decay = {name_of[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert {parameter for parameter, value in decay.items() if value == 1e-4} == expected
    assert {parameter for parameter, value in decay.items() if value == 0} == named.keys() - expected
