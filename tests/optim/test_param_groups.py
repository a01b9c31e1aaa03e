"""Which parameters decay, held against timm's own rule; learning-rate factors against a hand-made model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transfer.optim.param_groups import describe_groups, parameter_groups
from transfer.types import UserError

FAMILIES = [
    "resnet18d",
    "resnetv2_50x1_bit",
    "mobilenetv3_small_050",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "densenet121",
    "vgg11_bn",
    "darknet53",
    "inception_v3",
    "regnetx_002",
    "cait_xxs24_224",
]


class Detector(nn.Module):
    """A backbone of two stages and a head; 10 parameters, of which 3 weights decay under the trick."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("stage1", nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
        self.backbone.add_module("stage2", nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4)))
        self.backbone2 = nn.LayerNorm([4, 2, 2])  # a name that only begins like the backbone's; weights of 3 dimensions
        self.head = nn.Linear(16, 2, bias=False)


def names_by_group(model: nn.Module, groups: list[dict]) -> dict[str, set[str]]:
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: {name_of[id(parameter)] for parameter in group["params"]} for group in groups}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_parameters_decay_as_by_timms_rule(name: str) -> None:
    import timm
    from timm.optim import param_groups_weight_decay

    with torch.device("meta"):
        model = timm.create_model(name)
    theirs = param_groups_weight_decay(model, weight_decay=0.1, no_weight_decay_list=())
    expected = {group["weight_decay"]: {id(parameter) for parameter in group["params"]} for group in theirs}
    groups = parameter_groups(model, lr=0.1, weight_decay=0.1, decay_norm_and_bias=False)
    found = {group["weight_decay"]: {id(parameter) for parameter in group["params"]} for group in groups}
    assert len(found[0.0]) > 10
    assert found == expected


def test_norms_and_biases_do_not_decay() -> None:
    model = Detector()
    groups = parameter_groups(model, lr=0.1, weight_decay=0.1, decay_norm_and_bias=False)
    found = names_by_group(model, groups)
    assert found["model/decay"] == {"backbone.stage1.0.weight", "backbone.stage2.0.weight", "head.weight"}
    assert "backbone2.weight" in found["model/no_decay"]  # timm's rule alone would let it decay
    assert {group["name"]: group["weight_decay"] for group in groups} == {"model/decay": 0.1, "model/no_decay": 0.0}


def test_a_bias_of_several_dimensions_and_a_layer_scale_do_not_decay() -> None:
    model = nn.Linear(2, 2)
    model.bias = nn.Parameter(torch.zeros(1, 2))
    model.gamma = nn.Parameter(torch.ones(2))
    model.scale = nn.Parameter(torch.tensor(1.0))
    found = names_by_group(model, parameter_groups(model, lr=0.1, weight_decay=0.1, decay_norm_and_bias=False))
    assert found == {"model/decay": {"weight"}, "model/no_decay": {"bias", "gamma", "scale"}}


def test_off_is_one_group_and_steps_like_plain_torch() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    groups = parameter_groups(models[0], lr=0.1, weight_decay=0.3)
    assert len(groups) == 1
    ours = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    plain = torch.optim.SGD(models[1].parameters(), lr=0.1, momentum=0.9, weight_decay=0.3)
    images = torch.randn(2, 3, 8, 8)
    for _ in range(3):
        for model, optimizer in zip(models, (ours, plain)):
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters()))


def test_longest_prefix_wins_and_prefixes_end_at_dots() -> None:
    model = Detector()
    factors = {"backbone": 0.1, "backbone.stage1": 0.01, "backbone.stage1.1.weight": 0.5}
    groups = parameter_groups(model, lr=2.0, weight_decay=0.0, lr_factors=factors)
    lr_of = {name: group["lr"] for group in groups for name in names_by_group(model, [group])[group["name"]]}
    assert lr_of["backbone.stage1.0.weight"] == pytest.approx(0.02)
    assert lr_of["backbone.stage1.1.bias"] == pytest.approx(0.02)
    assert lr_of["backbone.stage1.1.weight"] == pytest.approx(1.0)
    assert lr_of["backbone.stage2.0.weight"] == pytest.approx(0.2)
    assert lr_of["backbone2.weight"] == lr_of["head.weight"] == 2.0
    assert all(group["initial_lr"] == group["lr"] == 2.0 * group["lr_factor"] for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)


def test_shared_parameters_come_once_and_frozen_ones_never() -> None:
    model = Detector()
    model.second_head = nn.Linear(16, 2, bias=False)
    model.second_head.weight = model.head.weight
    model.backbone.stage1.requires_grad_(False)
    groups = parameter_groups(
        model, lr=0.1, weight_decay=0.1, decay_norm_and_bias=False, lr_factors={"second_head": 0.5}
    )
    found = [id(parameter) for group in groups for parameter in group["params"]]
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(found) == len(set(found)) == 7
    assert set(found) == trained
    assert names_by_group(model, groups)["second_head/decay"] == {"head.weight"}  # matched under its second name


def test_a_factor_for_a_frozen_part_is_no_mistake() -> None:
    model = Detector()
    model.backbone.stage1.requires_grad_(False)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.1, lr_factors={"backbone.stage1": 0.1})
    assert [group["lr_factor"] for group in groups] == [1.0]


def test_mistakes_are_named_all_at_once() -> None:
    factors = {"backbon.stage1": 0.1, "head": 0.0, "zzz": 1.0, "backbone": "0.1"}
    with pytest.raises(UserError) as caught:
        parameter_groups(Detector(), lr=0.1, weight_decay=0.1, lr_factors=factors)
    message = str(caught.value)
    assert "'backbon.stage1'] matches no parameter; nearest: backbone.stage1" in message
    assert "lr_factors['head'] is 0.0" in message
    assert "'zzz'] matches no parameter; the model has: backbone, backbone2, head" in message
    assert "lr_factors['backbone'] is '0.1'" in message


def test_nothing_to_train_is_a_mistake() -> None:
    with pytest.raises(UserError, match="no parameter to train"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), lr=0.1, weight_decay=0.1)


def test_description_counts_tensors_and_values() -> None:
    groups = parameter_groups(nn.Linear(3, 2), lr=0.5, weight_decay=0.01, decay_norm_and_bias=False)
    lines = [line.split() for line in describe_groups(groups).splitlines()]
    assert lines[1:] == [["model/decay", "1", "6", "0.5", "0.01"], ["model/no_decay", "1", "2", "0.5", "0"]]
