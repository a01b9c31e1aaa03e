"""From raw numbers to predictions: scores, decoding, padding, the way back to the original image."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detector_builders import TinyBackbone, make_target, noise_images
from torch import Tensor, nn

from transfer.heads.yolov3 import YOLOv3Output, yolov3
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.ops.anchor_grid import AnchorGrid
from transfer.types import Prediction, Target, UserError

SIZE = (64, 96)
SHAPES = (((16.0, 12.0),), ((30.0, 40.0),), ((60.0, 60.0),))


def silent(images: int = 1, classes: int = 2) -> YOLOv3Output:
    """An output of 96 + 24 + 6 slots that find nothing: objectness 0.0000001."""
    grid = AnchorGrid(SHAPES, (8, 16, 32))([(8, 12), (4, 6), (2, 3)], torch.device("cpu"))
    raw = torch.zeros(images, 126, 5 + classes)
    raw[..., 4] = logit(1e-7)
    return YOLOv3Output(raw, grid)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def numbers(objectness: float, *classes: float, box: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> Tensor:
    return torch.tensor([*box, logit(objectness), *map(logit, classes)])


def predict(output: YOLOv3Output, *targets: Target, **options: Any) -> list[Prediction]:
    return YOLOv3Postprocess(**options)(output, list(targets) or [make_target(size=SIZE)])


def test_a_score_is_objectness_times_class_and_the_box_is_decoded() -> None:
    output = silent()
    # Row 2, column 3 of the finest level: centre (3.75 * 8, 2.5 * 8), twice as wide, half as high as 16 x 12.
    output.raw[0, 2 * 12 + 3] = numbers(0.8, 0.9, 0.25, box=(math.log(3), 0.0, math.log(2), -math.log(2)))
    (found,) = predict(output)
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.72, 0.2]))
    torch.testing.assert_close(found.boxes, torch.tensor([[14.0, 17.0, 46.0, 23.0]] * 2), rtol=0, atol=1e-4)
    (best,) = predict(output, multi_label=False)
    assert best.labels.tolist() == [0]


def test_a_score_is_above_the_threshold_where_the_objectness_is() -> None:
    output = silent()
    output.raw[0, 5], output.raw[0, 40], output.raw[0, 80] = (
        numbers(0.5, 0.5, 0.1),  # 0.25 and 0.05
        numbers(0.9, 0.2, 0.1),  # 0.18 and 0.09
        numbers(0.2, 0.999, 0.9),  # below 0.2, however sure of the class
    )
    (found,) = predict(output, score_threshold=0.2)
    torch.testing.assert_close(found.scores, torch.tensor([0.25]))
    assert len(predict(output)[0].scores) == 6


def test_suppression_over_levels_and_within_a_class() -> None:
    output = silent()
    output.raw[0, 2 * 12 + 3] = numbers(0.9, 0.9, 0.001)  # around (28, 20), 16 x 12
    # Around (28, 20), too: the middle level's cell (1, 1) with tx = log 3 and ty = log(1 / 3).
    box = (math.log(3), -math.log(3), math.log(17 / 30), math.log(12 / 40))
    output.raw[0, 96 + 6 + 1] = numbers(0.8, 0.9, 0.001, box=box)
    output.raw[0, 96 + 2 * 6 + 4] = numbers(0.7, 0.001, 0.9, box=box)
    (found,) = predict(output)
    torch.testing.assert_close(found.scores, torch.tensor([0.81, 0.63]))
    assert len(predict(output, nms_iou=0.95)[0].scores) == 3
    assert len(predict(output, nms_iou=0.95, max_detections=2)[0].scores) == 2
    assert len(predict(output, nms_iou=0.95, before_nms=1)[0].scores) == 1


def test_boxes_are_mapped_to_the_original_image_and_clipped() -> None:
    # 100 by 300 px by factors 0.5 and 0.25 are 50 by 75, on a canvas of 64 by 96.
    target = make_target(size=(50, 75), original_size=(100, 300), scale=(0.5, 0.25))
    output = silent()
    output.raw[0, 2 * 12 + 3] = numbers(0.9, 0.9, 0.001)  # around (28, 20), 16 x 12: 20 to 36 and 14 to 26
    output.raw[0, 12 * 6 + 9] = numbers(0.8, 0.9, 0.001)  # around (76, 52): its cell begins at (72, 48), on the image
    output.raw[0, 12 * 7 + 2] = numbers(0.9, 0.9, 0.9)  # its cell begins at y = 56: padding alone
    output.raw[0, 10] = numbers(0.9, 0.9, 0.9)  # its cell begins at x = 80
    (found,) = predict(output, target)
    expected = torch.tensor([[80.0, 28, 144, 52], [272, 92, 300, 100]])
    torch.testing.assert_close(found.boxes, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, torch.tensor([0.81, 0.72]))
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_the_images_of_a_batch_are_not_mixed_up() -> None:
    output = silent(3)
    output.raw[0, 27] = numbers(0.9, 0.9, 0.001)
    output.raw[2, 99] = numbers(0.8, 0.001, 0.9)
    first, empty, last = predict(output, *[make_target(size=SIZE)] * 3)
    assert (first.labels.tolist(), empty.labels.tolist(), last.labels.tolist()) == ([0], [], [1])
    assert empty.boxes.shape == (0, 4)


@pytest.mark.parametrize("sizes", [[(96, 128), (96, 128)], [(96, 100), (70, 128)]])
def test_an_image_is_found_the_same_alone_and_in_a_batch(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    model = yolov3(TinyBackbone(), 3, width=0.1, norm="group").eval()
    for layer in model.head.outputs:
        nn.init.normal_(layer.weight, std=0.5)  # far apart, so that rounding does not change what is suppressed
    images, targets = noise_images(2), [make_target(size=size) for size in sizes]
    postprocess = YOLOv3Postprocess(score_threshold=0.1)
    with torch.no_grad():
        together = postprocess(model(images, sizes), targets)
        for image, prediction in enumerate(together):
            part = slice(image, image + 1)
            (alone,) = postprocess(model(images[part], sizes[part]), targets[part])
            assert len(alone.boxes) > 5
            assert torch.equal(alone.labels, prediction.labels)
            torch.testing.assert_close(alone.scores, prediction.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.boxes, prediction.boxes, rtol=0, atol=1e-3)
            height, width = sizes[image]
            assert (alone.boxes >= 0).all()
            assert (alone.boxes <= torch.tensor([width, height, width, height])).all()


def test_a_diverged_network_finds_nothing() -> None:
    output = silent()
    output.raw[:] = float("nan")
    (found,) = predict(output)
    assert len(found.boxes) == 0


def test_half_precision_is_read_in_float32() -> None:
    output = silent()
    output.raw[0, 27] = numbers(0.9, 0.9, 0.001)
    half = YOLOv3Output(output.raw.half(), output.grid)
    (found,), (expected,) = predict(half), predict(YOLOv3Output(output.raw.half().float(), output.grid))
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_mistakes_name_the_postprocess() -> None:
    with pytest.raises(UserError, match="YOLOv3Postprocess: nms_iou=2"):
        YOLOv3Postprocess(nms_iou=2)
