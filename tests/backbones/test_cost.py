"""Multiply-adds, against counts by hand and published ones."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones.contract import wrap
from backbones.cost import multiply_adds


class PlainTensor(nn.Module):
    """Keeps a tensor that is no buffer, so that it cannot run without values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.shift = torch.ones(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) + self.shift


def test_count_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 8 * 8, 10),
    )  # fmt: skip
    by_hand = 64 * 8 * 3 * 9 + 64 * 8 * 2 * 9 + 8 * 64 * 10
    assert multiply_adds(network, (16, 16)) == by_hand
    assert multiply_adds(PlainTensor(), (5, 7)) == 5 * 7 * 3 * 4


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [("resnet18", 1.8, 0.05), ("resnet50d", 4.3, 0.1)],  # He et al. 2015, table 1; Bag of Tricks, table 5
)
def test_published_counts(name: str, published: float, tolerance: float) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    assert multiply_adds(network, (224, 224)) / 1e9 == pytest.approx(published, abs=tolerance)


def test_counting_leaves_no_trace() -> None:
    backbone = wrap(nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.BatchNorm2d(4))).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert multiply_adds(backbone, (8, 8)) == 16 * 4 * 3 * 4
    assert backbone.body.training
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
