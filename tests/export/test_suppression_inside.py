"""Detectors whose NMS is inside the file: what ONNX Runtime makes of it, beside the model and its postprocess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_checkpoints import sharpen
from torch import nn

from backbones.timm_backbone import TimmBackbone
from transfer.export.agreement import Agreement
from transfer.export.graph import graph_of, multiple_of
from transfer.export.onnx_file import ExportFacts, gives_of, written
from transfer.export.session import ExportedModel, ExportedPostprocess
from transfer.heads.faster_rcnn import FasterRCNNPostprocess, faster_rcnn_fpn
from transfer.heads.ssd import ssd
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.types import Target

pytestmark = pytest.mark.slow  # torch's exporter takes seconds for the smallest network

SIZES = [(96, 128), (70, 100)]  # the second stands on padding


def backbone() -> TimmBackbone:
    return TimmBackbone("test_resnet", weights=None)


DETECTORS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "ssd": lambda: (ssd(backbone(), 3, extra_widths=(32,) * 4), SSDPostprocess(score_threshold=0.2)),
    "faster r-cnn": lambda: (
        faster_rcnn_fpn(backbone(), 3, width=16, head_width=32, proposals_before_nms=(64, 100), proposals=(32, 40)),
        FasterRCNNPostprocess(),
    ),
}


def target(size: tuple[int, int]) -> Target:
    nothing = torch.zeros(0)
    return Target(
        boxes=torch.zeros(0, 4), labels=nothing.long(), difficult=nothing.bool(), weights=nothing, size=size,
        index=0, image_id=0, path="", original_size=(2 * size[0], 3 * size[1]), scale=(0.5, 1 / 3),
    )  # fmt: skip


@pytest.mark.parametrize("name", DETECTORS)
def test_a_file_finds_what_the_model_and_its_postprocess_find(name: str) -> None:
    torch.manual_seed(0)
    model, postprocess = DETECTORS[name]()
    sharpen(model)
    graph: Any = graph_of(model, postprocess, "inside").eval()
    multiple = multiple_of(model)
    facts = ExportFacts(gives=gives_of(graph), multiple=multiple)
    assert facts.gives == "detections"
    shown = (20 * multiple, 24 * multiple)
    example = torch.randint(0, 256, (2, 3, *shown), dtype=torch.uint8), torch.tensor([shown] * 2)
    content = written(graph, example, facts=facts, opset=18).SerializeToString()
    file = ExportedModel(content, facts, "detection", model.backbone, num_classes=3)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = [target(size) for size in SIZES]
    with torch.no_grad():
        expected = postprocess(model(images, SIZES), targets)
    for found, wanted in (
        (ExportedPostprocess(None)(file(images, SIZES), targets), expected),
        (ExportedPostprocess(None)(file(images[1:], SIZES[1:]), targets[1:]), expected[1:]),
    ):
        difference = Agreement()
        for one, other in zip(wanted, found, strict=True):
            difference.add(one, other)
            assert len(one.scores) >= 3
            assert torch.allclose(one.scores, other.scores, atol=1e-4)  # the same number, in the same order
        assert difference.unlike == 0
        assert difference.box is not None
        assert difference.box < 0.05
