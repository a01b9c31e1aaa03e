"""Classification from folders to figures: trained, measured, predicted, averaged, resumed, taught, grafted."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from backbones.timm_backbone import TimmBackbone
from transfer import training
from transfer.assemble import build_data, build_run, with_class_weights
from transfer.averaging import average_checkpoints
from transfer.build import Node, load_config
from transfer.engine.checkpoint import load_checkpoint, save_checkpoint
from transfer.engine.distributed import World
from transfer.engine.train import Run, Saving, Step, train
from transfer.evaluation import evaluate_checkpoint
from transfer.prediction import predict_paths
from transfer.types import ClassScores, UserError

COLOURS = {"blue": (30, 40, 200), "green": (40, 180, 50), "red": (200, 50, 40)}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
HERE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise in a colour: 12, 8 and 4 images in training, 4 each in testing."""
    root = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for split, counts in (("train", (12, 8, 4)), ("test", (4, 4, 4))):
        for (name, colour), count in zip(COLOURS.items(), counts):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = np.clip(rng.normal(colour, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(root / split / name / f"{number}.png"), image[:, :, ::-1])
    return root


def config_of(folders: Path, repository: Path, *overrides: str) -> Node:
    config = load_config(
        repository / "configs" / "class_folder_r14.py",
        [
            f"data.train.root={folders}",
            f"data.test.root={folders}",
            "augment.train.size=32",
            "augment.test.size=32",
            "loader.batch_size=8",
            "loader.workers=0",
            "training.preflight=False",
            *overrides,
        ],
    )
    config["model"]["backbone"]["model_options"] = SMALL
    return config


TRICKS = (
    "training.epochs=4",
    "training.accumulate=2",
    "training.l1=1e-6",
    "loader.blend={'type': 'transfer.augment.image_mixing.ImageMixup', 'alpha': 0.2, 'last_epochs_without': 1}",
    "loader.order={'type': 'transfer.batch.orders.ClassBalanced', 'to': 'mean'}",
    "loader.shapes={'type': 'transfer.batch.shapes.ProgressiveShapes', 'low': 32, 'high': 64}",
    "criterion.label_smoothing=0.1",
    "model.backbone.drop_path=0.2",
    "augment.train.policy='trivialaugment'",
)


@pytest.fixture(scope="module")
def trained(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a classifier of the three colours."""
    work = tmp_path_factory.mktemp("runs")
    config = config_of(folders, Path(__file__).parents[1], "training.epochs=12", "training.preflight=True")
    assert training.run(config, name="colours", work_dir=work, device="cpu")
    return work / "colours" / "001"


def values_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "results.json").read_text())["metrics"][0]["values"]  # type: ignore[no-any-return]


def test_colours_are_learnt_and_the_run_leaves_its_pictures(trained: Path) -> None:
    assert values_of(trained)["top1"] > 0.9
    assert {"predictions.jpg", "preflight.jpg", "curves.png", "last.pth"} <= {p.name for p in trained.iterdir()}
    checkpoint = load_checkpoint(trained / "last.pth")
    assert checkpoint["class_names"] == ["blue", "green", "red"]
    assert checkpoint["card"]["parameters"] == sum(
        value.numel() for name, value in checkpoint["model"].items() if not name.endswith(("mean", "var", "tracked"))
    )
    assert checkpoint["card"]["backbone_multiply_adds"] > 1e6


def test_evaluation_from_the_checkpoint_alone_gives_the_same_figures(trained: Path, tmp_path: Path) -> None:
    results = evaluate_checkpoint(trained / "last.pth", output=str(tmp_path / "again"), device="cpu")
    assert results[0].values == pytest.approx(values_of(trained))


def test_prediction_names_the_class(trained: Path, folders: Path, tmp_path: Path) -> None:
    image = folders / "test" / "green" / "0.png"
    (found,) = predict_paths(trained / "last.pth", [str(image)], output=str(tmp_path), device="cpu")
    assert next(row["class"] for row in found["classes"]) == "green"
    assert sum(row["score"] for row in found["classes"]) == pytest.approx(1, abs=1e-3)
    assert len(list(tmp_path.glob("*.png")) + list(tmp_path.glob("*.jpg"))) == 1


def test_the_checkpoint_is_a_backbone_s_weights(trained: Path) -> None:
    grown = load_checkpoint(trained / "last.pth")["model"]
    grafted = TimmBackbone("resnet26d", weights=trained / "last.pth", model_options=SMALL)
    assert grafted.load_report is not None
    assert not grafted.load_report.missing
    for name, value in grafted.body.state_dict().items():
        assert torch.equal(value, grown[f"backbone.body.{name}"]), name


def test_a_mean_of_checkpoints_is_evaluated_and_grafted(trained: Path, tmp_path: Path) -> None:
    mean = tmp_path / "mean.pth"
    average_checkpoints([trained / "last.pth", trained / "last.pth"], mean)
    assert evaluate_checkpoint(mean, output=str(tmp_path / "out"), device="cpu")[0].values["top1"] > 0.9
    one = load_checkpoint(trained / "last.pth")["model"]
    assert all(torch.equal(value, one[name]) for name, value in load_checkpoint(mean)["model"].items())
    measured = tmp_path / "measured.pth"
    average_checkpoints([trained / "last.pth"] * 2, measured, statistics=24, device="cpu")
    name = "backbone.body.bn1.running_mean"
    assert not torch.equal(load_checkpoint(measured)["model"][name], one[name])
    with pytest.raises(UserError, match="is there already"):
        average_checkpoints([trained / "last.pth"] * 2, mean)
    with pytest.raises(UserError, match="two or more"):
        average_checkpoints([mean], tmp_path / "other.pth")


def states(run: Run) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    """The losses of every step, and the checkpoints by iteration."""
    losses: list[dict[str, float]] = []
    kept: dict[int, Any] = {}

    def hook(event: Any) -> None:
        if isinstance(event, Saving):
            kept[event.checkpoint["iteration"]] = {
                **event.checkpoint,
                "model": {name: value.clone() for name, value in event.checkpoint["model"].items()},
                "optimizer": _copied(event.checkpoint["optimizer"]),
            }
        elif hasattr(event, "losses"):
            losses.append(event.losses)

    assert train(run, lambda model: [], [hook])
    return losses, kept


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def test_a_run_with_all_tricks_resumes_bit_for_bit(folders: Path, trained: Path, repository: Path) -> None:
    teacher = f"criterion.teacher={{'type': 'transfer.teacher.CheckpointTeacher', 'path': '{trained / 'last.pth'}'}}"
    config = config_of(folders, repository, *TRICKS, teacher)
    run, _, _ = build_run(config, HERE)
    losses, kept = states(run)
    assert run.per_epoch == 6 // 2  # 3 classes of 8 images each, batches of 8 in halves of 4
    assert {name for step in losses for name in step} == {"loss_class", "loss_distillation"}
    resumed, _, _ = build_run(config, HERE)
    resumed.restore(kept[2 * run.per_epoch])
    later, _ = states(resumed)
    assert later == losses[2 * run.per_epoch :]
    ours, theirs = run.task.model.state_dict(), resumed.task.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_tricks_written_as_off_change_no_bit(folders: Path, repository: Path) -> None:
    plain, _, _ = build_run(config_of(folders, repository, "training.epochs=4"), HERE)
    off = config_of(
        folders, repository, "training.epochs=4", "model.backbone.drop_path=0.0", "criterion.temperature=4.0"
    )
    off["training"].update(l1=None, flooding=None, dropblock=None, early_stopping=None)
    off["loader"].update(blend=None, order=None, shapes=None, mixup=None, mosaic=None)
    off["augment"]["train"].update(policy=None, erasing=0.0, cutout=0.0)
    off["criterion"].update(loss="cross_entropy", class_weights=None, teacher=None, smoothing_form="usual")
    other, _, _ = build_run(off, HERE)
    assert states(plain)[0] == states(other)[0]


def test_early_stopping_ends_a_run_that_no_longer_rises(folders: Path, repository: Path, tmp_path: Path) -> None:
    config = config_of(
        folders, repository, "training.epochs=40", "data.val=0.3", "training.evaluate_every=1", "optimizer.lr=1e-7",
        "training.early_stopping={'patience': 2}",
    )  # fmt: skip
    assert training.run(config, name="stopped", work_dir=tmp_path, device="cpu")
    checkpoint = load_checkpoint(tmp_path / "stopped" / "001" / "last.pth")
    assert checkpoint["early_stopping"]["stale"] == 2
    assert checkpoint["iteration"] < 40 * 2
    with pytest.raises(UserError, match="at its end already"):
        training.run(config, name="stopped", work_dir=tmp_path, device="cpu", resume="latest")
    with pytest.raises(UserError, match="listens to validation data"):
        build_run(config_of(folders, repository, "training.early_stopping={'patience': 2}"), HERE)


def test_balanced_class_weights_average_one_over_the_images(folders: Path, repository: Path) -> None:
    config = config_of(folders, repository, "criterion.class_weights='balanced'")
    weights = with_class_weights(config, build_data(config).train)["criterion"]["class_weights"]
    assert weights == pytest.approx([24 / (3 * 12), 24 / (3 * 8), 24 / (3 * 4)])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loader.aspect_grouping=True", "one shape"),
        (
            "loader.blend={'type': 'transfer.batch.shapes.FixedShape', 'size': 32}",
            r"loader\.blend=.* cannot mix batches",
        ),
        ("loader.order={'type': 'transfer.batch.shapes.FixedShape', 'size': 32}", r"loader\.order=.* cannot order"),
        ("loader.test_time={'flip': True}", "detectors and segmenters"),
        ("criterion.loss='bce'", "sigmoid"),
    ],
)
def test_settings_that_do_not_fit_are_named(folders: Path, repository: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_run(config_of(folders, repository, override), HERE)


def test_a_teacher_of_other_classes_is_refused(folders: Path, trained: Path, repository: Path) -> None:
    teacher = f"criterion.teacher={{'type': 'transfer.teacher.CheckpointTeacher', 'path': '{trained / 'last.pth'}'}}"
    config = config_of(
        folders, repository, teacher, "data.train.rename={'red': 'scarlet'}", "data.test.rename={'red': 'scarlet'}"
    )
    with pytest.raises(UserError, match="scarlet"):
        build_run(config, HERE)


def test_images_that_are_classified_are_not_padded(folders: Path, repository: Path) -> None:
    config = config_of(folders, repository, "augment.train.size=43", "augment.test.size=43", TRICKS[3])
    run, evaluator, _ = build_run(config, HERE)
    assert next(iter(run.batches(0))).images.shape[2:] == (43, 43)
    assert next(iter(evaluator.loader)).images.shape[2:] == (43, 43)  # type: ignore[attr-defined]


def test_a_blend_that_could_never_mix_is_refused(folders: Path, repository: Path) -> None:
    with pytest.raises(UserError, match="it would never mix"):
        build_run(config_of(folders, repository, TRICKS[3], "training.accumulate=8"), HERE)


def test_what_listens_to_the_last_evaluation_alone_is_refused(folders: Path, repository: Path) -> None:
    overrides = ("data.val=0.3", "training.evaluate_every=0", "training.early_stopping={'patience': 2}")
    with pytest.raises(UserError, match="would hear of the last one alone"):
        build_run(config_of(folders, repository, *overrides), HERE)


def test_a_network_on_tokens_is_trained_after_its_preflight(folders: Path, repository: Path, tmp_path: Path) -> None:
    config = config_of(folders, repository, "training.epochs=4", "training.preflight=True", "optimizer.lr=0.01")
    tiny = {"img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 1, "num_heads": 2}
    config["model"]["backbone"].update(name="vit_tiny_patch16_224", zero_gamma=False, init=None, model_options=tiny)
    assert training.run(config, name="tokens", work_dir=tmp_path, device="cpu")


def test_averaging_runs_nothing_that_the_checkpoint_names(trained: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained / "last.pth")
    config = json.loads(checkpoint["config"])
    config["data"]["train"] = {"type": "subprocess.getoutput", "cmd": f"touch {tmp_path / 'harm'}"}
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        save_checkpoint(path, {**checkpoint, "config": json.dumps(config)})
    with pytest.raises(UserError, match="subprocess"):
        average_checkpoints(paths, tmp_path / "mean.pth", statistics=8, device="cpu")
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "mean.pth").exists()


def test_training_does_not_go_on_from_a_mean(trained: Path, folders: Path, repository: Path, tmp_path: Path) -> None:
    mean = tmp_path / "mean.pth"
    average_checkpoints([trained / "last.pth", trained / "last.pth"], mean)
    run, _, _ = build_run(config_of(folders, repository), HERE)
    with pytest.raises(UserError, match="mean of checkpoints"):
        run.restore(load_checkpoint(mean))


def one_step(
    folders: Path, repository: Path, *overrides: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The parameters before and after a single step at lr 0.1 without decay."""
    plain = ("training.epochs=None", "training.iterations=1", "optimizer.weight_decay=0.0", "optimizer.momentum=0.0",
             "optimizer.nesterov=False", "optimizer.base_batch=None",
             "schedule={'type': 'transfer.optim.schedules.Constant'}")  # fmt: skip
    run, _, _ = build_run(config_of(folders, repository, *plain, *overrides), HERE)
    before = {name: value.detach().clone() for name, value in run.task.model.named_parameters()}
    assert train(run, lambda model: [], [])
    return before, dict(run.task.model.named_parameters())


def test_the_l1_penalty_pulls_weights_and_no_norm_towards_zero(folders: Path, repository: Path) -> None:
    before, without = one_step(folders, repository)
    _, pulled = one_step(folders, repository, "training.l1=0.01", "training.accumulate=1")
    for name in ("backbone.body.layer3.0.conv2.weight", "fc.weight"):
        wanted = without[name] - 0.1 * 0.01 * before[name].sign()
        torch.testing.assert_close(pulled[name], wanted, rtol=0, atol=1e-6)
    assert torch.equal(pulled["backbone.body.bn1.weight"], without["backbone.body.bn1.weight"])


@dataclass
class Figure:
    """A result that never rises."""

    protocol: str = "constant"
    main: str = "figure"
    values: dict[str, float] = field(default_factory=lambda: {"figure": 0.5})


def test_a_plateau_lowers_the_lr_of_a_run_and_goes_on_after_a_resume(folders: Path, repository: Path) -> None:
    config = config_of(
        folders, repository, "training.epochs=4", "data.val=0.3", "training.evaluate_every=1",
        "schedule={'type': 'transfer.optim.schedules.Plateau', 'gamma': 0.5, 'patience': 0}",
    )  # fmt: skip

    def lrs_of(run: Run) -> tuple[list[float], dict[int, Any]]:
        lrs: list[float] = []
        kept: dict[int, Any] = {}

        def hook(event: Any) -> None:
            if isinstance(event, Saving):
                kept[event.checkpoint["iteration"]] = copy.deepcopy(event.checkpoint)
            elif isinstance(event, Step):
                lrs.append(event.lr)

        assert train(run, lambda model: [Figure()], [hook])  # type: ignore[list-item]
        return lrs, kept

    run, _, _ = build_run(config, HERE)
    lrs, kept = lrs_of(run)
    each = run.per_epoch
    # the first evaluation is the best so far; from the second on each one lowers the lr
    factors = [lr / lrs[0] for lr in lrs[::each]]
    assert factors == pytest.approx([1, 1, 0.5, 0.25])
    resumed, _, _ = build_run(config, HERE)
    resumed.restore(kept[3 * each])
    assert lrs_of(resumed)[0] == lrs[3 * each :]


def test_mixing_stops_with_the_epoch_it_is_told_to(folders: Path, repository: Path) -> None:
    run, _, _ = build_run(config_of(folders, repository, *TRICKS[:2], TRICKS[3]), HERE)
    mixed = [
        any(target.classes is not None and len(target.classes) > 1 for target in batch.targets)
        for batch in run.batches(0)
    ]
    last = 2 * run.per_epoch  # micro-batches of an epoch
    assert len(mixed) == 4 * last
    assert not any(mixed[-last:])
    assert sum(mixed[:-last]) > len(mixed[:-last]) / 2


def test_the_evaluator_keeps_the_surest_mistakes_first_and_counts_all_images(folders: Path, repository: Path) -> None:
    run, evaluator, data = build_run(config_of(folders, repository, "training.pictures=2"), HERE)
    truth = data.test.labels()  # type: ignore[union-attr]
    sure = {1: 0.6, 5: 0.9, 8: 0.7}  # the images that are mistaken, and how surely

    class Scripted:
        def predict(self, model: Any, batch: Any) -> list[ClassScores]:
            found = []
            for target in batch.targets:
                scores = torch.zeros(3)
                wrong = target.index in sure
                scores[(truth[target.index] + wrong) % 3] = sure.get(target.index, 0.99)
                found.append(ClassScores(scores))
            return found

    evaluator.task = Scripted()  # type: ignore[attr-defined]
    (result,) = evaluator(run.task.model)
    assert result.values["top1"] == pytest.approx(9 / 12)
    assert list(evaluator.scores) == [0, 11, 5, 8]  # type: ignore[attr-defined]  # two spread, then the two surest
