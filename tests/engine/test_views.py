"""Test-time augmentation: boxes of every view come back to where they are; one plain view is the plain prediction."""

from __future__ import annotations

import copy
import json
import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_task import ALONE

from transfer.assemble import build_data, build_evaluator, build_run, build_task
from transfer.augment.presets import square_test, two_stage_test
from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.build import build
from transfer.engine.evaluate import predict_all
from transfer.engine.task import DetectionTask
from transfer.engine.views import TestTime, TestTimeTask, Views, ViewsLoader, mirror, scaled_pipeline, views_of
from transfer.evaluation import evaluate_checkpoint
from transfer.ops.box_voting import merge_predictions
from transfer.prediction import predict_paths
from transfer.types import Batch, Prediction, Request, Sample, UserError

MERGE = partial(merge_predictions, nms_iou=0.5, voting_iou=None, limit=100)
PRESETS = "transfer.augment.presets"


class Finder(DetectionTask):
    """A detector whose answer is known: the extent of the bright pixels, mapped back as any postprocess does.

    Its scores tell how often it was asked, so every view's detection can be told apart.
    """

    def __init__(self) -> None:
        self.model = self.criterion = self.postprocess = None  # type: ignore[assignment]
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, model: Any, batch: Batch) -> list[Prediction]:
        self.shapes.append(tuple(batch.images.shape))
        found = []
        for image, target in zip(batch.images, batch.targets):
            rows, columns = torch.nonzero(image.amin(dim=0) > 127, as_tuple=True)
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            scale_y, scale_x = target.scale
            box = box / torch.tensor([scale_x, scale_y, scale_x, scale_y])
            found.append(Prediction(box[None], torch.tensor([1 / len(self.shapes)]), torch.tensor([0])))
        return found


def painted(box: tuple[int, int, int, int], height: int, width: int) -> Sample:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    nothing = np.zeros(0)
    return Sample(
        image=image,
        boxes=np.zeros((0, 4), np.float32),
        labels=nothing.astype(np.int64),
        difficult=nothing.astype(bool),
        weights=nothing.astype(np.float32),
        index=0,
        image_id="painted",
        path="painted.jpg",
        original_size=(height, width),
    )


def batch_of(samples: Sequence[Sample], augment: Callable[..., Sample]) -> Batch:
    request = Request(0, 0)
    viewed = [ViewedSample(augment(sample, request, np.random.default_rng(0)), request) for sample in samples]
    return Collate((0, 0, 0))(viewed)


def predictions(task: DetectionTask, batch: Batch) -> list[list[list[float]]]:
    return [prediction.boxes.tolist() for prediction in task.predict(None, batch)]  # type: ignore[arg-type]


# ---- where boxes are ----

SAMPLES = [painted((8, 16, 24, 48), 64, 128), painted((40, 0, 72, 8), 96, 72)]


def test_a_mirrored_view_comes_back_exactly() -> None:
    batch = batch_of(SAMPLES, lambda sample, request, rng: sample)  # images of other sizes: both are padded
    assert batch.images.shape == (2, 3, 96, 128)
    task = TestTimeTask(Finder(), flip=True, merge=lambda views: views[1])  # the mirrored view's alone
    assert predictions(task, batch) == [[[8, 16, 24, 48]], [[40, 0, 72, 8]]]


def test_the_network_does_see_the_mirror_image_and_padding_stays_at_the_right() -> None:
    batch = batch_of(SAMPLES, lambda sample, request, rng: sample)
    before = batch.images.clone()
    mirrored = mirror(batch)
    assert torch.equal(batch.images, before)
    assert predictions(Finder(), mirrored) == [[[128 - 24, 16, 128 - 8, 48]], [[72 - 72, 0, 72 - 40, 8]]]
    assert torch.equal(mirrored.images[1, :, :, 72:], before[1, :, :, 72:])
    assert torch.equal(mirror(mirrored).images, before)


@pytest.mark.parametrize("flip", [False, True])
def test_every_view_finds_the_box_in_original_pixels(flip: bool) -> None:
    scales, seen = (0.5, 1, 2), []
    node = {"type": f"{PRESETS}.two_stage_test", "short": 64, "long_max": 256}
    pipelines = [build(scaled_pipeline(node, scale)) for scale in scales]
    finder = Finder()

    def keep(views: Sequence[Prediction]) -> Prediction:
        seen.append([prediction.boxes[0].tolist() for prediction in views])
        return views[0]

    batch = views_of([batch_of(SAMPLES[:1], augment) for augment in pipelines])
    TestTimeTask(finder, flip=flip, merge=keep).predict(None, batch)  # type: ignore[arg-type]
    assert seen == [[[8, 16, 24, 48]] * (6 if flip else 3)]
    widths = [64, 128, 256]
    assert [shape[3] for shape in finder.shapes] == [width for width in widths for _ in range(1 + flip)]


def test_images_of_a_batch_are_merged_each_with_its_own() -> None:
    batch = batch_of(SAMPLES, square_test(64))
    task = TestTimeTask(Finder(), flip=True, merge=partial(merge_predictions, nms_iou=0.5, voting_iou=0.5, limit=9))
    found = task.predict(None, batch)  # type: ignore[arg-type]
    for prediction, truth in zip(found, ([8, 16, 24, 48], [40, 0, 72, 8])):
        assert prediction.scores.tolist() == [1]  # the better of two, at the same place
        assert np.abs(prediction.boxes[0].numpy() - truth).max() < 2  # squashed to 64 px: whole pixels there


def test_views_move_to_a_device_together() -> None:
    views = views_of([batch_of(SAMPLES, square_test(size)) for size in (64, 32)])
    moved = views.to("meta")
    assert isinstance(moved, Views)
    assert [batch.images.device.type for batch in (moved, *moved.others)] == ["meta", "meta"]
    assert [batch.images.shape[2] for batch in (moved, *moved.others)] == [64, 32]


# ---- the scales ----


def lengths(node: dict[str, Any], factor: float) -> dict[str, Any]:
    scaled = scaled_pipeline(node, factor)
    return {key: value for key, value in scaled.items() if key != "type"}


def test_lengths_of_presets_are_scaled_their_defaults_too() -> None:
    assert lengths({"type": f"{PRESETS}.square_test", "size": 320, "keep_aspect": True}, 1.5) == {
        "size": 480,
        "keep_aspect": True,
    }
    assert lengths({"type": f"{PRESETS}.square_test", "size": [96, 320]}, 0.5) == {"size": [48, 160]}
    assert lengths({"type": f"{PRESETS}.two_stage_test"}, 0.8) == {"short": 480, "long_max": 800}
    assert lengths({"type": f"{PRESETS}.two_stage_test", "short": 333}, 0.5) == {"short": 166, "long_max": 500}


def test_lengths_of_steps_within_a_pipeline_are_scaled() -> None:
    resizing = "transfer.augment.resizing"
    steps = [
        {"type": f"{resizing}.ResizeShortSide", "short": 100, "long_max": 200},
        {"type": f"{resizing}.LetterboxTo"},
    ]
    node = {"type": "transfer.augment.pipeline.Pipeline", "steps": steps}
    before = copy.deepcopy(node)
    changed = scaled_pipeline(node, 2)
    assert node == before
    assert changed["steps"][0] == {"type": f"{resizing}.ResizeShortSide", "short": 200, "long_max": 400}
    assert changed["steps"][1] == steps[1]  # it has no size of its own
    assert scaled_pipeline(node, 1) is node


def test_a_scaled_pipeline_makes_its_view_of_the_original_image() -> None:
    rng = np.random.default_rng(0)
    sample = painted((0, 0, 1, 1), 80, 120)
    sample.image = rng.integers(0, 256, sample.image.shape, dtype=np.uint8)
    scaled = build(scaled_pipeline({"type": f"{PRESETS}.two_stage_test", "short": 40}, 2))
    made = scaled(sample, Request(0, 0), rng)
    assert np.array_equal(made.image, sample.image)  # 40 * 2 is its own size: nothing was lost on the way
    direct = two_stage_test(80, 2000)(sample, Request(0, 0), rng)
    assert np.array_equal(made.image, direct.image)


def test_a_pipeline_without_lengths_cannot_be_scaled() -> None:
    node = {"type": "transfer.augment.pipeline.Pipeline", "steps": []}
    with pytest.raises(UserError, match=r"scale 0\.5: nothing in augment\.test has size, short, long, long_max"):
        scaled_pipeline(node, 0.5)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"scales": []}, ["scales=[]", "[0.8, 1.0, 1.2]"]),
        ({"scales": 1.0, "flip": "yes"}, ["scales=1.0", "flip='yes'"]),
        ({"scales": [1.0, 0]}, ["scales=[1.0, 0]"]),
        ({"scales": [1, 1.0]}, ["twice"]),
        ({"voting": 0, "nms_iou": 1.5}, ["voting=0", "None for no voting", "nms_iou=1.5"]),
        ({"max_detections": 0}, ["max_detections=0"]),
    ],
)
def test_settings_are_checked(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        TestTime(**options)
    assert all(part in str(error.value) for part in ["loader.test_time", *parts])


# ---- with a detector, from a config ----


def evaluated(config: dict[str, Any], test_time: Any) -> tuple[list[Prediction], dict[str, float]]:
    config = copy.deepcopy(config)
    config["loader"]["test_time"] = test_time
    torch.manual_seed(0)
    task = build_task(config, 3)
    task.model.eval()
    evaluator = build_evaluator(config, task, build_data(config).measured, ALONE)
    (result,) = evaluator(task.model)
    return evaluator.predictions, result.values


def assert_equal_predictions(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> None:
    assert len(ours) == len(theirs) == 5
    for a, b in zip(ours, theirs, strict=True):
        assert len(a.scores) > 0
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels)


def test_one_view_without_voting_is_the_plain_prediction(tiny_config: dict[str, Any]) -> None:
    plain, figures = evaluated(tiny_config, None)
    found, same = evaluated(tiny_config, {"scales": [1.0], "flip": False, "voting": None})
    assert_equal_predictions(found, plain)
    assert same == figures


def test_views_change_the_prediction_and_workers_do_not(
    tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.loading.number_of_workers", lambda asked: asked)
    views = {"scales": [1.0, 1.5], "flip": True, "max_detections": 10}
    others = set(multiprocessing.active_children())
    plain, _ = evaluated(tiny_config, None)
    found, _ = evaluated(tiny_config, views)
    assert any(not torch.equal(a.scores, b.scores) for a, b in zip(found, plain, strict=True))
    tiny_config["loader"]["workers"] = 1
    assert_equal_predictions(evaluated(tiny_config, views)[0], found)
    tiny_config["loader"].update(workers=0, test_batch_size=5)
    for a, b in zip(evaluated(tiny_config, views)[0], found, strict=True):  # another batch pads and rounds otherwise
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-3, atol=1e-4)
    assert set(multiprocessing.active_children()) == others


def test_workers_of_every_scale_end_with_an_error(tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.loading.number_of_workers", lambda asked: asked)
    tiny_config["loader"].update(workers=1, test_time={"scales": [1.0, 0.5]})
    others = set(multiprocessing.active_children())
    task = build_task(tiny_config, 3)
    evaluator = build_evaluator(tiny_config, task, build_data(tiny_config).measured, ALONE)
    assert isinstance(evaluator.loader, ViewsLoader)

    class Failing(Finder):
        def predict(self, model: Any, batch: Batch) -> list[Prediction]:
            assert len(set(multiprocessing.active_children()) - others) == 2
            raise RuntimeError("no prediction")

    with pytest.raises(RuntimeError, match="no prediction"):
        predict_all(Failing(), task.model, evaluator.loader, ALONE)
    assert set(multiprocessing.active_children()) == others


@pytest.mark.parametrize(
    ("test_time", "message"),
    [
        (True, r"loader\.test_time=True must be None or a dict"),
        ({"scale": [1.0]}, r"loader\.test_time: TestTime takes no 'scale', did you mean 'scales'"),
        ({"scales": [-1]}, r"loader\.test_time: scales=\[-1\]"),
    ],
)
def test_mistakes_in_a_config_show_before_training(tiny_config: dict[str, Any], test_time: Any, message: str) -> None:
    tiny_config["loader"]["test_time"] = test_time
    with pytest.raises(UserError, match=message):
        build_run(tiny_config, ALONE)


# ---- a checkpoint ----


def test_a_checkpoint_is_measured_in_several_views_and_the_result_says_so(finished_run: Path, tmp_path: Path) -> None:
    def measured(name: str, test_time: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
        evaluate_checkpoint(finished_run / "last.pth", output=str(tmp_path / name), device="cpu", test_time=test_time)
        return json.loads((tmp_path / name / "results.json").read_text()), (
            tmp_path / name / "detections.json"
        ).read_text()

    plain, detections = measured("plain", None)
    same, same_detections = measured("same", {"scales": [1.0], "flip": False, "voting": None})
    views, other_detections = measured("views", {"scales": [1.0, 1.5]})
    assert (same["metrics"], same_detections) == (plain["metrics"], detections)
    assert other_detections != detections
    assert plain["test_time"] is None
    assert views["test_time"] == {"scales": [1.0, 1.5]}


def test_predicting_files_finds_what_evaluation_finds(finished_run: Path, devkit: Path, tmp_path: Path) -> None:
    views = {"scales": [1.0, 1.5], "flip": True}
    evaluate_checkpoint(finished_run / "last.pth", output=str(tmp_path / "out"), device="cpu", test_time=views)
    detections = json.loads((tmp_path / "out" / "detections.json").read_text())
    image = devkit / "VOC2007" / "JPEGImages" / "000012.jpg"
    (found,) = predict_paths(
        finished_run / "last.pth", [str(image)], output=str(tmp_path), score=0.0, device="cpu", test_time=views
    )
    first = detections[0]["image_id"]
    ours = sorted((d["score"] for d in found["detections"]), reverse=True)
    theirs = sorted((d["score"] for d in detections if d["image_id"] == first), reverse=True)
    assert len(ours) == len(theirs) > 0
    assert ours == pytest.approx(theirs, abs=1e-2)


@pytest.mark.parametrize("arguments", [("--tta",), ("--tta", "1", "1.5")])
def test_the_tools_take_scales(
    run_tool: Callable[..., tuple[int, str]],
    finished_run: Path,
    devkit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, errors = run_tool("evaluate", finished_run / "last.pth", "--device", "cpu", "--output", "out", *arguments)
    assert code == 0, errors
    scales = [float(scale) for scale in arguments[1:]] or [1.0]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["test_time"] == {"scales": scales, "flip": True}
    image = devkit / "VOC2007" / "JPEGImages" / "000012.jpg"
    code, errors = run_tool("predict", finished_run / "last.pth", image, "--device", "cpu", *arguments)
    assert code == 0, errors
    code, errors = run_tool("evaluate", finished_run / "last.pth", "--device", "cpu", "--tta", "0")
    assert code == 2
    assert "loader.test_time: scales=[0.0]" in errors
