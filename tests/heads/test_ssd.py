"""The model: its maps and boxes on several backbones, order and meaning of its numbers, sizes and options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detector_builders import TinyBackbone, noise_images
from torch import Tensor, nn

from backbones.contract import Backbone
from backbones.named import NamedBackbone
from backbones.timm_backbone import TimmBackbone
from transfer.heads.ssd import SSD, DilatedFC, ExtraLayer, L2Norm, ssd
from transfer.types import UserError

FOUR_MAPS = [[2], [2, 3], [2], [2]]


def tiny_ssd(num_classes: int = 3, *, seed: int = 0, **options: Any) -> SSD:
    """Three levels of the backbone and one extra layer."""
    torch.manual_seed(seed)
    settings = {"image_size": 96, "aspect_ratios": FOUR_MAPS, "extra_widths": [32], **options}
    return ssd(TinyBackbone(), num_classes, **settings)


def run(model: nn.Module, images: Tensor) -> Any:
    return model(images, [images.shape[-2:]] * len(images))


def maps_of(model: SSD, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) in cells of every map."""
    seen: list[tuple[int, int]] = []
    hook = model.head.register_forward_pre_hook(
        lambda module, inputs: seen.extend(tuple(x.shape[2:]) for x in inputs[0])
    )
    run(model, noise_images(1, size))
    hook.remove()
    return seen


@pytest.mark.parametrize(("name", "channels"), [("resnet50d", 2048), ("darknet53", 1024)])
def test_other_backbones_give_three_maps_and_three_extra_layers_the_rest(name: str, channels: int) -> None:
    with torch.device("meta"):
        model = ssd(NamedBackbone(name), 20)
        output = run(model, torch.zeros((2, 3, 320, 320), dtype=torch.uint8))
    assert [model.backbone.strides[level] for level in model.levels] == [8, 16, 32]
    assert [extra.narrow.in_channels for extra in model.extras] == [channels, 512, 256]
    assert [extra.coarsen.stride for extra in model.extras] == [(2, 2)] * 3
    assert len(output.default_boxes) == 40**2 * 4 + (20**2 + 10**2 + 5**2) * 6 + (3**2 + 2**2) * 4
    assert output.logits.shape == (2, len(output.default_boxes), 21)
    assert output.deltas.shape == (2, len(output.default_boxes), 4)


def test_a_level_of_stride_8_is_optional() -> None:
    model = tiny_ssd(finest_stride=16)
    assert [model.backbone.strides[level] for level in model.levels] == [16, 32]
    assert maps_of(model, (64, 96)) == [(4, 6), (2, 3), (1, 2), (1, 1)]
    assert maps_of(tiny_ssd(finest_stride=4, aspect_ratios=[[2]] * 4), (64, 96)) == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_of_several_levels_of_one_stride_the_deepest_is_read() -> None:
    with torch.device("meta"):
        model = ssd(NamedBackbone("resnet50d", output_stride=16), 20)
    assert model.backbone.strides == (4, 8, 16, 16)
    assert model.levels == (1, 3)
    assert len(model.extras) == 4


@pytest.mark.parametrize("size", [(96, 128), (33, 47), (8, 8), (1, 200)])
@pytest.mark.parametrize("unpadded", [0, 1])
def test_images_of_any_size(size: tuple[int, int], unpadded: int) -> None:
    output = run(tiny_ssd(unpadded_extras=unpadded), noise_images(2, size))
    assert output.logits.shape == (2, len(output.default_boxes), 4)
    assert output.deltas.shape == (2, len(output.default_boxes), 4)
    boxes = output.default_boxes.boxes
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    height, width = size
    assert (output.default_boxes.corners < torch.tensor([width, height])).all()  # every cell holds a pixel


def test_sizes_that_vary_change_where_default_boxes_stand_and_not_how_large_they_are() -> None:
    model = tiny_ssd()
    sides = []
    for size in ((64, 64), (96, 128), (64, 64)):
        boxes = run(model, noise_images(1, size)).default_boxes.boxes
        sides.append({tuple(row) for row in (boxes[:, 2:] - boxes[:, :2]).mul(100).round().tolist()})
    assert sides[0] == sides[1] == sides[2]
    assert len(sides[0]) == 4 + 6 + 4 + 4


@pytest.mark.parametrize(("level", "row", "column", "box"), [(0, 3, 5, 0), (0, 0, 2, 3), (1, 2, 1, 5), (3, 1, 0, 1)])
def test_numbers_stand_where_the_default_boxes_are(level: int, row: int, column: int, box: int) -> None:
    model, size = tiny_ssd(2), (64, 96)
    maps = [(8, 12), (4, 6), (2, 3), (1, 2)] if level < 3 else [(8, 12), (4, 6), (2, 3), (2, 3)]
    for branch, numbers in ((model.head.logits, 3), (model.head.deltas, 4)):
        for index, layer in enumerate(branch):
            assert isinstance(layer, nn.Conv2d)
            nn.init.zeros_(layer.weight)
            if index == level:  # the box's numbers are 1, 2, 3 (and 4) times the first channel
                layer.weight.data[box * numbers : (box + 1) * numbers, 0, 1, 1] = torch.arange(1.0, numbers + 1)
    channels = [layer.in_channels for layer in model.head.logits]
    assert channels == [12, 16, 16, 32]
    inputs = [torch.zeros(2, c, *cells) for c, cells in zip(channels, maps)]
    inputs[level][1, 0, row, column] = 1  # in the second image
    logits, deltas = model.head(inputs)
    (place,) = logits[1].any(dim=1).nonzero().flatten().tolist()
    assert logits[1, place].tolist() == [1, 2, 3]
    assert deltas[1, place].tolist() == [1, 2, 3, 4]
    assert torch.count_nonzero(logits) + torch.count_nonzero(deltas) == 7
    stride = (8, 16, 32, 64)[level]
    defaults = model.default_boxes(maps, size, torch.device("cpu"))
    middle = (defaults.boxes[place, :2] + defaults.boxes[place, 2:]) / 2
    torch.testing.assert_close(middle, torch.tensor([(column + 0.5) * stride, (row + 0.5) * stride]))
    side = 96 * (0.1, 0.2, 0.55, 0.9)[level]
    width, height = (defaults.boxes[place, 2:] - defaults.boxes[place, :2]).tolist()
    ratio = {0: 1, 1: 1, 2: 2, 3: 0.5, 4: 3, 5: 1 / 3}[box]
    assert width / height == pytest.approx(ratio, rel=1e-4)
    if box != 1:
        assert width * height == pytest.approx(side**2, rel=1e-4)


def test_l2_norm_by_hand() -> None:
    layer = L2Norm(2)
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])  # cells (3, 4) and (0, 0)
    torch.testing.assert_close(layer(x), torch.tensor([[[[12.0, 0.0]], [[16.0, 0.0]]]]))
    torch.testing.assert_close(layer(100 * x), layer(x))
    layer.scale.data = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(layer(x)[0, :, 0, 0], torch.tensor([0.6, 1.6]))
    assert layer(x.half()).dtype == torch.float32  # the squares of large features overflow in half precision
    assert layer(300 * x.half()).isfinite().all()


@pytest.mark.parametrize(("choice", "count"), [("finest", 1), ("all", 3), ("none", 0)])
def test_which_maps_are_l2_normalised(choice: str, count: int) -> None:
    model = tiny_ssd(l2_norm=choice)
    assert [isinstance(norm, L2Norm) for norm in model.norms] == [True] * count + [False] * (3 - count)
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    run(model, noise_images(1))
    norms = [bool(((x.norm(dim=1) - 20).abs() < 1e-2).all()) for x in seen[:3]]
    assert norms == [True] * count + [False] * (3 - count)


def test_extra_layers_are_the_paper_s() -> None:
    padded, unpadded = ExtraLayer(6, 8), ExtraLayer(6, 8, padded=False)
    assert padded.narrow.kernel_size == (1, 1)
    assert (padded.narrow.out_channels, padded.coarsen.in_channels, padded.coarsen.out_channels) == (4, 4, 8)
    for cells, half in ((19, 10), (10, 5), (5, 3), (2, 1), (1, 1)):
        assert padded(torch.rand(1, 6, cells, cells)).shape == (1, 8, half, half)
    for cells, less in ((5, 3), (3, 1), (2, 1), (1, 1)):
        assert unpadded(torch.rand(1, 6, cells, cells + 1)).shape == (1, 8, less, max(1, cells - 1))


def test_how_the_output_layers_start() -> None:
    for std in (None, 0.01):
        head = tiny_ssd(20, extra_widths=[64], head_std=std).head
        for layer in (*head.logits, *head.deltas):
            assert not layer.bias.any()
            fans = 9 * (layer.in_channels + layer.out_channels)
            expected = (2 / fans) ** 0.5 if std is None else std  # Xavier: variance 2 / (fan in + fan out)
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert (layer.weight.abs().max() > 2.5 * expected) == (std is not None)  # uniform or normal


def test_an_image_is_seen_the_same_alone_and_in_a_batch() -> None:
    model, images = tiny_ssd().eval(), noise_images(3)
    together = run(model, images)
    for image in range(3):
        alone = run(model, images[image : image + 1])
        torch.testing.assert_close(alone.logits[0], together.logits[image], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.deltas[0], together.deltas[image], rtol=1e-4, atol=1e-4)


# ---- VGG's fc6 and fc7 ----


def small_vgg(**options: Any) -> TimmBackbone:
    return TimmBackbone("vgg11", out_strides=[8, 16], model_options={"mlp_ratio": 1 / 64}, **options)


def test_pretrained_fc6_and_fc7_are_thinned_out() -> None:
    torch.manual_seed(0)
    backbone = small_vgg(classifier_layers=True)
    old = backbone.classifier_layers
    assert old is not None
    for layer in (old.fc1, old.fc2):
        nn.init.normal_(layer.bias)
    assert (old.fc1.out_channels, old.fc2.out_channels) == (64, 4096)
    fc = ssd(backbone, 3, fc_width=16).fc
    assert isinstance(fc, DilatedFC)
    for out in (0, 5, 15):
        assert fc.fc6.bias[out] == old.fc1.bias[4 * out]  # every 4th of 64
        assert fc.fc7.bias[out] == old.fc2.bias[256 * out]  # every 256th of 4096
        for row, column in ((0, 0), (1, 2), (2, 2)):  # cells 0, 3 and 6 of seven
            assert torch.equal(fc.fc6.weight[out, :, row, column], old.fc1.weight[4 * out, :, 3 * row, 3 * column])
        assert torch.equal(fc.fc7.weight[out, :, 0, 0], old.fc2.weight[256 * out, ::4, 0, 0])
    assert fc.fc6.dilation == fc.fc6.padding == (6, 6)
    assert backbone.classifier_layers is None
    assert all(parameter.requires_grad for parameter in fc.parameters())


def test_a_width_that_does_not_divide_them_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.fc_width=24 must divide 64 and 4096"):
        ssd(small_vgg(classifier_layers=True), 3, fc_width=24)


def test_classifier_layers_that_nothing_uses_are_refused() -> None:
    with pytest.raises(UserError, match=r"classifier_layers=True.*model\.fc_width"):
        ssd(small_vgg(classifier_layers=True), 3)


def test_poolings_round_up_as_caffe_s_do() -> None:
    with torch.device("meta"):
        model = ssd(small_vgg(), 3, fc_width=32)
        features = model.backbone(torch.zeros((1, 3, 300, 300), dtype=torch.uint8))
        assert [tuple(x.shape[2:]) for x in features] == [(38, 38), (19, 19)]
        plain = small_vgg()(torch.zeros((1, 3, 300, 300), dtype=torch.uint8))
    assert [tuple(x.shape[2:]) for x in plain] == [(37, 37), (18, 18)]


# ---- mistakes ----


def test_impossible_options_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        tiny_ssd(0, image_size=0, scales=[0.1, 0.2], finest_stride="8", l2_norm="first", fc_width=0, head_std=0)
    for part in (
        "num_classes=0",
        "model.image_size=0",
        "model.scales=[0.1, 0.2]: 4 maps need 5",
        "model.finest_stride='8'",
        "model.l2_norm='first'",
        "model.fc_width=0",
        "model.head_std=0",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("wrong", [[], [2, 3], [[2], [0.5]], [[2], [1]], "23", [[2], ["3"]]])
def test_aspect_ratios_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"model\.aspect_ratios=.*a list for each map"):
        tiny_ssd(aspect_ratios=wrong)


@pytest.mark.parametrize("wrong", [[], [33], ["64"], 64, [64.0]])
def test_extra_widths_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"model\.extra_widths=.*even numbers above 0"):
        tiny_ssd(extra_widths=wrong)


def test_fewer_lists_of_ratios_than_levels_are_refused() -> None:
    with pytest.raises(UserError, match=r"\[\[2\], \[2\]\] is for 2 maps, tiny alone gives 3, of strides 8, 16, 32"):
        tiny_ssd(aspect_ratios=[[2], [2]])


@pytest.mark.parametrize("wrong", [2, -1, 0.5])
def test_more_unpadded_layers_than_there_are_extra_ones_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=f"unpadded_extras={wrong} must be a whole number from 0 to 1"):
        tiny_ssd(unpadded_extras=wrong)


@pytest.mark.parametrize("strides", [(16, 32), (8, 32), (4, 8, 24), (4,)])
def test_a_backbone_without_these_strides_is_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"stride 8 and of each doubling .*model.finest_stride, or out_strides"):
        ssd(Backbone([8] * len(strides), strides), 3)
