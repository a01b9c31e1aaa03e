"""Every decoder of smp on every family of backbones: which pairs work, what size comes out, and smp's own results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from detector_builders import noise_images
from segmentation_builders import StagedBackbone, drawn_scenes, learn, mean_iou, predicted
from torch import Tensor, nn

from backbones.contract import Backbone
from backbones.timm_backbone import TimmBackbone
from transfer.heads.segmentation import SegmentationCriterion
from transfer.heads.smp_decoder import SMPDecoder, smp_decoder
from transfer.heads.smp_table import DECODERS, fitting
from transfer.types import UserError

FIVE = (2, 4, 8, 16, 32)
BACKBONES: dict[str, dict[str, Any]] = {
    "ResNet": {"name": "resnet10t"},
    "ResNet with stride 2": {"name": "resnet10t", "out_strides": FIVE},
    "ResNet, output stride 16": {"name": "resnet10t", "output_stride": 16},
    "ResNet, output stride 8": {"name": "resnet10t", "output_stride": 8},
    "EfficientNet": {"name": "tf_efficientnet_lite0", "out_strides": FIVE},
    "EfficientNet, output stride 8": {"name": "tf_efficientnet_lite0", "output_stride": 8},
    "MobileNetV3": {"name": "mobilenetv3_small_050"},
    "ConvNeXt": {"name": "convnext_atto"},
    "VGG": {"name": "vgg11", "out_strides": (1, 2, 4, 8, 16, 32)},
    "Swin": {"name": "swin_tiny_patch4_window7_224"},
    "ViT": {"name": "vit_tiny_patch16_224"},
}
HALVING = {"unetplusplus", "manet", "linknet", "fpn"}
DEEPLAB = {"deeplabv3", "deeplabv3plus"}
DILATED = set(DECODERS) - HALVING
PYRAMID = set(DECODERS) - DEEPLAB
WORKS: dict[str, set[str]] = {
    name: {"pspnet", "deeplabv3", "dpt"} if name == "ViT" else DILATED if "output stride" in name else PYRAMID
    for name in BACKBONES
}
"""Which decoders fit which backbone: the table of the documents."""
OUTPUT_STRIDES = {"unet": 1, "unetplusplus": 1, "manet": 1, "linknet": 1, "dpt": 2, "pspnet": 0, "deeplabv3": 0}
"""What the decoders give, in pixels a cell; 0: that of the backbone's last level; 4 where not listed."""


@cache
def on_meta(name: str) -> Backbone:
    """A backbone of full size without memory or arithmetic: shapes are all that is looked at."""
    with torch.device("meta"):
        return TimmBackbone(**BACKBONES[name])


@cache
def shapes_of(name: str, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Of the maps that the network really makes of two images, however often they are asked for."""
    with torch.no_grad():
        return [tuple(x.shape) for x in on_meta(name)(torch.empty(2, 3, *size, device="meta"))]


class Replayed(Backbone):
    """Stands in for a backbone: maps of the shapes that it makes, without running it for every decoder."""

    def __init__(self, name: str) -> None:
        network = on_meta(name)
        super().__init__(network.channels, network.strides, name=network.name)
        self.key = name
        self.maps: list[Tensor] = []

    def features(self, images: Tensor) -> list[Tensor]:
        shapes = shapes_of(self.key, (int(images.shape[2]), int(images.shape[3])))
        self.maps = [torch.empty(shape, device="meta", requires_grad=True) for shape in shapes]
        return list(self.maps)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_table_says_which_decoders_fit(name: str) -> None:
    assert set(fitting(on_meta(name))) == WORKS[name]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", BACKBONES)
def test_each_pair_gives_its_size_and_reaches_every_parameter_or_is_refused(name: str, decoder: str) -> None:
    with torch.device("meta"):
        backbone = Replayed(name)
    if decoder not in WORKS[name]:
        with pytest.raises(UserError, match=rf"model.decoder='{decoder}' needs .*; {backbone.name} gives "):
            smp_decoder(backbone, 3, decoder=decoder)
        return
    with torch.device("meta"):
        model = smp_decoder(backbone, 3, decoder=decoder).train()
        images = torch.empty(2, 3, 250, 301)  # odd, and 8 cells of stride 32 once padded, which PAN needs
    output = model(images, [(250, 301)] * 2)
    last = backbone.strides[-1]
    multiple = 32 if last == 32 or (decoder == "dpt" and name != "ViT") else last
    height, width = (-(-side // multiple) * multiple for side in (250, 301))
    stride = OUTPUT_STRIDES.get(decoder, 4) or last
    assert output.size == (height, width)
    assert output.logits.shape == (2, 3, height // stride, width // stride)
    assert output.auxiliary is None
    output.logits.sum().backward()
    assert backbone.maps[-1].grad is not None
    unreached = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not unreached, "DistributedDataParallel would wait for these"


def test_inception_whose_maps_are_shifted_is_refused_with_every_decoder() -> None:
    """smp's own PSPNet on tu-inception_v3 gives a wrong size in silence."""
    with torch.device("meta"):
        backbone = TimmBackbone("inception_v3")
        assert set(fitting(backbone)) == PYRAMID
        for decoder in sorted(PYRAMID):
            model = smp_decoder(backbone, 3, decoder=decoder)
            with pytest.raises(UserError, match=r"inception_v3 makes maps of .* choose a padded network"):
                model(torch.empty(2, 3, 256, 256), [(256, 256)] * 2)


# ---- smp ----


def with_weights_of(theirs: nn.Module, ours: SMPDecoder) -> None:
    """Copy smp's weights. Our backbone is the same timm network under another name."""
    ours.backbone.body.load_state_dict(theirs.encoder.model.state_dict())  # type: ignore[union-attr]
    ours.decoder.load_state_dict(theirs.decoder.state_dict())  # type: ignore[union-attr]
    head = theirs.segmentation_head.state_dict()  # type: ignore[union-attr]
    ours.head.load_state_dict(head)


SMP = {
    "unet": ("Unet", 32, {}),
    "unetplusplus": ("UnetPlusPlus", 32, {}),
    "manet": ("MAnet", 32, {}),
    "linknet": ("Linknet", 32, {}),
    "fpn": ("FPN", 32, {"upsampling": 1}),
    "pspnet": ("PSPNet", 32, {"upsampling": 1, "encoder_depth": 5}),
    "pan": ("PAN", 16, {"upsampling": 1, "encoder_output_stride": 16}),
    "deeplabv3": ("DeepLabV3", 8, {"upsampling": 1, "encoder_output_stride": 8}),
    "deeplabv3plus": ("DeepLabV3Plus", 16, {"upsampling": 1, "encoder_output_stride": 16}),
    "upernet": ("UPerNet", 32, {"upsampling": 1}),
    "segformer": ("Segformer", 32, {"upsampling": 1}),
}


@pytest.mark.parametrize("decoder", SMP)
def test_with_its_weights_it_is_smps_model(decoder: str) -> None:
    import segmentation_models_pytorch as smp

    name, output_stride, arguments = SMP[decoder]
    torch.manual_seed(0)
    theirs = getattr(smp, name)("tu-test_resnet", encoder_weights=None, classes=3, **arguments).eval()
    strides = tuple(min(stride, output_stride) for stride in FIVE)
    backbone = TimmBackbone("test_resnet", output_stride=output_stride, out_strides=strides)
    rates = {"options": {"atrous_rates": (12, 24, 36)}} if decoder == "deeplabv3plus" else {}
    ours = smp_decoder(backbone, 3, decoder=decoder, **rates)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    with_weights_of(theirs, ours)
    ours.eval()
    images = noise_images(1, (128, 128))
    with torch.no_grad():
        found = ours(images, [(128, 128)]).logits
        expected = theirs(backbone.normalize(images))
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dpt_is_smps_without_class_tokens() -> None:
    import segmentation_models_pytorch as smp

    channels = (16, 24, 32)
    torch.manual_seed(0)
    backbone = TimmBackbone("test_vit")
    theirs = smp.DPT(
        "tu-test_vit",
        encoder_depth=3,
        encoder_weights=None,
        encoder_output_indices=[-3, -2, -1],
        decoder_readout="ignore",
        decoder_intermediate_channels=channels,
        decoder_fusion_channels=16,
        classes=3,
        dynamic_img_size=True,
    ).eval()
    ours = smp_decoder(
        backbone, 3, decoder="dpt", options={"intermediate_channels": channels, "fusion_channels": 16}
    ).eval()
    missing, _ = backbone.body.model.load_state_dict(theirs.encoder.model.state_dict(), strict=False)
    assert not missing
    ours.decoder.load_state_dict(theirs.decoder.state_dict())
    ours.head.load_state_dict(theirs.segmentation_head.state_dict())
    images = noise_images(1, (64, 96))
    with torch.no_grad():
        found = ours(images, [(64, 96)])
        expected = theirs(backbone.normalize(images))
    assert found.logits.shape == (1, 3, 32, 48)
    full = nn.functional.interpolate(found.logits, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(full, expected, rtol=1e-4, atol=1e-5)


def test_vgg_gets_smps_center_block_and_resnet_none() -> None:
    """Not with U-Net++, where smp 0.6 builds it and never runs it."""
    for name, decoder, expected in (("VGG", "unet", True), ("ResNet", "unet", False), ("VGG", "unetplusplus", False)):
        with torch.device("meta"):
            center = smp_decoder(Replayed(name), 3, decoder=decoder).decoder.get_submodule("center")
        assert isinstance(center, nn.Identity) != expected


def rates_of(model: SMPDecoder) -> list[int]:
    convolutions = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Conv2d)]
    return sorted({layer.dilation[0] for layer in convolutions} - {1})


@pytest.mark.parametrize("decoder", sorted(DEEPLAB))
def test_deeplabs_rates_follow_the_output_stride(decoder: str) -> None:
    """DeepLabv3, section 3.3: 6, 12, 18 at stride 16, doubled at 8."""
    with torch.device("meta"):
        coarse = smp_decoder(on_meta("ResNet, output stride 16"), 3, decoder=decoder)
        fine = smp_decoder(on_meta("ResNet, output stride 8"), 3, decoder=decoder)
        own = smp_decoder(on_meta("ResNet, output stride 8"), 3, decoder=decoder, options={"atrous_rates": (2, 3, 4)})
    assert [rates_of(model) for model in (coarse, fine, own)] == [[6, 12, 18], [12, 24, 36], [2, 3, 4]]


def test_pspnet_reads_the_last_level_that_the_backbone_builds() -> None:
    """smp's own PSPNet reads stride 8 of an undilated network."""
    with torch.device("meta"):
        model = smp_decoder(TimmBackbone("resnet10t", out_strides=[8]), 3, decoder="pspnet")
        assert model(torch.empty(2, 3, 60, 64), [(60, 64)] * 2).logits.shape == (2, 3, 8, 8)


# ---- the auxiliary head, learning ----


def test_an_auxiliary_head_runs_in_training_alone() -> None:
    model = smp_decoder(StagedBackbone(), 3, decoder="fpn", auxiliary=True, options={"segmentation_channels": 32})
    images = noise_images(2, (64, 64))
    output = model(images, [(64, 64)] * 2)
    assert output.auxiliary is not None
    assert output.auxiliary.shape == (2, 3, 4, 4)
    assert model.eval()(images, [(64, 64)] * 2).auxiliary is None


def test_four_images_are_learnt_by_heart() -> None:
    images, targets = drawn_scenes(4, (48, 64))
    torch.manual_seed(0)
    model = smp_decoder(StagedBackbone(), 3, options={"decoder_channels": (32, 16, 16, 8, 8)})
    learn(model, SegmentationCriterion(), images, targets, steps=60, lr=1e-2)
    assert mean_iou(predicted(model, images, targets), targets, 3) > 0.98


# ---- mistakes ----


@pytest.mark.parametrize("decoder", ["deeplabv3", "deeplabv3plus", "pan", "upernet"])
def test_one_image_alone_cannot_be_trained_where_a_norm_sees_one_cell(decoder: str) -> None:
    backbone = StagedBackbone((4, 8, 16, 16))
    model = smp_decoder(backbone, 3, decoder=decoder)
    images = noise_images(1, (128, 128))
    with pytest.raises(UserError, match="one image a process: raise loader"):
        model(images, [(128, 128)])
    assert model.eval()(images, [(128, 128)]).size == (128, 128)


def test_pan_says_how_large_images_must_be() -> None:
    model = smp_decoder(StagedBackbone(), 3, decoder="pan").eval()
    with pytest.raises(UserError, match="needs 8 cells of stride 32 on each side: 256 px or more"):
        model(noise_images(1, (224, 256)), [(224, 256)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"decoder": "U-net"}, "did you mean 'unet'"),
        ({"decoder": 3, "num_classes": 1, "auxiliary": "yes"}, "num_classes=1.*auxiliary='yes'.*decoder=3 is none of"),
        ({"decoder": "deeplabv3"}, "last level of stride 8 or 16; staged gives 4, 8, 16, 32: .*fits as it is: unet,"),
        ({"options": {"decoder_chanels": (1, 2)}}, "takes no 'decoder_chanels', did you mean 'decoder_channels'"),
        (
            {"options": {"n_blocks": 4, "encoder_channels": ()}},
            "n_blocks is given already, as 5; encoder_channels is given already",
        ),
        ({"decoder": "unetplusplus", "options": {"center": True}}, "center is given already, as False"),
        ({"options": "center"}, "options='center' must be a dict"),
        ({"options": {"decoder_channels": (8, 8)}}, r"UnetDecoder refuses .*but you provide `decoder_channels` for 2"),
        ({"decoder": "fpn", "options": {"segmentation_channels": 24}}, "FPNDecoder refuses"),
    ],
)
def test_mistakes_are_named(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        smp_decoder(StagedBackbone(), **{"num_classes": 3, **arguments})


@pytest.mark.parametrize("strides", [(4, 8, 16), (8, 16, 32), (4, 8, 16, 32, 64), (4, 16, 16, 16)])
def test_levels_that_do_not_fit_are_refused(strides: Sequence[int]) -> None:
    with pytest.raises(UserError, match=r"decoder='unet' needs levels of strides 4, 8, 16, 32 or 4, 8, 16, 16 or"):
        smp_decoder(StagedBackbone(strides, (16,) * len(strides)), 3)
