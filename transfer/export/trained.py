"""What predicts: a checkpoint, or a file that was exported from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from transfer.engine.checkpoint import Checkpoint, load_checkpoint
from transfer.engine.distributed import choose_device
from transfer.export.fused import fused
from transfer.restoring import Restored, restore
from transfer.types import UserError


def open_trained(
    path: str | Path, device: str, *, trust: Sequence[str] = (), fuse: bool = False
) -> tuple[Checkpoint, Restored, torch.device]:
    """A checkpoint or an exported file, ready to predict, and where it does.

    Args:
        path: a file whose name ends in .onnx is an exported one.
        device: "auto", "cpu", "cuda", "cuda:N"; of an exported file "auto" or "cpu".
        trust: modules besides this project's that its config may name.
        fuse: whether a checkpoint's batch norms are folded into convolutions; an exported file's are.
    Raises:
        UserError: it cannot be used.
    """
    if Path(path).suffix.lower() != ".onnx":
        checkpoint, where = load_checkpoint(path), choose_device(device)
        restored = restore(checkpoint, where, trust=trust)
        if fuse:
            restored.task.model = fused(restored.task.model)
        return checkpoint, restored, where
    if device not in ("auto", "cpu"):
        raise UserError(
            f"--device {device}: an exported file runs on the CPU here; give the checkpoint, or leave it out"
        )
    from transfer.export.session import restore_exported

    return *restore_exported(path, trust=trust), torch.device("cpu")
