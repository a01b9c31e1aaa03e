"""Feature maps for heads that label every pixel: of images of any size, each map exactly the image's size / stride.

Images are padded at right and bottom, with the backbone's mean, to a multiple of the coarsest stride. torchvision's FCN
and its like do not pad but stretch the logits over the image. Where a network rounds its maps down (VGG, ConvNeXt), up
to a stride less one pixel at the edge would then never be looked at, and all the rest be labelled too far outside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backbones.contract import Backbone
from transfer.types import Size, UserError


def dense_features(backbone: Backbone, images: Tensor, *, multiple: int | None = None) -> tuple[list[Tensor], Size]:
    """The backbone's maps of padded images.

    Args:
        backbone: any.
        images: [B, 3, H, W] uint8, or floating in 0..255; RGB.
        multiple: of which height and width must be; None: of the backbone's coarsest stride.

    Returns:
        [B, channels[i], H' / strides[i], W' / strides[i]] a level, fine to coarse, and (H', W'), the padded size.

    Raises:
        UserError: a backbone whose maps are not of those sizes.
    """
    multiple = multiple or max(backbone.strides)
    height, width = int(images.shape[2]), int(images.shape[3])
    size = (height + -height % multiple, width + -width % multiple)
    if size != (height, width):
        color = torch.tensor(backbone.pad_value, dtype=images.dtype, device=images.device)
        padded = color.view(1, 3, 1, 1).repeat(len(images), 1, *size)
        padded[:, :, :height, :width] = images
        images = padded
    maps = backbone(images)
    found = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
    wanted = [(size[0] // stride, size[1] // stride) for stride in backbone.strides]
    if found != wanted:
        raise UserError(
            f"{backbone.name} makes maps of {_listed(found)} cells of a {size[0]}x{size[1]} px image where its strides "
            f"{', '.join(map(str, backbone.strides))} promise {_listed(wanted)}: its unpadded convolutions (Inception) "
            "would shift the labels; choose a padded network, such as a ResNet"
        )
    return maps, size


def _listed(sizes: list[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sizes)
