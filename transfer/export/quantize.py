"""INT8 by ONNX Runtime's static quantisation: weights by channel, activations by the ranges that real images show.

Source: Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
(arXiv 1712.05877); here after training alone, as QuantizeLinear and DequantizeLinear around what integers compute. Of a
detector that is the network alone: convolutions and products with weights, and what lies between two of them. What
decodes boxes, chooses proposals, reads regions and suppresses stays in float32: pixels need more than 256 steps, and
scores that fall together cannot be told apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transfer.export.quiet import quiet

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BETWEEN = (
    *("Add", "Mul", "Concat", "Resize", "Pad", "Flatten"),
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"),
)
"""Operations of networks, which between two weighted ones take part."""


def quantized(model: Any, feeds: Iterable[dict[str, np.ndarray]], *, gives: str) -> Any:
    """An ONNX model that computes in 8-bit integers.

    Args:
        model: in float32.
        feeds: what the graph is given to learn the ranges of its activations from, one batch each.
        gives: see `transfer.export.onnx_file.ExportFacts`.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "done.onnx"))
        onnx.save(model, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)  # padding and norms go into convolutions
        # It advises what is done already; empty places of NMS score minus infinity, which has no range.
        with quiet(None), np.errstate(invalid="ignore"):
            quantize_static(
                ready,
                done,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[] if gives == "logits" else _not_of_the_network(onnx.load(ready).graph),
            )
        integers = onnx.load(done)
    del integers.graph.value_info[:]
    return integers


def _not_of_the_network(graph: Any) -> list[str]:
    """Names of the nodes that are neither weighted nor on a way from one weighted node to another."""
    constants = {tensor.name for tensor in graph.initializer}
    constants.update(name for node in graph.node if node.op_type == "Constant" for name in node.output)
    behind: set[str] = set()  # tensors that come from weighted nodes alone
    weighted = set()
    for node in graph.node:  # in ONNX nodes stand in the order they run
        computed = [name for name in node.input if name and name not in constants]
        if node.op_type in _WEIGHTED and len(computed) == 1:
            weighted.add(node.name)
            behind.update(node.output)
        elif node.op_type in _BETWEEN and computed and behind.issuperset(computed):
            behind.update(node.output)
    needed: set[str] = set()  # tensors that weighted nodes need
    spared = []
    for node in reversed(graph.node):
        between = node.op_type in _BETWEEN and behind.issuperset(node.output) and needed.intersection(node.output)
        if node.name in weighted or between:
            needed.update(node.input)
        else:
            spared.append(node.name)
    return spared
