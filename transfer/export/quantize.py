"""INT8 by ONNX Runtime's static quantisation: weights by channel, activations by the ranges that real images show.

Source: Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
(arXiv 1712.05877); here after training alone, as QuantizeLinear and DequantizeLinear around what integers compute. What
follows the last convolution or matrix product (decoding of boxes, NMS) stays in float32: pixels need more than 256
steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transfer.export.quiet import quiet

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


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
                nodes_to_exclude=[] if gives == "logits" else _behind_weights(onnx.load(ready)),
            )
        integers = onnx.load(done)
    del integers.graph.value_info[:]
    return integers


def _behind_weights(model: Any) -> list[str]:
    """Names of the nodes whose results reach no convolution and no matrix product."""
    needed: set[str] = set()  # tensors that do
    behind = []
    for node in reversed(model.graph.node):  # in ONNX nodes stand in the order they run
        if node.op_type in _WEIGHTED or needed.intersection(node.output):
            needed.update(node.input)
        else:
            behind.append(node.name)
    return behind
