"""A checkpoint's figures, from the checkpoint alone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer.assemble import as_plain, build_dataset, build_evaluator, set_data_root
from transfer.build import Node, load_config
from transfer.data.subset import split_validation
from transfer.engine.checkpoint import library_versions
from transfer.engine.distributed import World
from transfer.engine.hooks import json_text
from transfer.engine.run_directory import new_run_directory, write_text_atomically
from transfer.engine.train import MetricLike
from transfer.engine.workers import end_workers
from transfer.evaluator import DetectionEvaluator
from transfer.export.trained import open_trained
from transfer.metrics.detections import write_coco_detections
from transfer.provenance import differences, fingerprint, git_state
from transfer.restoring import differing_keys
from transfer.types import AnyDataset, UserError

logger = logging.getLogger("trickstack")


def evaluate_checkpoint(
    path: str | Path,
    *,
    data: str | None = None,
    split: str = "test",
    output: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    trust: Sequence[str] = (),
    test_time: Mapping[str, Any] | None = None,
) -> list[MetricLike]:
    """Measure, print the tables, write results.json and a page of predictions; of a detector detections.json, too.

    Args:
        path: a checkpoint of this project, or an ONNX file that tools/export.py made of one.
        data: None for the data of the checkpoint's config; a folder in its place; or a config whose data is taken.
        split: "test", "val" or "train" of that data.
        output: folder; None for a new numbered one in evaluation/ beside the checkpoint.
        device: "auto", "cpu", "cuda", "cuda:N".
        workers: processes that prepare images; None: as the config says.
        trust: further modules that the checkpoint's config may name.
        test_time: in place of the config's `loader.test_time`; None: as the config says.
    Raises:
        UserError: what the user can mend.
    """
    checkpoint, restored, device_here = open_trained(path, device, trust=trust)
    if output is not None:
        make_folder(output)
    now = {**library_versions(), "git": git_state()}
    changed = differences({**checkpoint["versions"], "git": checkpoint.get("git")}, now, list(now))
    if changed:
        logger.warning("other versions than in training, figures may differ a little: %s", ", ".join(changed))
    here, config = World(0, 1, device_here), restored.config
    trusted: Sequence[str] | None = restored.trusted
    if data is not None and data.endswith(".py"):
        other = load_config(data)  # the user's own file: any class
        for problem in differing_keys(other["augment"].get("test"), config["augment"].get("test"), "augment.test"):
            logger.info("%s differs between %s and the checkpoint; the checkpoint's is used", problem, data)
        config["data"], trusted = other["data"], None
    elif data is not None:
        if not Path(data).exists():
            raise UserError(f"--data {data!r}: no such folder or config")
        held_out = split != "test" and isinstance(config["data"].get("val"), float)
        set_data_root(config, data, restored.trusted, parts=("train",) if held_out else (split,))
    if workers is not None:
        config["loader"]["workers"] = workers
    if test_time is not None:
        config["loader"]["test_time"] = dict(test_time)
    dataset = _dataset(config, split, restored.class_names, trusted)
    known = (checkpoint.get("data") or {}).get(split)
    if isinstance(known, dict) and known != fingerprint(dataset):
        logger.warning(
            "other %s data than the run had (%s): figures cannot be compared with its own",
            split, ", ".join(differences(known, fingerprint(dataset), ("images", "classes", "digest"))),
        )  # fmt: skip
    evaluator = build_evaluator(config, restored.task, dataset, here, restored.trusted)
    folder = (  # before hours of measuring: it may not be writable
        Path(output)
        if output is not None
        else new_run_directory(Path(path).resolve().parent / "evaluation", option="--output")
    )
    try:
        results = evaluator(restored.task.model, progress(len(dataset)))
    finally:
        end_workers(evaluator.loader)
    facts = {
        "checkpoint": str(path),
        "iteration": checkpoint["iteration"],
        "split": split,
        "images": len(dataset),
        "test_time": config["loader"].get("test_time"),
        "metrics": [as_plain(result) for result in results],
    }
    write_text_atomically(folder / "results.json", json_text(facts))
    written = ["results.json"]
    if isinstance(evaluator, DetectionEvaluator):
        records = [evaluator.dataset.record(index) for index in range(len(dataset))]
        ids = evaluator.dataset.category_ids()
        write_coco_detections(folder / "detections.json", records, evaluator.predictions, ids)
        written.append("detections.json")
    for result in results:
        logger.info("%s", result.table())
    evaluator.draw(folder / "predictions.jpg")
    written += ["predictions.jpg"] if (folder / "predictions.jpg").is_file() else []
    logger.info("%s are in %s", ", ".join(written), folder)
    return results


def _dataset(config: Node, split: str, class_names: Sequence[str], trusted: Sequence[str] | None) -> AnyDataset:
    """One of the config's data sets, with the checkpoint's order of classes."""
    nodes = config["data"]
    if split != "test" and isinstance(nodes.get("val"), float):  # held out from the training set, by the run's seed
        whole = build_dataset(nodes["train"], "data.train", class_names, trusted)
        parts = split_validation(whole, nodes["val"], config["training"].get("seed", 0))
        return parts[split == "val"]
    if not nodes.get(split):
        raise UserError(f"--split {split}: the config has no data.{split}")
    return build_dataset(nodes[split], f"data.{split}", class_names, trusted)


def make_folder(output: str) -> Path:
    """The folder of --output, made where it is not there. Raises: UserError where that cannot be."""
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output!r}: {error.strerror}; give another folder") from error
    return folder


def progress(total: int) -> Callable[[int], None]:
    """A bar on a terminal; elsewhere a line at every tenth."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(total=total, unit="image", dynamic_ncols=True)

        def advance(images: int) -> None:
            bar.update(images)
            if bar.n >= total:
                bar.close()

        return advance
    done = 0

    def count(images: int) -> None:
        nonlocal done
        before, done = done, done + images
        if done * 10 // total > before * 10 // total:
            logger.info("%d of %d images", done, total)

    return count
