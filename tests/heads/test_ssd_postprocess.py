"""From raw numbers to predictions: scores, decoding, padding, the way back to the original image; torchvision's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detector_builders import TinyBackbone, make_target, noise_images
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator as TorchvisionBoxes
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from transfer.heads.ssd import SSDOutput, ssd
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.ops.anchors import DefaultBoxes, DefaultBoxGenerator
from transfer.types import Prediction, Target, UserError

SIZE = (64, 96)


def defaults() -> DefaultBoxes:
    """Two squares on each of 8 x 12, 4 x 6 and 2 x 3 cells; of 16 and 16, 16 and 25, 40 and 49 px."""
    generator = DefaultBoxGenerator([8, 16, 32], sides=[16, 16, 40, 60], ratios=[[], [], []])
    return generator([(8, 12), (4, 6), (2, 3)], SIZE, torch.device("cpu"))


def silent(images: int = 1, classes: int = 2) -> SSDOutput:
    """An output of 192 + 48 + 12 default boxes that are background."""
    logits = torch.zeros(images, 252, classes + 1)
    logits[..., -1] = 20.0
    return SSDOutput(logits, torch.zeros(images, 252, 4), defaults())


def scores(*probabilities: float) -> Tensor:
    """Logits whose softmax gives these for the classes and the rest to the background."""
    return torch.tensor([math.log(p) for p in (*probabilities, 1 - sum(probabilities))])


def place(row: int, column: int, columns: int = 12, first: int = 0, box: int = 0) -> int:
    return first + 2 * (row * columns + column) + box


def predict(output: SSDOutput, *targets: Target, **options: Any) -> list[Prediction]:
    return SSDPostprocess(**options)(output, list(targets) or [make_target(size=SIZE)])


def test_a_score_is_a_softmax_with_the_background_and_the_box_is_decoded() -> None:
    output = silent()
    # Row 2, column 3 of the finest map: around (28, 20), 16 by 16; moved by 0.5 * 0.1 * 16 = 0.8 px to the right,
    # twice as wide, half as high.
    output.logits[0, place(2, 3)] = scores(0.7, 0.2)
    output.deltas[0, place(2, 3)] = torch.tensor([0.5, 0.0, 5 * math.log(2), -5 * math.log(2)])
    (found,) = predict(output)
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.2]))
    torch.testing.assert_close(found.boxes, torch.tensor([[12.8, 16.0, 44.8, 24.0]] * 2), rtol=0, atol=1e-4)


def test_thresholds_and_limits() -> None:
    output = silent()
    for row, probability in ((0, 0.9), (2, 0.5), (4, 0.3), (6, 0.009)):
        output.logits[0, place(row, 3)] = scores(probability, 0.0001)
    (found,) = predict(output)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5, 0.3]))
    assert len(predict(output, score_threshold=0.4)[0].scores) == 2
    assert len(predict(output, max_detections=1)[0].scores) == 1
    assert len(predict(output, before_nms=2)[0].scores) == 2
    assert len(predict(output, score_threshold=0.001)[0].scores) == 4


def test_suppression_over_maps_and_within_a_class() -> None:
    output = silent()
    output.logits[0, place(1, 1)] = scores(0.9, 0.001)  # 16 by 16 around (12, 12)
    # 16 by 16 around (8, 8) on the next map, moved onto (12, 12), as two classes.
    other = place(0, 0, 6, 192)
    output.deltas[0, other, :2] = 10 * 4 / 16
    output.logits[0, other] = scores(0.4, 0.5)
    (found,) = predict(output)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.5]))
    assert found.labels.tolist() == [0, 1]
    output.deltas[0, other, :2] = 10 * 10 / 16  # six pixels from there: IoU 100 / 412
    assert len(predict(output)[0].scores) == 3
    assert len(predict(output, nms_iou=0.2)[0].scores) == 2


def test_boxes_are_mapped_to_the_original_image_and_clipped() -> None:
    # 100 by 300 px by factors 0.5 and 0.25 are 50 by 75, on a canvas of 64 by 96.
    target = make_target(size=(50, 75), original_size=(100, 300), scale=(0.5, 0.25))
    output = silent()
    output.logits[0, place(2, 3)] = scores(0.9, 0.001)  # 20 to 36 and 12 to 28
    output.logits[0, place(6, 9)] = scores(0.8, 0.001)  # its cell begins at (72, 48), on the image; 68 to 84, 44 to 60
    output.logits[0, place(7, 2)] = scores(0.5, 0.4)  # its cell begins at y = 56: padding alone
    output.logits[0, place(0, 10)] = scores(0.5, 0.4)  # its cell begins at x = 80
    (found,) = predict(output, target)
    expected = torch.tensor([[80.0, 24, 144, 56], [272, 88, 300, 100]])
    torch.testing.assert_close(found.boxes, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_the_images_of_a_batch_are_not_mixed_up() -> None:
    output = silent(3)
    output.logits[0, 27] = scores(0.9, 0.001)
    output.logits[2, 99] = scores(0.001, 0.8)
    first, empty, last = predict(output, *[make_target(size=SIZE)] * 3)
    assert (first.labels.tolist(), empty.labels.tolist(), last.labels.tolist()) == ([0], [], [1])
    assert empty.boxes.shape == (0, 4)


@pytest.mark.parametrize("seed", range(3))
def test_predictions_are_torchvision_s(seed: int) -> None:
    """On a canvas so large that no box reaches its border: it clips boxes before NMS and this after it."""
    generator = torch.Generator().manual_seed(seed)
    output = silent(classes=3)
    inside = DefaultBoxes(output.default_boxes.boxes + 200, output.default_boxes.corners + 200)
    output = SSDOutput(
        3 * torch.randn((1, 252, 4), generator=generator), torch.randn((1, 252, 4), generator=generator), inside
    )
    backbone = nn.Identity()
    backbone.out_channels = [1]  # type: ignore[assignment]
    model = TorchvisionSSD(backbone, TorchvisionBoxes([[2]]), (500, 500), 4)
    outputs = {"cls_logits": output.logits.roll(1, dims=2), "bbox_regression": output.deltas}
    (expected,) = model.postprocess_detections(outputs, [inside.boxes], [(500, 500)])
    (found,) = predict(output, make_target(size=(500, 500)))
    assert len(found.scores) == 200  # of some 700 pairs
    torch.testing.assert_close(found.scores, expected["scores"])
    assert torch.equal(found.labels, expected["labels"] - 1)
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("sizes", [[(96, 128), (96, 128)], [(96, 100), (70, 128)]])
def test_an_image_is_found_the_same_alone_and_in_a_batch(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    model = ssd(TinyBackbone(), 3, image_size=96, aspect_ratios=[[2]] * 4, l2_norm="all", extra_widths=[32]).eval()
    images, targets = noise_images(2), [make_target(size=size) for size in sizes]
    postprocess = SSDPostprocess(score_threshold=0.1)
    with torch.no_grad():
        together = postprocess(model(images, sizes), targets)
        for image, prediction in enumerate(together):
            part = slice(image, image + 1)
            (alone,) = postprocess(model(images[part], sizes[part]), targets[part])
            assert len(alone.boxes) > 5
            assert torch.equal(alone.labels, prediction.labels)
            torch.testing.assert_close(alone.scores, prediction.scores, rtol=0, atol=1e-4)
            torch.testing.assert_close(alone.boxes, prediction.boxes, rtol=0, atol=1e-2)
            height, width = sizes[image]
            assert (alone.boxes >= 0).all()
            assert (alone.boxes <= torch.tensor([width, height, width, height])).all()


def test_a_diverged_network_finds_nothing() -> None:
    output = silent()
    output.logits[:] = float("nan")
    (found,) = predict(output)
    assert len(found.boxes) == 0


def test_half_precision_is_read_in_float32() -> None:
    output = silent()
    output.logits[0, 27] = scores(0.9, 0.001)
    output.deltas[0, 27] = 0.3
    half = SSDOutput(output.logits.half(), output.deltas.half(), output.default_boxes)
    rounded = SSDOutput(half.logits.float(), half.deltas.float(), output.default_boxes)
    (found,), (expected,) = predict(half), predict(rounded)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_mistakes_name_the_postprocess() -> None:
    with pytest.raises(UserError, match="SSDPostprocess: nms_iou=2"):
        SSDPostprocess(nms_iou=2)
