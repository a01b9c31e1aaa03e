"""MobileNet-v1 of half and quarter width against the published sizes and weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbones.contract import BackboneError
from backbones.cost import multiply_adds
from backbones.slim_mobilenet import SlimMobileNet


@pytest.mark.parametrize(
    ("width", "size", "millions", "additions"),
    [(0.5, 160, 1.34, 77), (0.25, 128, 0.47, 14)],  # TensorFlow Slim's table of MobileNet-v1
)
def test_sizes_are_those_published(width: float, size: int, millions: float, additions: int) -> None:
    network = SlimMobileNet(width)
    classifier = (network.channels[-1] + 1) * 1001  # with a class for "background"
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (parameters + classifier) / 1e6 == pytest.approx(millions, abs=0.01)
    assert network.input_size == (size, size)
    assert multiply_adds(network, (size, size)) / 1e6 == pytest.approx(additions, abs=1)
    assert (network.mean, network.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_another_width() -> None:
    with pytest.raises(BackboneError, match=r"width=0\.75: give 0\.5 or 0\.25"):
        SlimMobileNet(0.75)


@pytest.mark.data
@pytest.mark.parametrize(("width", "name"), [(0.5, "0.5_160"), (0.25, "0.25_128")])
def test_published_weights_fit(width: float, name: str, shared_weights: Path) -> None:
    network = SlimMobileNet(width, weights=shared_weights / f"coral_mobilenet_v1_{name}_quant_timm.pth")
    assert network.load_report is not None
    assert not network.load_report.missing
    assert not network.load_report.unused
