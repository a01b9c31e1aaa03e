"""SSD300 on VGG-16 beside torchvision's: its number of parameters, and with them the same raw numbers."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import ssd300_vgg16

from backbones.timm_backbone import TimmBackbone
from transfer.heads.ssd import SSD, ssd

RELEASED = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
COCO = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
"""The released code's for COCO, with smaller objects: torchvision's."""


def ssd300(num_classes: int, scales: tuple[float, ...]) -> SSD:
    backbone = TimmBackbone("vgg16", out_strides=[8, 16])
    return ssd(backbone, num_classes, scales=scales, fc_width=1024, unpadded_extras=2)


def test_ssd300_has_torchvision_s_number_of_parameters() -> None:
    with torch.device("meta"):
        ours = ssd300(20, RELEASED)
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21)
        of_coco = ssd300_vgg16(weights=None, weights_backbone=None)
    count = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert count == sum(p.numel() for p in theirs.parameters()) == 26_285_486
    assert all(p.requires_grad for p in ours.parameters())
    # Its published 35,641,826 are those of 91 classes.
    assert sum(p.numel() for p in of_coco.parameters()) == 35_641_826


def test_ssd300_with_classifier_layers_has_no_more_parameters() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("vgg16", out_strides=[8, 16], classifier_layers=True)
        model = ssd(backbone, 20, fc_width=1024, unpadded_extras=2)
        output = model(torch.zeros((2, 3, 300, 300), dtype=torch.uint8), [(300, 300)] * 2)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 26_285_486
    assert output.logits.shape == (2, 8732, 21)


@pytest.mark.slow
def test_with_torchvision_s_parameters_all_numbers_are_torchvision_s() -> None:
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4)
    ours = ssd300(3, COCO)
    # torchvision's own pixels: of Caffe's mean, not divided by a standard deviation.
    ours.backbone.set_statistics([0.48235, 0.45882, 0.40784], [1 / 255] * 3)
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    scale = state.pop("backbone.scale_weight")
    own = {key: value for key, value in ours.state_dict().items() if key != "norms.0.scale"}
    assert [value.shape for value in own.values()] == [value.shape for value in state.values()]
    for (key, value), new in zip(own.items(), state.values()):
        if key.startswith("head.logits"):  # its background comes first
            new = new.unflatten(0, (-1, 4)).roll(-1, dims=1).flatten(0, 1)
        value.copy_(new)
    ours.norms[0].scale.data.copy_(scale)

    pixels = torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs.anchor_generator.clip = False  # as the released code
    with torch.no_grad():
        output = ours(pixels, [(300, 300)])
        images, _ = theirs.eval().transform(list(pixels / 255))
        features = list(theirs.backbone(images.tensors).values())
        raw = theirs.head(features)
        (boxes,) = theirs.anchor_generator(images, features)
    assert output.logits.shape == (1, 8732, 4)
    torch.testing.assert_close(output.logits, raw["cls_logits"].roll(-1, dims=2), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(output.deltas, raw["bbox_regression"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(output.default_boxes.boxes, boxes, rtol=0, atol=1e-3)
    assert output.logits.std() > 0.1
