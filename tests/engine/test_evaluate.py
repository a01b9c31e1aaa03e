"""Predictions come in the data set's order whatever the batches, and figures follow from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy_task import ALONE

from transfer.assemble import build_evaluator, build_run
from transfer.engine.distributed import World, choose_device
from transfer.engine.evaluate import measure, predict_all
from transfer.loading import test_loader
from transfer.types import Batch, Prediction, UserError

test_loader.__test__ = False  # type: ignore[attr-defined]  # not a test: pytest goes by the name


class IndexTask:
    """Predicts one box whose label is the image's index."""

    def predict(self, model: Any, batch: Batch) -> list[Prediction]:
        return [Prediction(torch.ones(1, 4), torch.ones(1), torch.tensor([t.index])) for t in batch.targets]


def batches(order: list[list[int]]) -> list[Batch]:
    from toy_task import target

    return [Batch(torch.zeros(len(part), 3, 2, 2, dtype=torch.uint8), [target(i) for i in part]) for part in order]


def test_predictions_come_in_the_order_of_the_data() -> None:
    counts: list[int] = []
    predictions = predict_all(
        IndexTask(),  # type: ignore[arg-type]
        torch.nn.Identity(),
        batches([[4, 1], [0], [3, 2]]),
        ALONE,
        on_batch=counts.append,
    )
    assert [int(p.labels) for p in predictions] == [0, 1, 2, 3, 4]
    assert counts == [2, 1, 2]


def test_a_metric_gets_each_image_with_its_truth(tiny_config: dict[str, Any]) -> None:
    _, _, data = build_run(tiny_config, ALONE)
    seen: dict[str, Any] = {}

    class Spy:
        def evaluate(self, records: Any, predictions: Any, class_names: Any, category_ids: Any) -> str:
            seen.update(ids=[r.image_id for r in records], names=class_names, categories=list(category_ids))
            return "result"

    nothing = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert measure([Spy(), Spy()], data.measured, [nothing] * 5, ALONE) == ["result", "result"]
    assert seen["ids"] == [f"{i:06d}" for i in range(12, 17)]
    assert seen["names"] == ("blue", "green", "red")
    assert seen["categories"] == [1, 2, 3]
    with pytest.raises(AssertionError):
        measure([Spy()], data.measured, [nothing] * 4, ALONE)


def test_the_figures_do_not_depend_on_the_test_batch(tiny_config: dict[str, Any]) -> None:
    figures, boxes = [], []
    run, _, data = build_run(tiny_config, ALONE)
    run.task.model.eval()
    for size in (1, 2, 5):
        tiny_config["loader"]["test_batch_size"] = size
        evaluator = build_evaluator(tiny_config, run.task, data.measured, ALONE)
        figures.append(evaluator(run.task.model)[0].values)
        boxes.append([p.boxes for p in evaluator.predictions])
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert figures[0] == pytest.approx(figures[2], abs=1e-6)
    for one, other in zip(boxes[0], boxes[2]):
        assert len(one) > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


def test_over_processes_each_image_is_in_one_share(tiny_config: dict[str, Any]) -> None:
    from transfer.loading import loader_settings

    _, evaluator, data = build_run(tiny_config, ALONE)
    shares = []
    for rank in range(2):
        world = World(rank, 2, torch.device("cpu"))
        loader = test_loader(
            data.measured,
            evaluator.loader.dataset.augment,
            loader_settings(tiny_config),
            (0, 0, 0),
            world,  # type: ignore
        )
        shares.append([t.index for batch in loader for t in batch.targets])
    assert sorted(shares[0] + shares[1]) == list(range(5))
    assert shares[0]
    assert shares[1]


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"--device 'gpu' is not a device: give auto, cpu, cuda"):
        choose_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:3"):
        with pytest.raises(UserError, match=rf"--device '{name}': 0 CUDA devices .* give cpu"):
            choose_device(name)
