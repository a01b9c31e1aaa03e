"""What a network costs: multiply-adds of one image.

Source: torch's counter of operations (torch.utils.flop_counter), which knows convolutions, matrix products and
attention, and counts a multiply-add as two operations; papers (He et al. 2018, arXiv 1812.01187, table 5) count it as
one. Norms, activations and pooling are left out, as they are there.

It takes a tenth to half a second (NASNet-A-Large: a second and a half), too much for every checkpoint: `describe` of a
backbone leaves it out, and whoever writes a model's card calls this once.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from backbones.measuring import Size, eval_mode, run_on_meta


def multiply_adds(module: nn.Module, size: Size) -> int:
    """Multiply-adds of one image, without arithmetic where the module allows.

    Args:
        module: maps images [1, 3, H, W] to anything; is left as it was.
        size: (height, width) of the image, pixels.
    """
    with eval_mode(module), torch.no_grad():
        try:
            with FlopCounterMode(display=False) as counter:
                run_on_meta(module, size)
        except (NotImplementedError, RuntimeError, AttributeError):
            # As in backbones.measuring: some modules keep plain tensors, or use an operator without a meta form.
            like = next(module.parameters(), torch.empty(0))
            image = torch.zeros(1, 3, *size, device=like.device, dtype=like.dtype)
            with FlopCounterMode(display=False) as counter:
                module(image)
    return int(counter.get_total_flops()) // 2
