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
        Scalar float32 tensor without gradient.
    """
    total = torch.as_tensor(value, dtype=torch.float32, device=device).detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total
