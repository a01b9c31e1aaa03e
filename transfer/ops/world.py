"""The mean of a count over the processes of a run, for normalisers of losses.

DistributedDataParallel averages gradients over processes. Two processes then equal one only where each divides its sum
of losses by the same number: the mean over processes of the count.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_processes(value: float | Tensor, device: torch.device) -> Tensor:
    """The value averaged over all processes; itself where there is one process.

    Args:
        value: a count of this process.
        device: where the result is wanted.
    Returns:
        Scalar tensor without gradient: float64 where the value is such a tensor, else float32.
    """
    # Summed in float64: in float32 the sum would depend on how the images are shared out.
    total = torch.as_tensor(value, device=device).detach().to(torch.float64, copy=True)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
        total /= dist.get_world_size()
    is_double = isinstance(value, Tensor) and value.dtype == torch.float64
    return total if is_double else total.float()
