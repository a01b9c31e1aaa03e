"""SSD: the model, and `ssd`, which joins it to a backbone.

Source: SSD (Liu et al. 2016, arXiv 1512.02325, sections 2.1 and 2.2) with the values of its released code: maps of the
backbone and of extra layers behind it, each with a 3x3 convolution to K + 1 class logits (softmax, background last) and
one to 4 offsets of every default box. The finest map is L2-normalised in each cell and scaled by a learned factor a
channel that starts at 20 (ParseNet, Liu et al. 2015, arXiv 1506.04579, section 3.2). SSD300 on VGG-16, with fc6 and fc7
thinned out to two convolutions, has 8732 default boxes and, for 20 classes, 26,285,486 parameters, as torchvision's.

On any other backbone the maps are its levels from stride 8 on, and behind the last one extra layers of stride 2, to as
many maps as there are lists of aspect ratios. Images may have any size; `DefaultBoxGenerator` says where the default
boxes then are.

Deviations: none of SSD300 on VGG-16 at 300 px. A map too small for one of its 3x3 convolutions without padding, which
the paper's fixed size never meets, is padded to 3 cells. Two options are not the paper's and matter on narrow backbones
(figures in configs/_base_/light_ssd_lite0.py): `l2_norm="all"`, because the maps of backbones whose blocks end without
an activation are of very different scales, and `head_std`, because Xavier's weights on a normalised map of 40 channels
give logits of standard deviation 3, so that the first steps go to undoing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.ops.anchors import DefaultBoxes, DefaultBoxGenerator
from transfer.types import Size, Target, UserError, is_number

BOX_CODE = (10.0, 10.0, 5.0, 5.0)
"""Factors on the offsets (dx, dy, dw, dh): one over the released code's variances of 0.1 and 0.2."""
ASPECT_RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
"""Of SSD300's six maps, besides 1; 2 stands for 2 and 1/2: 4, 6, 6, 6, 4 and 4 boxes a cell."""
EXTRA_WIDTHS = (512, 256, 256, 256)
"""Channels of conv8_2 to conv11_2; the 1x1 convolutions before them have half as many."""
L2_SCALE = 20.0
L2_NORMS = ("finest", "all", "none")


@dataclass(slots=True)
class SSDOutput:
    """Raw numbers of every default box."""

    logits: Tensor
    """[B, N, K + 1], background last."""
    deltas: Tensor
    """[B, N, 4]: offsets in `BOX_CODE`."""
    default_boxes: DefaultBoxes
    """The N boxes that the offsets are from, the same for every image of the batch."""


class L2Norm(nn.Module):
    """Each cell's features divided by their Euclidean norm, times a learned factor a channel.

    Args:
        channels: of the map.
        scale: what the factors start at.
    """

    def __init__(self, channels: int, scale: float = L2_SCALE) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [B, C, H, W]. Returns: the same shape, float32 at the least; a cell of zeros stays zero."""
        x = x.float() if x.element_size() < 4 else x
        return F.normalize(x, dim=1) * self.scale[:, None, None]


class DilatedFC(nn.Module):
    """VGG's fc6 and fc7 as convolutions, behind a fifth pooling that keeps the size of the map.

    Args:
        inputs: channels.
        width: channels of both convolutions.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.pool5 = nn.MaxPool2d(3, stride=1, padding=1)
        self.fc6 = nn.Conv2d(inputs, width, 3, padding=6, dilation=6)
        self.fc7 = nn.Conv2d(width, width, 1)
        _xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [B, inputs, H, W]. Returns: [B, width, H, W]."""
        return self.fc7(self.fc6(self.pool5(x)).relu()).relu()

    @torch.no_grad()
    def take_over(self, classifier: nn.Module) -> None:
        """Every so many-th channel and cell of pretrained layers, as in DeepLab (Chen et al. 2014, arXiv 1412.7062).

        Args:
            classifier: has fc1, a 7x7 convolution, and fc2, a 1x1 one.
        Raises:
            UserError: their channels are no multiples of this module's.
        """
        layers: list[nn.Conv2d] = [classifier.fc1, classifier.fc2]  # type: ignore[list-item]
        own = (self.fc6, self.fc7)
        if any(old.out_channels % new.out_channels for old, new in zip(layers, own)):
            widths = " and ".join(str(layer.out_channels) for layer in layers)
            raise UserError(f"model.fc_width={own[0].out_channels} must divide {widths}, the widths of fc6 and fc7")
        for new, old in zip(own, layers):
            rows, columns = (old_n // new_n for old_n, new_n in zip(old.weight.shape[:2], new.weight.shape[:2]))
            step = (old.kernel_size[0] - 1) // max(1, new.kernel_size[0] - 1) or 1  # 7 cells to 3: each third one
            new.weight.copy_(old.weight[::rows, ::columns, ::step, ::step])
            assert new.bias is not None
            assert old.bias is not None
            new.bias.copy_(old.bias[::rows])


class ExtraLayer(nn.Module):
    """A 1x1 convolution that halves the channels, and a 3x3 one that makes the next coarser map.

    Args:
        inputs: channels.
        width: channels of the map that comes out.
        padded: the 3x3 convolution has stride 2 and padding; otherwise neither: it cuts a cell off at each border.
    """

    def __init__(self, inputs: int, width: int, *, padded: bool = True) -> None:
        super().__init__()
        self.padded = padded
        self.narrow = nn.Conv2d(inputs, width // 2, 1)
        self.coarsen = nn.Conv2d(width // 2, width, 3, stride=2 if padded else 1, padding=1 if padded else 0)
        _xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [B, inputs, H, W]. Returns: [B, width, H', W']: half the cells, or two less, but at least 1."""
        x = self.narrow(x).relu()
        if not self.padded:
            x = F.pad(x, (0, max(0, 3 - x.shape[3]), 0, max(0, 3 - x.shape[2])))
        return self.coarsen(x).relu()


class SSDHead(nn.Module):
    """The two 3x3 output convolutions of each map.

    Args:
        channels: of each map.
        boxes_per_cell: of each map.
        num_classes: K.
        std: standard deviation of the first weights; None: Xavier's.
    """

    def __init__(
        self, channels: Sequence[int], boxes_per_cell: Sequence[int], num_classes: int, *, std: float | None = None
    ) -> None:
        super().__init__()

        def layers(numbers: int) -> nn.ModuleList:
            pairs = zip(channels, boxes_per_cell, strict=True)
            return nn.ModuleList(nn.Conv2d(inputs, boxes * numbers, 3, padding=1) for inputs, boxes in pairs)

        self.num_logits = num_classes + 1
        self.logits, self.deltas = layers(self.num_logits), layers(4)
        _xavier(self)
        if std is not None:
            for layer in (*self.logits, *self.deltas):
                nn.init.normal_(layer.weight, std=std)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Args: maps [B, C_i, H_i, W_i]. Returns: logits [B, N, K + 1] and deltas [B, N, 4] by map, cell, box."""

        def numbers(layers: nn.ModuleList, count: int) -> Tensor:
            parts = [
                layer(x).permute(0, 2, 3, 1) for layer, x in zip(layers, maps, strict=True)
            ]  # [B, H, W, A * count]
            return torch.cat([part.reshape(part.shape[0], -1, count) for part in parts], dim=1)

        return numbers(self.logits, self.num_logits), numbers(self.deltas, 4)


class SSD(nn.Module):
    """A one-stage detector from built parts.

    Args:
        backbone: gives the features.
        levels: which of the backbone's are read, fine to coarse.
        norms: one for each of `levels`: what its map goes through before the head and the extra layers.
        fc: what the last of these maps goes through before that; None: nothing.
        extras: layers that make one coarser map each, from the one before.
        head: maps to logits and deltas.
        default_boxes: of the levels' and the extra layers' maps.
    """

    def __init__(
        self,
        backbone: Backbone,
        levels: Sequence[int],
        *,
        norms: nn.ModuleList,
        fc: nn.Module | None,
        extras: nn.ModuleList,
        head: nn.Module,
        default_boxes: DefaultBoxGenerator,
    ) -> None:
        super().__init__()
        self.backbone, self.levels, self.norms, self.fc = backbone, tuple(levels), norms, fc
        self.extras, self.head, self.default_boxes = extras, head, default_boxes

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None) -> SSDOutput:
        """Raw numbers of every default box.

        Args:
            images: [B, 3, H, W] uint8, of any size.
            sizes: not read: nothing here depends on which part of an image is padding.
            targets: not read: the criterion does.
        """
        features = self.backbone(images)
        maps = [features[level] for level in self.levels]
        if self.fc is not None:
            maps[-1] = self.fc(maps[-1])
        maps = [norm(x) for norm, x in zip(self.norms, maps, strict=True)]
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        logits, deltas = self.head(maps)
        map_sizes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
        image_size = (int(images.shape[2]), int(images.shape[3]))
        return SSDOutput(logits, deltas, self.default_boxes(map_sizes, image_size, images.device))


def _xavier(module: nn.Module) -> None:
    """Xavier's uniform weights and biases of zero in every convolution, as in the released code."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def linear_scales(maps: int) -> tuple[float, ...]:
    """The paper's scales (section 3.1): 0.1 for the finest map, evenly from 0.2 to 0.9 for the others, and one beyond.

    The released code rounds the steps down to hundredths: 0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05 for six maps.

    Args:
        maps: how many maps.
    Returns:
        maps + 1 scales: sides of square default boxes in sides of the image; the last is needed for the larger square
        of the last map.
    """
    step = 0.7 / max(1, maps - 2)
    return (0.1, *(0.2 + step * level for level in range(maps)))


def _levels_of(backbone: Backbone, finest_stride: int) -> tuple[list[int], list[int]]:
    """Which of the backbone's levels are read, and their strides. Raises: UserError where the strides do not double."""
    given, strides = backbone.strides, [finest_stride]
    while strides[-1] < given[-1]:
        strides.append(2 * strides[-1])
    if any(stride not in given for stride in strides):
        raise UserError(
            f"SSD needs levels of stride {finest_stride} and of each doubling up to the last one, {given[-1]}; "
            f"{backbone.name} gives {', '.join(map(str, given))}: set model.finest_stride, or out_strides and "
            "output_stride on the backbone"
        )
    return [len(given) - 1 - given[::-1].index(stride) for stride in strides], strides


def _dilated_fc(backbone: Backbone, inputs: int, width: int) -> DilatedFC:
    """fc6 and fc7 on the backbone, from its pretrained ones where it has them, which then go."""
    for layer in backbone.modules():
        if isinstance(layer, nn.MaxPool2d) and not layer.padding:
            layer.ceil_mode = True  # 75 cells become 38, as with padded convolutions elsewhere, and not 37
    fc = DilatedFC(inputs, width)
    classifier = getattr(backbone, "classifier_layers", None)
    if classifier is not None:
        fc.take_over(classifier)
        backbone.classifier_layers = None  # type: ignore[assignment]  # 120 million numbers that nothing else uses
    return fc


def _problems(
    num_classes: int,
    image_size: int,
    aspect_ratios: Sequence[Sequence[float]],
    scales: Sequence[float] | None,
    finest_stride: int,
    l2_norm: str,
    fc_width: int | None,
    extra_widths: Sequence[int],
    head_std: float | None,
) -> list[str]:
    """What is wrong with the options of `ssd`, whatever the backbone."""

    def numbers(values: object, above: float) -> bool:
        return isinstance(values, (list, tuple)) and all(is_number(value) and value > above for value in values)

    problems = []
    if type(num_classes) is not int or num_classes < 1:
        problems.append(f"num_classes={num_classes!r}: a detector needs at least one class")
    for name, value in (("image_size", image_size), ("finest_stride", finest_stride)):
        if type(value) is not int or value < 1:
            problems.append(f"model.{name}={value!r} must be a whole number of pixels above 0")
    if (
        not isinstance(aspect_ratios, (list, tuple))
        or not aspect_ratios
        or not all(numbers(r, 1) for r in aspect_ratios)
    ):
        problems.append(
            f"model.aspect_ratios={aspect_ratios!r}: give a list for each map, such as [2, 3], of numbers above 1 (2 "
            "stands for 2 and 1/2; 1 is always there)"
        )
    elif scales is not None and (not numbers(scales, 0) or len(scales) != len(aspect_ratios) + 1):
        problems.append(
            f"model.scales={scales!r}: {len(aspect_ratios)} maps need {len(aspect_ratios) + 1} numbers above 0, one "
            "each and one more for the larger square of the last"
        )
    if l2_norm not in L2_NORMS:
        problems.append(f"model.l2_norm={l2_norm!r} is none of {', '.join(L2_NORMS)}")
    if fc_width is not None and (type(fc_width) is not int or fc_width < 1):
        problems.append(f"model.fc_width={fc_width!r} must be None or a whole number above 0")
    if not numbers(extra_widths, 0) or not extra_widths or any(type(w) is not int or w % 2 for w in extra_widths):
        problems.append(f"model.extra_widths={extra_widths!r} must be a list of even numbers above 0, at least one")
    if head_std is not None and (not is_number(head_std) or head_std <= 0):
        problems.append(f"model.head_std={head_std!r} must be None or a number above 0")
    return problems


def ssd(
    backbone: Backbone,
    num_classes: int,
    *,
    image_size: int = 300,
    aspect_ratios: Sequence[Sequence[float]] = ASPECT_RATIOS,
    scales: Sequence[float] | None = None,
    finest_stride: int = 8,
    l2_norm: str = "finest",
    fc_width: int | None = None,
    extra_widths: Sequence[int] = EXTRA_WIDTHS,
    unpadded_extras: int = 0,
    head_std: float | None = None,
) -> SSD:
    """SSD on any backbone whose levels from stride 8 (or 16) on double.

    Args:
        backbone: for SSD300 of the paper TimmBackbone "vgg16" with out_strides=[8, 16].
        num_classes: K, without the background.
        image_size: side in pixels of the images that `scales` are shares of; of other images, the geometric mean of
            height and width. Shapes that vary do not change the default boxes, see `DefaultBoxGenerator`.
        aspect_ratios: of each map, fine to coarse, above 1 and besides 1; 2 stands for 2 and 1/2. Their number is that
            of the maps.
        scales: sides of the square default boxes of each map in sides of the image, and one more; None: the paper's.
        finest_stride: of the first map; the backbone's levels from it on are used.
        l2_norm: which of the backbone's maps are L2-normalised: "finest", as in the paper, "all" or "none".
        fc_width: VGG's fc6 and fc7 as dilated convolutions of so many channels (1024 in the paper) on the last of the
            backbone's levels, its poolings rounding up, as Caffe's do. They start from the pretrained ones where the
            backbone has classifier_layers=True, else from random values. None: no such layers.
        extra_widths: channels of each extra layer's map; the last one goes for all further layers.
        unpadded_extras: so many of the last extra layers have neither stride nor padding: 2 in SSD300.
        head_std: standard deviation of the output layers' first weights; None: Xavier's, as in the released code.
    Raises:
        UserError: options out of range, or a backbone without these levels.
    """
    problems = _problems(
        num_classes, image_size, aspect_ratios, scales, finest_stride, l2_norm, fc_width, extra_widths, head_std
    )
    if problems:
        raise UserError("; ".join(problems))
    if fc_width is None and getattr(backbone, "classifier_layers", None) is not None:
        raise UserError(f"{backbone.name} has classifier_layers=True, of which only model.fc_width makes use: set it")
    levels, strides = _levels_of(backbone, finest_stride)
    extra_count = len(aspect_ratios) - len(levels)
    if extra_count < 0:
        raise UserError(
            f"model.aspect_ratios={aspect_ratios!r} is for {len(aspect_ratios)} maps, {backbone.name} alone gives "
            f"{len(levels)}, of strides {', '.join(map(str, strides))}: give a list for each (and for each extra layer)"
        )
    if type(unpadded_extras) is not int or not 0 <= unpadded_extras <= extra_count:
        raise UserError(
            f"model.unpadded_extras={unpadded_extras!r} must be a whole number from 0 to {extra_count}, the number of "
            f"extra layers: aspect_ratios is for {len(aspect_ratios)} maps, {len(levels)} are {backbone.name}'s"
        )
    channels = [backbone.channels[level] for level in levels]
    fc = None if fc_width is None else _dilated_fc(backbone, channels[-1], fc_width)
    if fc_width is not None:
        channels[-1] = fc_width
    normalized = {"finest": 1, "all": len(levels), "none": 0}[l2_norm]
    norms = nn.ModuleList(L2Norm(c) if level < normalized else nn.Identity() for level, c in enumerate(channels))
    widths = [*extra_widths[:extra_count], *[extra_widths[-1]] * (extra_count - len(extra_widths))]
    padded = extra_count - unpadded_extras
    extras = nn.ModuleList(
        ExtraLayer(inputs, width, padded=position < padded)
        for position, (inputs, width) in enumerate(zip([channels[-1], *widths], widths))
    )
    coarser = [strides[-1] * 2 ** (position + 1) for position in range(padded)]
    generator = DefaultBoxGenerator(
        [*strides, *coarser, *[None] * unpadded_extras],
        sides=[scale * image_size for scale in scales or linear_scales(len(aspect_ratios))],
        ratios=aspect_ratios,
    )
    head = SSDHead([*channels, *widths], generator.boxes_per_cell, num_classes, std=head_std)
    return SSD(backbone, levels, norms=norms, fc=fc, extras=extras, head=head, default_boxes=generator)
