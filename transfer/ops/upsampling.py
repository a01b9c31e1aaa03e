"""Bilinear upsampling as two matrix products.

Bilinear resizing is linear, and along height and width one after the other: out = down^T @ map @ across, with the two
matrices that torch's own one-dimensional kernel makes of the identity. Its two-dimensional kernels take several times
as long on a CPU where a map of some ten cells a side is upsampled sixteenfold, most of it in the backward pass; on CUDA
their backward pass adds up in no fixed order, which these products do not. Values agree to rounding. The cost of a
pixel grows with the cells of the map, so on a CPU torch's kernel takes the large maps.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.types import Size

_MOST_CELLS = 384
"""Height plus width of a map, where forward and backward pass by products and by torch's kernel take equally long."""


def upsample_bilinear(maps: Tensor, size: Size) -> Tensor:
    """Maps resized bilinearly, corners not aligned.

    Args:
        maps: [B, K, h, w] floating.
        size: (height, width) wanted, at least (h, w): where it is less, nothing is smoothed.
    Returns:
        [B, K, height, width] in float32 at the least, also under autocast; the maps as they are where they are of that
        size.
    """
    maps = maps.float() if maps.element_size() < 4 else maps
    height, width = size
    if tuple(maps.shape[2:]) == (height, width):
        return maps
    if maps.device.type == "cpu" and sum(maps.shape[2:]) > _MOST_CELLS:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    down = _matrix(int(maps.shape[2]), height, maps.dtype, maps.device)  # [h, height]
    across = _matrix(int(maps.shape[3]), width, maps.dtype, maps.device)  # [w, width]
    with torch.autocast(maps.device.type, enabled=False):
        return (down.T @ maps) @ across


@lru_cache(maxsize=32)
def _matrix(cells: int, pixels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[cells, pixels]: how much of each cell is in each pixel."""
    # Kept from call to call: made in inference mode it could not take part in training later.
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(cells, dtype=dtype, device=device)
        return F.interpolate(identity[None], size=pixels, mode="linear", align_corners=False)[0]
