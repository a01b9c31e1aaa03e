"""Cross entropy against labels, smoothed labels or probabilities: the one place where labels are smoothed.

Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7; He et al. 2018, Bag of Tricks (arXiv 1812.01187), section
5.2. The two forms in use, for K classes and smoothing e:

    usual   1 - e + e / K for the true class, e / K for each other one (Szegedy; also the BoT authors' script and torch)
    paper   1 - e for the true class, e / (K - 1) for each other one (BoT, equation 4)

The usual form with e is the paper's form with e * (K - 1) / K. With one class there is nothing to smooth: both leave 1.
Smoothing applied to probabilities is the mixture of the smoothed one-hot targets of each class, so it commutes with
mixing two images' labels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from transfer.types import UserError

_NO_LABEL = -(2**62)  # torch ignores -100 unless told otherwise: a stray -100 must be an error, not silence


def soft_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    form: Literal["usual", "paper"] = "usual",
    weights: Tensor | None = None,
    reduction: Literal["sum", "none", "mean"] = "sum",
    ignore_index: int | None = None,
) -> Tensor:
    """Cross entropy of softmax(logits) with labels, smoothed or soft.

    Args:
        logits: [N, K] or [N, K, ...] float: the classes on axis 1.
        labels: [N] or [N, ...] int64 in [0, K), or probabilities of the logits' shape, each row summing to 1.
        smoothing: e of the module's docstring, in [0, 1). 0 is plain cross entropy, torch's bit for bit.
        form: which smoothed target.
        weights: of the shape of the losses ([N] or [N, ...]), at least 0; each multiplies its row's loss. None: all 1.
        reduction: "sum" leaves the normaliser to the caller. "mean" divides by the number of rows that are not ignored,
            whatever their weights (0 where there is none); "none" gives one loss a row.
        ignore_index: rows of this label have loss 0 and no gradient.

    Returns:
        Scalar, or [N] / [N, ...] for reduction "none".

    Raises:
        UserError: smoothing, form, reduction or ignore_index is not as said above.
    """
    soft = labels.is_floating_point()
    _refuse_bad_options(smoothing, form, reduction, soft, ignore_index)
    ignored = _NO_LABEL if ignore_index is None else ignore_index
    kept = None if ignore_index is None else labels != ignore_index
    classes = logits.shape[1]
    if smoothing == 0 or classes == 1:
        # Summing inside torch's kernel keeps "off" equal to the baseline to the last bit.
        inner: Literal["sum", "none"] = "none" if weights is not None or reduction == "none" else "sum"
        loss = functional.cross_entropy(logits, labels, reduction=inner, ignore_index=ignored)
    else:
        loss = _smoothed(logits, labels, kept, smoothing, form)
    if weights is not None:
        assert weights.shape == loss.shape, f"weights {tuple(weights.shape)} for losses {tuple(loss.shape)}"
        loss = loss * weights
    if reduction == "none":
        return loss
    loss = loss.sum()
    if reduction == "sum":
        return loss
    if kept is None:
        return loss / max(1, logits.numel() // max(1, classes))
    return loss / kept.sum().clamp(min=1)


def smoothed_probabilities(
    probabilities: Tensor, *, smoothing: float, form: Literal["usual", "paper"] = "usual"
) -> Tensor:
    """Smoothed targets themselves, for losses that are no cross entropy of a softmax.

    Args:
        probabilities: [N, K], each row summing to 1.
        smoothing: e of the module's docstring, in [0, 1). 0 gives the probabilities as they are.
        form: which smoothed target.

    Returns:
        [N, K], each row summing to 1.

    Raises:
        UserError: smoothing or form is not as said above.
    """
    _refuse_bad_options(smoothing, form, "none", soft=True, ignore_index=None, caller="smoothed_probabilities")
    classes = probabilities.shape[1]
    if smoothing == 0 or classes == 1:
        return probabilities
    on, off = _on_and_off(classes, smoothing, form)
    return off + (on - off) * probabilities


def _on_and_off(classes: int, smoothing: float, form: str) -> tuple[float, float]:
    """What the true class gets, and each other one."""
    off = smoothing / (classes if form == "usual" else classes - 1)
    return 1 - off * (classes - 1), off


def _smoothed(logits: Tensor, labels: Tensor, kept: Tensor | None, smoothing: float, form: str) -> Tensor:
    """One loss a row against the smoothed target, which is never built: it is `on` for the label, `off` elsewhere."""
    on, off = _on_and_off(logits.shape[1], smoothing, form)
    log_probabilities = functional.log_softmax(logits, dim=1)  # [N, K, ...]
    if labels.is_floating_point():
        of_label = (labels * log_probabilities).sum(1)  # [N, ...]
    else:
        index = labels if kept is None else labels.where(kept, torch.zeros_like(labels))
        of_label = log_probabilities.gather(1, index.unsqueeze(1)).squeeze(1)  # [N, ...]
    loss = -(on - off) * of_label - off * log_probabilities.sum(1)
    return loss if kept is None else loss.masked_fill(~kept, 0.0)


def _refuse_bad_options(
    smoothing: float,
    form: str,
    reduction: str,
    soft: bool,
    ignore_index: int | None,
    caller: str = "soft_cross_entropy",
) -> None:
    problems = []
    if not 0 <= smoothing < 1:
        problems.append(f"smoothing is {smoothing!r}; give a number in [0, 1)")
    if form not in ("usual", "paper"):
        problems.append(f"form is {form!r}; give 'usual' or 'paper'")
    if reduction not in ("sum", "none", "mean"):
        problems.append(f"reduction is {reduction!r}; give 'sum', 'none' or 'mean'")
    if soft and ignore_index is not None:
        problems.append(
            f"ignore_index is {ignore_index!r} with probabilities as labels; give the rows weight 0 instead"
        )
    if problems:
        raise UserError(f"{caller}: " + "; ".join(problems))
