"""The model: the published number of parameters, order and meaning of its numbers, sizes and options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detector_builders import TinyBackbone, noise_images
from torch import Tensor, nn

from backbones.contract import Backbone
from backbones.named import NamedBackbone
from transfer.heads.yolov3 import ANCHORS, YOLOv3, yolov3
from transfer.types import UserError


def tiny_yolo(num_classes: int = 3, *, seed: int = 0, **options: Any) -> YOLOv3:
    torch.manual_seed(seed)
    return yolov3(TinyBackbone(), num_classes, **{"width": 0.1, "norm": "group", **options})


def run(model: nn.Module, images: Tensor) -> Tensor:
    return model(images, [images.shape[-2:]] * len(images)).raw


@pytest.mark.parametrize(("num_classes", "parameters"), [(80, 61_949_149), (20, 61_626_049)])
def test_darknet53_has_the_published_number_of_parameters(num_classes: int, parameters: int) -> None:
    with torch.device("meta"):
        model = yolov3(NamedBackbone("darknet53"), num_classes)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters
    assert all(p.requires_grad for p in model.parameters())
    # 80 classes less 20, on nine anchors: three 1x1 convolutions on 256, 512 and 1024 channels.
    assert 61_949_149 - 61_626_049 == 60 * 3 * (256 + 512 + 1024 + 3)


def test_darknet53_reads_the_levels_of_stride_8_16_and_32() -> None:
    with torch.device("meta"):
        model = yolov3(NamedBackbone("darknet53"), 20)
        output = model(torch.zeros((2, 3, 416, 416), dtype=torch.uint8), [(416, 416)] * 2)
    assert [model.backbone.strides[level] for level in model.levels] == [8, 16, 32]
    assert output.raw.shape == (2, 10647, 25)  # the paper: (52^2 + 26^2 + 13^2) * 3
    assert output.grid.map_sizes == ((52, 52), (26, 26), (13, 13))


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (64, 160)])
def test_any_multiple_of_32(size: tuple[int, int]) -> None:
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32))
    output = tiny_yolo()(noise_images(2, size), [size] * 2)
    assert output.raw.shape == (2, 3 * cells, 8)
    assert len(output.grid.slots) == 3 * cells


def test_other_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"96x100 px; .*nearest are 96 and 96"):
        run(tiny_yolo(), noise_images(1, (96, 100)))


@pytest.mark.parametrize(("level", "row", "column", "anchor"), [(0, 3, 5, 0), (0, 0, 2, 1), (1, 2, 1, 2), (2, 1, 0, 1)])
def test_numbers_stand_where_the_grid_says(level: int, row: int, column: int, anchor: int) -> None:
    model = tiny_yolo(2)
    size, stride = (64, 96), (8, 16, 32)[level]
    for index, layer in enumerate(model.head.outputs):
        assert isinstance(layer, nn.Conv2d)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        if index == level:  # the anchor's seven numbers are 1 to 7 times the first channel
            layer.weight.data[anchor * 7 : anchor * 7 + 7, 0, 0, 0] = torch.arange(1.0, 8.0)
    maps = [torch.zeros(2, c, size[0] // s, size[1] // s) for c, s in zip(model.neck.channels, (8, 16, 32))]
    maps[level][1, 0, row, column] = 1  # in the second image
    raw = model.head(maps)
    (place,) = raw[1].any(dim=1).nonzero().flatten().tolist()
    assert raw[1, place].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert torch.count_nonzero(raw) == 7
    slots = model(noise_images(2, size), [size] * 2).grid.slots
    assert slots.cells[place].tolist() == [column, row]
    assert slots.strides[place].item() == stride
    assert tuple(slots.anchors[place].tolist()) == ANCHORS[level][anchor]


def test_fine_levels_see_coarse_ones_and_not_the_other_way_round() -> None:
    neck = tiny_yolo().neck.eval()
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn((1, c, 12 // s, 16 // s), generator=generator) for c, s in ((12, 1), (16, 2), (16, 4))]
    before = neck(features)
    for changed in range(3):
        others = [x + (index == changed) for index, x in enumerate(features)]
        same = [torch.equal(a, b) for a, b in zip(before, neck(others))]
        assert same == [index > changed for index in range(3)]


def test_the_neck_is_the_papers() -> None:
    with torch.device("meta"):
        neck = yolov3(NamedBackbone("darknet53"), 20).neck
    for body, tip, inputs, width in zip(neck.bodies, neck.tips, (256 + 128, 512 + 256, 1024), (128, 256, 512)):
        layers = [layer[0] for layer in body]
        assert [layer.kernel_size for layer in layers] == [(1, 1), (3, 3)] * 2 + [(1, 1)]
        assert [layer.in_channels for layer in layers] == [inputs, width, 2 * width, width, 2 * width]
        assert [layer.out_channels for layer in layers] == [width, 2 * width, width, 2 * width, width]
        assert (tip[0].kernel_size, tip[0].out_channels) == ((3, 3), 2 * width)
        assert isinstance(body[0][1], nn.BatchNorm2d)
        assert body[0][2].negative_slope == 0.1
    assert [layer[0].in_channels for layer in neck.laterals] == [256, 512]
    assert [layer[0].out_channels for layer in neck.laterals] == [128, 256]


@pytest.mark.parametrize(("depth", "kernels"), [(1, [1]), (3, [1, 3, 1])])
def test_a_neck_of_fewer_convolutions(depth: int, kernels: list[int]) -> None:
    model = tiny_yolo(depth=depth)
    for body in model.neck.bodies:
        assert [layer[0].kernel_size[0] for layer in body] == kernels
    assert model(noise_images(1, (64, 64)), [(64, 64)]).raw.shape[1] == 3 * (64 + 16 + 4)


def test_an_untrained_head_says_its_prior() -> None:
    raw = run(tiny_yolo(), noise_images(2))
    torch.testing.assert_close(torch.sigmoid(raw[..., 4]).mean(), torch.tensor(0.01), rtol=0.1, atol=0)
    torch.testing.assert_close(raw[..., [0, 1, 2, 3, 5, 6, 7]].mean(), torch.tensor(0.0), rtol=0, atol=0.02)
    even = run(tiny_yolo(objectness_prior=0.5), noise_images(2))
    torch.testing.assert_close(torch.sigmoid(even[..., 4]).mean(), torch.tensor(0.5), rtol=0.05, atol=0)


def test_width_norm_and_anchors_reach_the_parts() -> None:
    anchors = [[[10, 20]], [[30, 40], [40, 30]], [[90, 90]]]
    model = tiny_yolo(4, width=0.25, anchors=anchors)
    assert model.neck.channels == (64, 128, 256)
    assert [layer.out_channels for layer in model.head.outputs] == [9, 18, 9]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.neck.modules())
    groups = {norm.num_channels // norm.num_groups for norm in model.neck.modules() if isinstance(norm, nn.GroupNorm)}
    assert groups == {16}
    assert len(model(noise_images(1, (64, 64)), [(64, 64)]).grid.slots) == 64 + 2 * 16 + 4
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in tiny_yolo(norm="batch").neck.modules())


def test_an_image_is_seen_the_same_alone_and_in_a_batch() -> None:
    model, images = tiny_yolo().eval(), noise_images(3)
    together = run(model, images)
    for image in range(3):
        alone = run(model, images[image : image + 1])
        torch.testing.assert_close(alone[0], together[image], rtol=0, atol=1e-5)


def test_impossible_options_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        tiny_yolo(0, width=0, depth=2, norm="frozen", objectness_prior=1)
    for part in ("num_classes=0", "model.width=0", "model.depth=2", "model.norm='frozen'", "model.objectness_prior=1"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="3 levels, fine to coarse"):
        tiny_yolo(anchors=[[10, 13], [16, 30]])


@pytest.mark.parametrize("strides", [(4, 8, 16), (8, 16, 32, 64), (8, 32)])
def test_a_backbone_without_the_three_strides_is_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"strides 8, 16, 32 .*out_strides=\[8, 16, 32\]"):
        yolov3(Backbone([8] * len(strides), strides), 3)


def test_a_backbone_whose_maps_are_too_small_is_refused() -> None:
    class Unpadded(TinyBackbone):
        def features(self, images: Tensor) -> list[Tensor]:
            return [x[..., :-1] for x in super().features(images)]

    with pytest.raises(UserError, match="tiny makes maps of"):
        run(yolov3(Unpadded(), 3, width=0.1, norm="group"), noise_images(1))
