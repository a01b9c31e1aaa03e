"""Two processes give one process's losses and weights, in float64 to 1e-10, with very unequal shares of the truth.

Two processes are started once; they go through every case in the same order and write down what they got. What both
have divided by must be counted over both: one of them has nearly all boxes and valid pixels, at times all of them.

Left out: Faster R-CNN beyond its first step (its proposals are chosen in float32), and batches whose images are mixed
with one another, which each process does with its own part of them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tiny_masks import CLASS_NAMES, write_masks
from torch import Tensor, nn
from toy_task import ALONE

from backbones.contract import WrappedBackbone, wrap
from transfer.augment.classification_presets import classification_test
from transfer.augment.presets import segmentation_test
from transfer.data.mask_folder import MaskFolderDataset
from transfer.engine.checkpoint import FORMAT
from transfer.engine.distributed import World, world
from transfer.engine.settings import TrainingSettings
from transfer.engine.sync_bn import SynchronizedBatchNorm, synchronize
from transfer.engine.task import ClassificationTask, DetectionTask, SegmentationTask, Task
from transfer.engine.train import Event, Run, Saving, Step, train
from transfer.evaluator import ClassificationEvaluator, SegmentationEvaluator
from transfer.heads.box_head import BoxCriterion
from transfer.heads.classification import ClassificationPostprocess, classifier
from transfer.heads.classification_criterion import ClassificationCriterion
from transfer.heads.faster_rcnn import FasterRCNNCriterion, FasterRCNNPostprocess, faster_rcnn_fpn
from transfer.heads.fcn import fcn
from transfer.heads.rpn import RPNCriterion
from transfer.heads.segmentation import SegmentationCriterion, SegmentationPostprocess
from transfer.heads.ssd import ssd
from transfer.heads.ssd_criterion import SSDCriterion
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_criterion import YOLOv3Criterion
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.loading import LoaderSettings, test_loader
from transfer.losses.pixel_cross_entropy import OHEMCrossEntropy, PixelCrossEntropy
from transfer.metrics.accuracy import Accuracy
from transfer.metrics.mean_iou import MeanIoU
from transfer.optim.ema import EMA
from transfer.optim.optimizers import SGD
from transfer.optim.precision import Precision
from transfer.optim.schedules import Constant
from transfer.types import Batch, ClassScores, ImageRecord, LabelMap, Sample, Target, UserError

test_loader.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name
SIDE, STEPS, MICRO = 64, 3, 2
ANCHORS = [[(10.0, 13.0), (16.0, 30.0)], [(30.0, 31.0), (42.0, 25.0)], [(50.0, 40.0), (60.0, 60.0)]]


class Levels(nn.Module):
    """A map of each stride from 4 to 32; nothing in it depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, 16, 2 * step - 1, step, step - 1), nn.GroupNorm(4, 16), nn.ReLU())
            for before, step in ((3, 4), (16, 2), (16, 2), (16, 2))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else images))
        return maps


def backbone() -> WrappedBackbone:
    return wrap(Levels(), mean=(0.5,) * 3, std=(0.25,) * 3)


def yolo_task() -> Task:
    model = yolov3(backbone(), 3, width=0.125, depth=1, norm="group", anchors=ANCHORS)
    return DetectionTask(model, YOLOv3Criterion(label_smoothing=True), YOLOv3Postprocess())


def ssd_task() -> Task:
    model = ssd(backbone(), 3, image_size=SIDE, aspect_ratios=[[2]] * 4, extra_widths=[16])
    return DetectionTask(model, SSDCriterion(label_smoothing=0.1), SSDPostprocess())


def faster_rcnn_task() -> Task:
    model = faster_rcnn_fpn(
        backbone(), 3, width=16, head_width=32, anchor_scales=(4.0,), proposals_before_nms=(200, 100),
        proposals=(60, 50), rois=16, roi_cells=3,
    )  # fmt: skip
    return DetectionTask(model, FasterRCNNCriterion(rpn=RPNCriterion(), box=BoxCriterion()), FasterRCNNPostprocess())


def fcn_task(loss: Any = None, norm: str = "group") -> Task:
    model = fcn(backbone(), 3, width=16, norm=norm, dropout=0.0)
    return SegmentationTask(model, SegmentationCriterion(loss), SegmentationPostprocess())


def weighted_fcn_task() -> Task:
    return fcn_task(PixelCrossEntropy(class_weights=[0.1, 0.7, 3.3], smoothing=0.1))


def classifier_task() -> Task:
    criterion = ClassificationCriterion(label_smoothing=0.1, smoothing_form="paper", class_weights=[0.3, 1.1, 2.7])
    return ClassificationTask(classifier(backbone(), 3), criterion, ClassificationPostprocess())


def target(number: int, **truth: Any) -> Target:
    none = torch.zeros(0)
    given: dict[str, Any] = {"boxes": none.view(0, 4), "labels": none.long(), "weights": none, **truth}
    return Target(
        **given,
        difficult=torch.zeros(len(given["labels"]), dtype=torch.bool),
        size=(SIDE, SIDE),
        index=number,
        image_id=number,
        path=f"{number}.jpg",
        original_size=(SIDE, SIDE),
        scale=(1.0, 1.0),
        seed=1000 + number,
    )


def boxes(number: int, micro: int) -> Target:
    """Nine boxes, seven, one and none; of the first micro-batch, all are in the first two images."""
    count = (9, 7, 0, 0)[number % 4] if micro == 0 else (9, 7, 1, 0)[number % 4]
    rng = np.random.default_rng([1, number])
    corners, sides = rng.uniform(0, 30, (count, 2)), rng.uniform(8, 34, (count, 2))
    return target(
        number,
        boxes=torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float(),
        labels=torch.from_numpy(rng.integers(0, 3, count)),
        weights=torch.from_numpy(rng.choice([1.0, 0.7], count)).float(),
    )


def masks(number: int, micro: int) -> Target:
    """The first two images are ignored but for a fiftieth, at first wholly; the others hardly."""
    rng = np.random.default_rng([2, number])
    mask = rng.choice(3, (SIDE, SIDE), p=[0.8, 0.15, 0.05])
    ignored = (1.0 if micro == 0 else 0.98) if number % 4 < 2 else 0.05
    mask[rng.random((SIDE, SIDE)) < ignored] = 255
    return target(number, mask=torch.from_numpy(mask.astype(np.uint8)))


def classes(number: int, micro: int) -> Target:
    """The last image of each batch is of the class that weighs most."""
    label = 2 if number % 4 == 3 else (number + micro) % 2
    return target(number, classes=torch.tensor([label]), shares=torch.ones(1))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, the truth of its images, and how many of a batch's four images process 0 has."""

    task: Callable[[], Task]
    truth: Callable[[int, int], Target]
    share: int = 2
    dtype: torch.dtype = torch.float64
    steps: int = STEPS
    synchronized: bool = False


CASES = {
    "yolov3": Case(task=yolo_task, truth=boxes, share=3),
    "ssd": Case(task=ssd_task, truth=boxes),
    "fcn": Case(task=fcn_task, truth=masks),
    "fcn, weighted and smoothed": Case(task=weighted_fcn_task, truth=masks),
    "fcn, hard pixels": Case(task=lambda: fcn_task(OHEMCrossEntropy(threshold=0.5)), truth=masks),
    "fcn, synchronized": Case(task=lambda: fcn_task(norm="batch"), truth=masks, share=1, synchronized=True),
    "classifier": Case(task=classifier_task, truth=classes, share=3),
    "faster r-cnn": Case(task=faster_rcnn_task, truth=boxes, share=3, dtype=torch.float32, steps=1),
}


def micro_batch(case: Case, micro: int, here: World) -> Batch:
    """This process's part of the four images."""
    images = torch.from_numpy(np.random.default_rng([3, micro]).integers(0, 256, (4, 3, SIDE, SIDE), dtype=np.uint8))
    targets = [case.truth(4 * micro + i, micro) for i in range(4)]
    part = slice(0, 4) if here.size == 1 else (slice(0, case.share), slice(case.share, 4))[here.rank]
    return Batch(images[part], targets[part])


def trajectory(case: Case, here: World) -> dict[str, Any]:
    """A run of the case: two micro-batches a step, clipping and a moving average."""
    torch.manual_seed(0)
    task = case.task()
    if case.synchronized:
        task.model = synchronize(task.model, here)
        assert here.size == 1 or any(isinstance(layer, SynchronizedBatchNorm) for layer in task.model.modules())
    task.model.to(case.dtype)
    losses: list[dict[str, float]] = []
    steps: list[Step] = []
    saved: list[int] = []
    criterion = task.criterion

    def recorded(output: Any, targets: Sequence[Target]) -> dict[str, Tensor]:
        found = criterion(output, targets)
        losses.append({name: loss.item() for name, loss in found.items()})  # the loop logs them in float32
        return found

    def hook(event: Event) -> None:
        if isinstance(event, Step):
            steps.append(event)
        elif isinstance(event, Saving):
            saved.append(event.checkpoint["iteration"])

    task.criterion = recorded
    optimizer = SGD(lr=0.2, base_batch=None, momentum=0.9, nesterov=True, weight_decay=1e-3)
    run = Run(
        task=task,  # type: ignore[arg-type]
        batches=lambda iteration: [micro_batch(case, micro, here) for micro in range(MICRO * case.steps)],
        optimizer=optimizer.build(task.model, global_batch=4 * MICRO),
        schedule=Constant(),
        precision=Precision("float32", "cpu"),  # plain torch, in whatever the model is
        ema=EMA(task.model, decay=0.9, warm_up=0),
        settings=TrainingSettings(iterations=case.steps, accumulate=MICRO, clip_norm=0.05, evaluate_every=0),
        world=here,
        per_epoch=case.steps,
        track_best=False,
        facts={"format": FORMAT},
    )
    assert train(run, lambda model: [], [hook])
    return {
        "losses": losses,
        "norms": [step.grad_norm for step in steps],
        "saved": saved,
        "model": task.model.state_dict(),
        "ema": run.ema.module.state_dict() if run.ema else {},
    }


class Drawn:
    """Seven images of noise in three classes."""

    class_names = ("a", "b", "c")

    def __len__(self) -> int:
        return 7

    def labels(self) -> np.ndarray:
        return np.arange(7) % 3

    def record(self, index: int) -> ImageRecord:
        return ImageRecord(f"{index}.jpg", index, index % 3)

    def __getitem__(self, index: int) -> Sample:
        image, none = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8), np.zeros(0)
        return Sample(
            image, none.reshape(0, 4).astype(np.float32), none.astype(np.int64), none.astype(bool),
            none.astype(np.float32), index, index, f"{index}.jpg", (32, 32), label=index % 3,
        )  # fmt: skip


class Guesser:
    """Guesses by the image's number."""

    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        found: list[Any] = []
        for each in batch.targets:
            rng = np.random.default_rng(each.index)
            if each.mask is None:
                found.append(ClassScores(torch.from_numpy(rng.dirichlet(np.ones(3)).astype(np.float32))))
            else:
                found.append(LabelMap(torch.from_numpy(rng.integers(0, 3, each.original_size, dtype=np.uint8))))
        return found


def measured(here: World, masks: Path) -> dict[str, Any]:
    """What both evaluators say of an odd number of images."""
    folder = MaskFolderDataset(root=str(masks), images="test", masks="testannot", classes=list(CLASS_NAMES))
    settings, found = LoaderSettings(batch_size=2, test_batch_size=2, workers=0), {}
    cases: tuple[tuple[str, Any, Any, Any, Any], ...] = (
        ("segmentation", SegmentationEvaluator, folder, segmentation_test(), MeanIoU()),
        ("classification", ClassificationEvaluator, Drawn(), classification_test(32), Accuracy()),
    )
    for name, kind, dataset, augment, metric in cases:
        loader = test_loader(dataset, augment, settings, (0, 0, 0), here)
        evaluator = kind(Guesser(), dataset, loader, [metric], here, pictures=2)
        images: list[int] = []
        (result,) = evaluator(nn.Identity(), images.append)
        kept = evaluator.label_maps if name == "segmentation" else evaluator.scores
        found[name] = {
            "images": sum(images),
            "values": dict(result.values),
            "per_class": {key: dict(row) for key, row in result.per_class.items()},
            "kept": {
                index: each.labels if isinstance(each, LabelMap) else torch.from_numpy(each)
                for index, each in kept.items()
            },
        }
    return found


def _worker(rank: int, ports: tuple[int, int], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ports[0]))
    with world("cpu") as here:
        state: dict[str, Any] = {name: trajectory(case, here) for name, case in CASES.items()}
        with mock.patch("transfer.ops.world.dist", SimpleNamespace(is_available=lambda: False)):
            once = {name: replace(case, steps=1) for name, case in CASES.items()}
            state["counted alone"] = {name: trajectory(case, here)["losses"][0] for name, case in once.items()}
        state["measured"] = measured(here, folder / "masks")
        here.check_same("the config", "one")
        with pytest.raises(UserError, match=r"the config of process 0 differs from that of 1:"):
            here.check_same("the config", f"of {rank}")
    del os.environ["WORLD_SIZE"], os.environ["RANK"]
    os.environ.update(SLURM_STEP_ID="0", SLURM_PROCID=str(rank), SLURM_STEP_NUM_TASKS="2", MASTER_PORT=str(ports[1]))
    with world("cpu") as here:
        state["under slurm"] = (here.gather(f"from {rank}"), here.size, here.is_main)
    torch.save(state, folder / f"rank{rank}.pt")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process got, and what each of two got."""
    if sys.platform != "linux":
        pytest.skip("starts its processes by fork, which spares them the imports")
    folder = tmp_path_factory.mktemp("two")
    write_masks(folder / "masks", train=1, test=5)
    context, ports = multiprocessing.get_context("fork"), (_free_port(), _free_port())
    workers = [context.Process(target=_worker, args=(rank, ports, folder)) for rank in range(2)]
    for worker in workers:
        worker.start()
    alone: dict[str, Any] = {name: trajectory(case, ALONE) for name, case in CASES.items()}
    alone["measured"] = measured(ALONE, folder / "masks")
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return alone, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


Outcomes = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.mark.parametrize("name", CASES)
def test_losses_weights_and_average_are_those_of_one_process(outcomes: Outcomes, name: str) -> None:
    alone, both = outcomes[0][name], [rank[name] for rank in outcomes[1]]
    case = CASES[name]
    small = 1e-10 if case.dtype == torch.float64 else 1e-5
    assert len(alone["losses"]) == len(both[0]["losses"]) == MICRO * case.steps
    for single, *parts in zip(alone["losses"], *(rank["losses"] for rank in both)):
        assert {key: sum(part[key] for part in parts) / 2 for key in single} == pytest.approx(
            single, rel=small, abs=small
        )
    assert len({tuple(each.values()) for each in alone["losses"]}) == MICRO * case.steps
    assert min(alone["norms"]) > 0.05  # so all steps were clipped
    for rank in both:
        assert rank["norms"] == pytest.approx(alone["norms"], rel=small, abs=small)
        for kind in ("model", "ema"):
            assert rank[kind].keys() == alone[kind].keys()
            for key, tensor in alone[kind].items():
                torch.testing.assert_close(rank[kind][key], tensor, rtol=small, atol=small)
                assert torch.equal(tensor, both[0][kind][key]) or tensor.is_floating_point()
    assert any(not torch.equal(alone["model"][key], alone["ema"][key]) for key in alone["model"])
    assert [rank["saved"] for rank in both] == [alone["saved"], []]


@pytest.mark.parametrize("name", CASES)
def test_counts_of_each_process_alone_would_not_do(outcomes: Outcomes, name: str) -> None:
    single = outcomes[0][name]["losses"][0]
    parts = [rank["counted alone"][name] for rank in outcomes[1]]
    assert any(sum(part[key] for part in parts) / 2 != pytest.approx(loss, rel=0.02) for key, loss in single.items())


@pytest.mark.parametrize(("name", "images"), [("segmentation", 5), ("classification", 7)])
def test_every_image_is_measured_once(outcomes: Outcomes, name: str, images: int) -> None:
    alone, both = outcomes[0]["measured"][name], [rank["measured"][name] for rank in outcomes[1]]
    assert alone["images"] == images
    assert sum(rank["images"] for rank in both) == images
    assert min(rank["images"] for rank in both) > 0
    for rank in both:
        assert (rank["values"], rank["per_class"]) == (alone["values"], alone["per_class"])
    assert 0 < next(iter(alone["values"].values())) < 1
    assert both[0]["kept"].keys() == alone["kept"].keys()
    assert all(torch.equal(both[0]["kept"][index], each) for index, each in alone["kept"].items())
    assert not both[1]["kept"]


def test_tasks_of_srun_find_each_other(outcomes: Outcomes) -> None:
    assert [rank["under slurm"] for rank in outcomes[1]] == [(["from 0", "from 1"], 2, True), ([], 2, False)]
