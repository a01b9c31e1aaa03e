"""Algorithms that give the same bits every time: torch's switch, for as long as a run lasts.

On a CPU with a fixed number of threads nothing needs it. On a GPU, sums by atomic additions (the backward passes of
RoIAlign, bilinear interpolation, scatter and indexing) come out in another order each time; torch has slower exact
forms of most and raises an error, naming the operation, at the others. Unmeasured here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Exact algorithms alone, where wanted; before and after, whatever the process had.

    Args:
        wanted: False leaves everything as it is.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it; read at its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
