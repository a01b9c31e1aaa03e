"""FCN against torchvision's, on odd images, with and without its auxiliary loss, and learning."""

from __future__ import annotations

import copy

import pytest
import torch
from detector_builders import noise_images
from segmentation_builders import StagedBackbone, drawn_scenes, learn, mask_target, mean_iou, predicted
from torch import Tensor, nn
from torchvision.models.segmentation import FCN_ResNet50_Weights, fcn_resnet50

from backbones.contract import WrappedBackbone, wrap
from backbones.timm_backbone import TimmBackbone
from transfer.heads.dense_features import dense_features
from transfer.heads.fcn import FCN, fcn
from transfer.heads.segmentation import SegmentationCriterion
from transfer.types import UserError


def sizes_of(images: Tensor) -> list[tuple[int, int]]:
    return [(int(images.shape[2]), int(images.shape[3]))] * len(images)


# ---- torchvision ----


def test_with_resnet50_it_is_torchvisions_model() -> None:
    torch.manual_seed(0)
    theirs = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    ours = fcn(TimmBackbone("resnet50", output_stride=8), 21)
    published = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["num_params"]
    assert sum(p.numel() for p in ours.parameters()) == published == 35_322_218
    ours.backbone.body.load_state_dict(theirs.backbone.state_dict())
    ours.head.load_state_dict(theirs.classifier.state_dict())
    assert ours.auxiliary_head is not None
    assert theirs.aux_classifier is not None
    ours.auxiliary_head.load_state_dict(theirs.aux_classifier.state_dict())
    ours.train(), theirs.train()
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout)):
            module.eval()  # training mode alone gives the auxiliary logits
    images = noise_images(1, (48, 64))
    with torch.no_grad():
        output = ours(images, sizes_of(images))
        expected = theirs(ours.backbone.normalize(images))
    assert output.size == (48, 64)
    assert output.logits.shape == (1, 21, 6, 8)
    assert output.auxiliary is not None
    for found, name in ((output.logits, "out"), (output.auxiliary, "aux")):
        upsampled = nn.functional.interpolate(found, size=(48, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(upsampled, expected[name], rtol=1e-4, atol=1e-4)


# ---- sizes ----


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (1, 1), (33, 95)])
@pytest.mark.parametrize("strides", [(4, 8, 8, 8), (4, 8, 16, 32)])
def test_any_image_gives_logits_that_cover_it(size: tuple[int, int], strides: tuple[int, ...]) -> None:
    model = fcn(StagedBackbone(strides), 5)
    images = noise_images(2, size)
    output = model(images, sizes_of(images))
    covered = tuple(-(-side // strides[-1]) * strides[-1] for side in size)
    assert output.size == covered
    assert output.logits.shape == (2, 5, covered[0] // strides[-1], covered[1] // strides[-1])
    assert output.auxiliary is not None
    assert output.auxiliary.shape == (2, 5, covered[0] // strides[-2], covered[1] // strides[-2])
    assert model.eval()(images, sizes_of(images)).auxiliary is None


class Patches(nn.Module):
    """Averages of 4x4 and then 2x2 cells, as ConvNeXt cuts them: rounds sizes down."""

    def forward(self, images: Tensor) -> list[Tensor]:
        first = nn.functional.avg_pool2d(images, 4)
        return [first, nn.functional.avg_pool2d(first, 2)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_network_that_rounds_down_sees_the_last_pixels_beside_the_padding_of_its_mean(dtype: torch.dtype) -> None:
    backbone = WrappedBackbone(Patches(), (3, 3), (4, 8), mean=(0.2, 0.4, 0.6), std=(1 / 255,) * 3)
    images = torch.zeros(1, 3, 9, 10)
    images[..., 8, :] = 200.0
    maps, size = dense_features(backbone, images.to(dtype))
    assert size == (16, 16)
    # the lower left cell of 8x8: one row of 200, the rest padding of 51, 102, 153, which is 0 once normalised
    expected = (torch.tensor([200.0 - 51, 200.0 - 102, 200.0 - 153])) / 8
    torch.testing.assert_close(maps[1][0, :, 1, 0], expected, rtol=1e-4, atol=1e-3)


def test_images_of_a_fitting_size_are_handed_on_untouched() -> None:
    seen = []
    backbone = WrappedBackbone(Patches(), (3, 3), (4, 8))
    backbone.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    images = noise_images(1, (16, 24))
    dense_features(backbone, images)
    assert seen[0] is images


def test_a_network_of_unpadded_convolutions_is_refused_where_it_would_shift_the_labels() -> None:
    unpadded = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, stride=2))
    model = fcn(wrap(unpadded, (8,), (4,)), 3, auxiliary=False)
    with pytest.raises(UserError, match=r"makes maps of 15x15 cells of a 64x64 px image .* promise 16x16.* padded"):
        model(noise_images(2, (64, 64)), [(64, 64)] * 2)


# ---- the auxiliary head ----


def trained(model: FCN, criterion: SegmentationCriterion) -> FCN:
    """Three steps with dropout on, its draw taken from the step's number as the engine does."""
    images, targets = drawn_scenes(2, (48, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for step in range(3):
        torch.manual_seed(step)
        losses = criterion(model(images, sizes_of(images), targets), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    return model


def tiny(auxiliary: bool) -> FCN:
    torch.manual_seed(7)
    return fcn(StagedBackbone((4, 8, 8), (8, 16, 16)), 3, auxiliary=auxiliary, dropout=0.5)


def test_no_auxiliary_head_equals_auxiliary_weight_zero_to_the_last_bit() -> None:
    without = trained(tiny(False), SegmentationCriterion())
    weightless = trained(tiny(True), SegmentationCriterion(auxiliary_weight=0))
    assert without.auxiliary_head is None
    theirs = weightless.state_dict()
    for name, value in without.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    start = tiny(False).state_dict()
    assert not torch.equal(start["head.0.weight"], theirs["head.0.weight"])
    with_loss = trained(tiny(True), SegmentationCriterion()).state_dict()
    assert not torch.equal(with_loss["backbone.stages.0.0.weight"], theirs["backbone.stages.0.0.weight"])


def test_with_weight_zero_every_parameter_still_has_a_gradient() -> None:
    """DistributedDataParallel waits for all of them."""
    model = trained(tiny(True), SegmentationCriterion(auxiliary_weight=0))
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.auxiliary_head is not None
    assert not any(parameter.grad.any() for parameter in model.auxiliary_head.parameters())  # type: ignore[union-attr]


def test_the_auxiliary_head_reads_the_level_before_the_last() -> None:
    model = fcn(StagedBackbone((4, 8, 16), (8, 12, 20)), 3)
    assert model.head[0].in_channels == 20  # type: ignore[index]
    assert model.auxiliary_head is not None
    assert model.auxiliary_head[0].in_channels == 12  # type: ignore[index]
    assert [layer.out_channels for layer in (model.head[0], model.auxiliary_head[0])] == [5, 3]  # type: ignore[index]


# ---- learning ----


def test_four_images_are_learnt_by_heart() -> None:
    images, targets = drawn_scenes(4, (48, 64))
    torch.manual_seed(0)
    model = fcn(StagedBackbone((4, 4), (16, 24)), 3, norm="group", width=32)
    before = mean_iou(predicted(copy.deepcopy(model), images, targets), targets, 3)
    learn(model, SegmentationCriterion(), images, targets, steps=120, lr=1e-2)
    assert before < 0.5
    assert mean_iou(predicted(model, images, targets), targets, 3) > 0.98


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 1}, "num_classes=1"),
        ({"num_classes": 256, "dropout": 1.0}, r"num_classes=256.*dropout=1\.0"),
        ({"norm": "frozen", "width": 0, "auxiliary": 1}, "auxiliary=1.*norm='frozen'.*width=0"),
        ({"norm": "group", "width": 24}, "width that is a multiple, not 24"),
    ],
)
def test_mistakes_are_named(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fcn(StagedBackbone(), **{"num_classes": 3, **options})


def test_an_auxiliary_head_needs_a_second_level() -> None:
    with pytest.raises(UserError, match=r"auxiliary=True needs a level before the last, staged gives one level alone"):
        fcn(StagedBackbone((8,), (16,)), 3)
    assert fcn(StagedBackbone((8,), (16,)), 3, auxiliary=False).auxiliary_head is None


def test_one_target_suffices_for_a_loss() -> None:
    model = fcn(StagedBackbone(), 3, norm="group", width=16)
    images, target = noise_images(1, (40, 50)), mask_target(torch.zeros(40, 50))
    losses = SegmentationCriterion()(model(images, [(40, 50)], [target]), [target])
    assert all(loss.isfinite() for loss in losses.values())
