"""Mixed precision: the arithmetic in 16 bits, the weights in 32, and small gradients kept from vanishing.

Source: Micikevicius et al. 2018 (arXiv 1710.03740), as used by He et al. 2018, Bag of Tricks, section 3.2: float32
master weights and loss scaling. torch's autocast and GradScaler do the work. Of the two 16-bit formats only float16
needs the loss scaled; bfloat16 has float32's range. Mode "float32" is the baseline: plain torch, no scaler.

On a CPU without matrix units both 16-bit modes are 50 to 400 times slower than float32: there they serve tests only.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from transfer.types import UserError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class StepResult(NamedTuple):
    """What became of one optimizer step."""

    grad_norm: Tensor | None
    """Scalar: norm of all gradients before clipping; None where no clipping was asked for. Not finite where skipped."""
    skipped: bool
    """A gradient was not finite: the weights are unchanged; in float16, the scale was lowered. In other formats it is
    noticed only where gradients are clipped."""


class Precision:
    """The number format of a run: the forward pass, the backward pass and the optimizer step in it."""

    def __init__(
        self,
        mode: Literal["float32", "bfloat16", "float16"] = "float32",
        device_type: str = "cpu",
        *,
        init_scale: float = 65536.0,
    ) -> None:
        """
        Args:
            mode: the format of matrix products and convolutions.
            device_type: "cpu", "cuda", ... as in torch.device.type.
            init_scale: what float16 multiplies the loss by at first, above 0.

        Raises:
            UserError: the mode is unknown, or the device cannot run it (torch would warn and go on in float32).
        """
        if mode not in _DTYPES:
            near = difflib.get_close_matches(str(mode), _DTYPES, n=1)
            raise UserError(
                f"precision is {mode!r}; give one of {', '.join(_DTYPES)}" + (f" (nearest: {near[0]})" if near else "")
            )
        if not 0 < init_scale < float("inf"):
            raise UserError(f"init_scale is {init_scale!r}; give a number above 0, such as 65536")
        self.mode = mode
        self.device_type = device_type
        if mode != "float32":
            _refuse_unsupported(mode, device_type)
        scaled = mode == "float16"
        self.scaler = torch.amp.GradScaler(device_type if scaled else "cpu", init_scale=init_scale, enabled=scaled)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context for the forward pass and the loss; nothing at all in float32."""
        if self.mode == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=_DTYPES[self.mode])

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` (scalar) to the parameters, multiplied by the scale in float16."""
        self.scaler.scale(loss).backward()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        max_norm: float | None = None,
        parameters: Iterable[Tensor] | None = None,
    ) -> StepResult:
        """Unscale the gradients, clip them, take the step unless one is not finite, and adapt the scale.

        Args:
            optimizer: its gradients are those that `backward` left; setting them to None afterwards is the caller's.
            max_norm: clip the 2-norm of all gradients together to this, above 0; None: no clipping.
            parameters: whose gradients are clipped; None: those of the optimizer.

        Returns:
            The norm before clipping, of the true gradients, and whether the step was skipped.

        Raises:
            UserError: max_norm is not above 0.
        """
        grad_norm = None
        if max_norm is not None:
            if not max_norm > 0:
                raise UserError(f"max_norm is {max_norm!r}; give a number above 0, or None for no clipping")
            self.scaler.unscale_(optimizer)  # else the norm would be that of the scaled gradients
            if parameters is None:
                parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        if not self.scaler.is_enabled():
            if grad_norm is not None and not torch.isfinite(grad_norm):
                return StepResult(grad_norm, skipped=True)  # clipping would turn one infinity into NaN everywhere
            optimizer.step()
            return StepResult(grad_norm, skipped=False)
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return StepResult(grad_norm, skipped=self.scaler.get_scale() < scale)

    def state_dict(self) -> dict[str, Any]:
        """Plain types: the mode and, in float16, the scale and its counters."""
        return {"mode": self.mode, "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            UserError: it is of another mode, so the run would not go on as it began.
        """
        if state["mode"] != self.mode:
            raise UserError(
                f"the checkpoint was trained in {state['mode']}, this run's precision is {self.mode}: resume in "
                f"{state['mode']}, or start a new run from the checkpoint's weights"
            )
        self.scaler.load_state_dict(state["scaler"])


def _refuse_unsupported(mode: str, device_type: str) -> None:
    """Enter autocast once and see whether it is really on."""
    reason = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.autocast(device_type, dtype=_DTYPES[mode]):
                if torch.is_autocast_enabled(device_type):
                    return
            reason = "; ".join(str(warning.message) for warning in caught)
        except RuntimeError as error:
            reason = str(error)
    raise UserError(f"precision {mode} does not run on device {device_type!r}: {reason} Use float32 or another device.")
