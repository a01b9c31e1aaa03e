"""What goes into a file, run in torch: each graph against the model and the postprocess that it stands for."""

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
from transfer.export.session import ExportedPostprocess, FoundBoxes, ScoredBoxes, _two_stage_output
from transfer.heads.c4 import faster_rcnn_c4
from transfer.heads.cascade import Cascade
from transfer.heads.dilated_c5 import faster_rcnn_c5
from transfer.heads.faster_rcnn import FasterRCNNPostprocess, faster_rcnn_fpn
from transfer.heads.ssd import ssd
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.types import Target, UserError

SIZES = [(96, 128), (70, 100)]  # the second stands on padding
FEW = {"proposals_before_nms": (64, 100), "proposals": (32, 40)}


def backbone(**options: Any) -> TimmBackbone:
    return TimmBackbone("test_resnet", weights=None, **options)


DETECTORS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "yolov3": lambda: (yolov3(backbone(), 3, width=0.125, depth=1), YOLOv3Postprocess(score_threshold=0.2)),
    "yolov3, one class a box": lambda: (
        yolov3(backbone(), 3, width=0.125, depth=1),
        YOLOv3Postprocess(score_threshold=0.2, multi_label=False, before_nms=50, max_detections=20),
    ),
    "ssd": lambda: (ssd(backbone(), 3, extra_widths=(32,) * 4), SSDPostprocess(score_threshold=0.2)),
    "ssd300's last maps": lambda: (
        ssd(backbone(), 3, extra_widths=(32,) * 4, unpadded_extras=2),
        SSDPostprocess(score_threshold=0.2),
    ),
    "fpn": lambda: (faster_rcnn_fpn(backbone(), 3, width=16, head_width=32, **FEW), FasterRCNNPostprocess()),
    "c4": lambda: (faster_rcnn_c4(backbone(), 3, roi_cells=4, rpn_width=16, **FEW), FasterRCNNPostprocess()),
    "c5": lambda: (
        faster_rcnn_c5(backbone(output_stride=16), 3, head_width=32, rpn_width=16, **FEW),
        FasterRCNNPostprocess(),
    ),
    "cascade": lambda: (
        faster_rcnn_fpn(backbone(), 3, width=16, head_width=32, cascade=Cascade(), **FEW),
        FasterRCNNPostprocess(),
    ),
}


def target(size: tuple[int, int]) -> Target:
    nothing = torch.zeros(0)
    return Target(
        boxes=torch.zeros(0, 4),
        labels=nothing.long(),
        difficult=nothing.bool(),
        weights=nothing,
        size=size,
        index=0,
        image_id=0,
        path="",
        original_size=(2 * size[0], 3 * size[1]),
        scale=(0.5, 1 / 3),
        seed=0,
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_a_graph_finds_what_the_model_and_its_postprocess_find(name: str) -> None:
    torch.manual_seed(0)
    model, postprocess = DETECTORS[name]()
    sharpen(model)
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = [target(size) for size in SIZES]
    with torch.no_grad():
        expected = postprocess(model(images, SIZES), targets)
        assert all(len(each.scores) >= 3 for each in expected)
        inside = FoundBoxes(*graph_of(model, postprocess, "inside")(images, torch.tensor(SIZES)))
        outer = graph_of(model, postprocess, "outside")
        raw = outer(images, torch.tensor(SIZES))
    if len(raw) == 2:
        outside = ExportedPostprocess(postprocess.filter)(ScoredBoxes(*raw), targets)
    else:
        outside = postprocess(_two_stage_output(*raw, code=outer.code), targets)
    for found in (ExportedPostprocess(None)(inside, targets), outside):
        difference = Agreement()
        for one, other in zip(expected, found, strict=True):
            difference.add(one, other)
            assert torch.allclose(one.scores, other.scores, atol=1e-5)  # the same number, in the same order
        assert difference.unlike == 0
        assert difference.box is not None
        assert difference.box < 0.01


def test_an_image_that_finds_nothing_has_no_detections() -> None:
    model, _ = DETECTORS["yolov3"]()
    none = YOLOv3Postprocess(score_threshold=1.0)
    graph = graph_of(model.eval(), none, "inside")
    with torch.no_grad():
        found = FoundBoxes(*graph(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([[32, 32]])))
    (prediction,) = ExportedPostprocess(None)(found, [target((32, 32))])
    assert found.boxes.shape == (1, 100, 4)  # of an image with fewer pairs than the limit, too
    assert len(prediction.scores) == 0


def test_soft_suppression_stays_outside() -> None:
    model, _ = DETECTORS["c4"]()
    with pytest.raises(UserError, match=r"soft NMS .*--nms outside"):
        graph_of(model, FasterRCNNPostprocess(nms="linear"), "inside")
    assert graph_of(model, FasterRCNNPostprocess(nms="linear"), "outside").outputs[0] == "regions"


def test_what_is_no_model_of_this_project_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="a Linear cannot be exported"):
        graph_of(nn.Linear(1, 1), None, "inside")


def test_sides_are_multiples_of_the_coarsest_stride() -> None:
    assert multiple_of(DETECTORS["yolov3"]()[0]) == 32
    assert multiple_of(DETECTORS["c5"]()[0]) == 16
