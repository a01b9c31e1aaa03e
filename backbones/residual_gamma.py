"""Zero gamma: every residual block starts as its shortcut alone, because the last norm of its branch has weights of 0.

Source: He et al. 2018, *Bag of Tricks for Image Classification with CNNs*, arXiv 1812.01187, section 3.1; Goyal et al.
2017, arXiv 1706.02677, section 5.1.

timm has it for some families only, under an option that is on by default in most of them. Here the blocks are found in
the graph that autograd records of one pass without values, so any network will do: a residual block is an addition
of a branch and of a shortcut that fork from one map, the branch with more layers than the shortcut and the shortcut
with one at most (a projection). Where both end in a norm, the shortcut's is thereby never taken for the branch's.

Between the norm and the addition there may be what leaves zeros zero and lets gradients pass at zero: squeeze and
excitation, scales, stochastic depth, and activations such as the leaky ReLU of Darknet. ReLU lets none pass at zero
(its gradient there is 0 in torch), so gamma would stay zero for good: such a branch is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import BackboneError
from backbones.measuring import as_list, eval_mode, on_meta, run_on_meta

_NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm", "NativeLayerNorm")
"""Autograd's names of norms; the second input of each is its weight."""

_PASSING = (
    *("Mul", "Div", "Clone", "Alias", "View", "UnsafeView", "Reshape", "Permute", "Transpose", "Contiguous", "ToCopy"),
    *("LeakyRelu", "Silu", "Mish", "Gelu", "Hardswish", "Elu", "Tanh", "NativeDropout"),
)
"""Operations that leave zeros zero and whose gradient at zero is not."""

_LAYERS = ("Convolution", "Addmm", "Mm", "Linear")

_WORDS = {
    "Relu": "a ReLU, which would keep gamma at zero for good",
    "Hardtanh": "a ReLU6, which would keep gamma at zero for good",
    "Convolution": "a convolution",
    "Addmm": "a linear layer",
    "Mm": "a linear layer",
    "Add": "a sum of several branches",
    "Cat": "a concatenation",
}
"""What a branch may end in that cannot be zeroed by a gamma."""


def zero_residual_gammas(body: nn.Module, *, name: str = "") -> list[str]:
    """Set the weights of the last norm of each residual branch to zero, so that the block starts as its shortcut.

    Args:
        body: maps images [B, 3, H, W] to a map or to several; changed in place.
        name: what errors call it; "" takes timm's name of it, or its class's.

    Returns:
        Names of the parameters that were set, in the network's order.

    Raises:
        BackboneError: there is no residual block whose branch ends in a norm with weights.
    """
    blocks = _residual_blocks(body)
    found = {block.gamma for block in blocks if block.gamma}
    if not found:
        what = name or str(_pretraining(body).get("architecture") or type(body).__name__)
        if not blocks:
            raise BackboneError(f"zero_gamma=True: {what} has no residual blocks: leave it out")
        ends = sorted({_WORDS.get(block.end, f"an operation that torch calls {block.end}") for block in blocks})
        raise BackboneError(
            f"zero_gamma=True: no residual branch of {what} ends in a norm with weights that could start at zero, but "
            f"in {' or '.join(ends)}: leave it out"
        )
    names = [key for key, _ in body.named_parameters() if key in found]
    with torch.no_grad():
        for key in names:
            body.get_parameter(key).zero_()
    return names


@dataclass(frozen=True)
class _Block:
    """A residual block."""

    gamma: str
    """Name of the weight of the norm its branch ends in; "" where it ends in none."""
    end: str
    """The operation its branch ends in."""


def _residual_blocks(body: nn.Module) -> list[_Block]:
    """Every addition of a branch and its shortcut."""
    parameters, outputs = _run(body)
    names = {id(tensor): key for key, tensor in parameters.items()}
    nodes = _with_all_before(output.grad_fn for output in outputs)
    blocks = []
    for addition in nodes:
        operands = [node for node, _ in addition.next_functions if node is not None]
        if _kind(addition) != "Add" or len(operands) != 2:
            continue
        before = [_with_all_before([operand]) for operand in operands]
        own = [before[0] - before[1], before[1] - before[0]]  # what only one of the two depends on
        starts = [_inputs(side) if side else {operand} for side, operand in zip(own, operands)]
        if len(starts[0]) != 1 or starts[0] != starts[1]:
            continue  # not two ways from one map: a bias, an embedding of positions, a sum of two branches
        layers = [sum(_kind(node) in _LAYERS for node in side) for side in own]
        branch = int(layers[1] > layers[0])
        if layers[branch] == layers[1 - branch] or layers[1 - branch] > 1:
            continue
        end, norm = _end_of(operands[branch])
        gamma = norm.next_functions[1][0] if norm in own[branch] else None
        blocks.append(_Block(names.get(id(getattr(gamma, "variable", None)), ""), end))
    return blocks


def _run(body: nn.Module) -> tuple[dict[str, Tensor], list[Tensor]]:
    """One pass that autograd records: (what stood for each parameter, the maps)."""
    height, width = _pretraining(body).get("input_size", (3, 224, 224))[-2:]
    with eval_mode(body), torch.enable_grad():
        try:
            parameters = {key: value.detach().to("meta") for key, value in body.named_parameters()}
            maps = run_on_meta(body, (height, width), on_meta(body) | _trained(parameters))
        except (NotImplementedError, RuntimeError, AttributeError):
            # As in backbones.measuring: some modules keep plain tensors, or use an operator without a meta form.
            parameters = {key: value.detach() for key, value in body.named_parameters()}
            like = next(iter(parameters.values()), torch.empty(0))
            image = torch.zeros(1, 3, height, width, device=like.device, dtype=like.dtype)
            maps = torch.func.functional_call(body, _trained(parameters), (image,))
    return parameters, as_list(maps)


def _trained(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters, each taking a gradient: frozen layers are part of the graph, too."""
    return {key: value.requires_grad_() for key, value in parameters.items()}


def _pretraining(body: nn.Module) -> Mapping[str, Any]:
    """timm's record of the pretraining, where there is one."""
    config = getattr(body, "pretrained_cfg", None)
    return config if isinstance(config, Mapping) else {}


def _with_all_before(roots: Iterable[Any]) -> set[Any]:
    """Nodes of autograd's graph with everything they depend on."""
    pending, seen = list(roots), set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [operand for operand, _ in node.next_functions]
    return seen


def _inputs(nodes: set[Any]) -> set[Any]:
    """Nodes outside of a set, parameters apart, that those in it depend on."""
    operands = {operand for node in nodes for operand, _ in node.next_functions if operand is not None}
    return {operand for operand in operands - nodes if _kind(operand) != "AccumulateGrad"}


def _end_of(node: Any) -> tuple[str, Any]:
    """What a branch ends in behind scales and the like: (the operation, its node where it is a norm, else None)."""
    kind = _kind(node)
    if kind in _NORMS:
        return kind, node
    operands = [operand for operand, _ in node.next_functions if operand is not None]
    operands = [operand for operand in operands if _kind(operand) != "AccumulateGrad"]  # the scale of a layer scale
    if kind not in _PASSING or not operands:
        return kind, None
    ends = [_end_of(operand) for operand in operands]
    # Of a product, one factor that starts at zero will do.
    return next((end for end in ends if end[1] is not None), ends[0])


def _kind(node: Any) -> str:
    """The operation of a node: Add of AddBackward0."""
    return str(node.name()).rpartition("::")[2].partition("Backward")[0]
