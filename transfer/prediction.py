"""Predictions for a user's own pictures: drawings and JSON; of a segmenter, palette PNGs, too."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.assemble import backbone_of, build_testing, task_name
from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.data.image import IMAGE_SUFFIXES, BrokenSample, read_image
from transfer.engine.hooks import json_text
from transfer.engine.run_directory import new_run_directory, write_text_atomically
from transfer.engine.views import views_of
from transfer.evaluation import make_folder, progress
from transfer.export.trained import open_trained
from transfer.report.class_pages import with_classes
from transfer.report.overlays import draw_label_map, write_palette_png
from transfer.report.pages import draw_boxes, write_picture
from transfer.types import ClassScores, LabelMap, Prediction, Request, Sample, UserError

logger = logging.getLogger("trickstack")


def find_images(paths: Sequence[str]) -> list[Path]:
    """The image files that files, folders and globs name, each once, sorted within each argument.

    Raises:
        UserError: an argument names nothing.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        else:
            matches = sorted(Path(p) for p in glob.glob(text, recursive=True) if os.path.isfile(p))
        if not matches:
            kind = "a folder without images" if path.is_dir() else "neither a file nor a folder nor a glob that matches"
            raise UserError(f"{text!r} is {kind}; images end in {', '.join(IMAGE_SUFFIXES)}")
        found.update(dict.fromkeys(matches))
    return list(found)


def predict_paths(
    checkpoint_path: str | Path,
    paths: Sequence[str],
    *,
    output: str | None = None,
    score: float = 0.3,
    device: str = "auto",
    pictures: bool = True,
    trust: Sequence[str] = (),
    test_time: Mapping[str, Any] | None = None,
    fuse: bool = True,
) -> list[dict[str, Any]]:
    """Detect objects in every image, segment it or classify it; a file that cannot be read is named and left out.

    Args:
        checkpoint_path: a checkpoint of this project, or an ONNX file that tools/export.py made of one.
        paths: files, folders, globs.
        output: folder for predictions.json and the drawings, without predictions of before; None: the next number
            below `predictions`.
        score: weaker detections are left out, in [0, 1]; read by detectors only.
        device: "auto", "cpu", "cuda", "cuda:N".
        pictures: whether to draw.
        trust: further modules that the checkpoint's config may name.
        test_time: in place of the config's `loader.test_time`; None: as the config says.
        fuse: whether batch norms are folded into convolutions first: the same but for rounding, in less time.
    Returns:
        One dict an image: file, width, height, and detections (class, score, box as xyxy pixels), areas (class,
        pixels, share of the image) or classes (class, score; the five likeliest).
    """
    if not 0 <= score <= 1:
        raise UserError(f"--score {score}: give a number from 0 to 1")
    images = find_images(paths)
    _, restored, where = open_trained(checkpoint_path, device, trust=trust, fuse=fuse)
    if test_time is not None:
        restored.config["loader"]["test_time"] = dict(test_time)
    task, pipelines = build_testing(restored.config, restored.task, restored.trusted)
    classifies = task_name(restored.config) == "classification"
    divisor = 1 if classifies else restored.config["loader"].get("size_divisor", 32)
    collate = Collate(backbone_of(restored.task.model).pad_value, size_divisor=divisor)
    folder = new_run_directory(Path("predictions"), option="--output") if output is None else make_folder(output)
    if (folder / "predictions.json").exists():
        raise UserError(f"--output {str(folder)!r} has predictions.json of before: give another folder")
    if task_name(restored.config) == "segmentation":
        make_folder(str(folder / "masks"))
    names = _drawing_names(images)
    if pictures:
        _spare_originals(images, folder, names)
    step = progress(len(images))
    results, unreadable = [], 0
    for path in images:
        try:
            pixels = read_image(path)
        except BrokenSample as error:
            unreadable += 1
            step(1)
            logger.warning("left out: %s: %s", path, error.reason)
            continue
        request = Request(0, 0)
        samples = [augment(sample_of(pixels, path), request, np.random.default_rng(0)) for augment in pipelines]
        batches = [collate([ViewedSample(sample, request)]) for sample in samples]
        prediction = task.predict(task.model, views_of(batches).to(where))[0]
        about: dict[str, Any] = {"file": str(path), "width": pixels.shape[1], "height": pixels.shape[0]}
        if isinstance(prediction, LabelMap):
            labels = prediction.labels.numpy()
            about["areas"] = areas_of(labels, restored.class_names)
            mask = f"{Path(names[path]).stem}.png"
            write_palette_png(folder / "masks" / mask, labels)
            about["mask"] = f"masks/{mask}"
            drawn = draw_label_map(pixels, labels)
        elif isinstance(prediction, ClassScores):
            about["classes"] = classes_of(prediction, restored.class_names)
            drawn = with_classes(pixels, prediction.scores.numpy(), restored.class_names, 200)
        else:
            kept = prediction.scores >= score
            prediction = Prediction(prediction.boxes[kept], prediction.scores[kept], prediction.labels[kept])
            about["detections"] = detections_of(prediction, restored.class_names)
            drawn = draw_boxes(
                pixels,
                prediction.boxes.numpy(),
                prediction.labels.numpy(),
                restored.class_names,
                scores=prediction.scores.numpy(),
            )
        results.append(about)
        if pictures:
            write_picture(folder / names[path], drawn)
        step(1)
    if not results:
        raise UserError(f"none of the {len(images)} files could be read as an image")
    write_text_atomically(folder / "predictions.json", json_text(results))
    logger.info(
        "%d images%s; predictions.json is in %s", len(results), f", {unreadable} left out" * bool(unreadable), folder
    )
    return results


def classes_of(prediction: ClassScores, class_names: Sequence[str], count: int = 5) -> list[dict[str, Any]]:
    """The likeliest classes as plain types, best first: class, score."""
    order = np.argsort(-prediction.scores.numpy(), kind="stable")[:count]
    return [{"class": class_names[label], "score": round(float(prediction.scores[label]), 4)} for label in order]


def detections_of(prediction: Prediction, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as plain types, best first: class, score, box as xyxy pixels."""
    rows = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True)
    return [
        {"class": class_names[label], "score": round(score, 4), "box": [round(side, 2) for side in box]}
        for box, score, label in rows
    ]


def areas_of(labels: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """What of an image each class covers, the largest first; classes that cover nothing are left out.

    Args:
        labels: [H, W] uint8.
        class_names: of the labels.
    """
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    return [
        {"class": class_names[k], "pixels": int(counts[k]), "share": round(float(counts[k]) / labels.size, 6)}
        for k in np.argsort(-counts, kind="stable")
        if counts[k]
    ]


def _drawing_names(images: Sequence[Path]) -> dict[Path, str]:
    """A name for each drawing; equal stems of different folders get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in images:
        name, number = f"{path.stem}.jpg", 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}_{number}.jpg"
        taken.add(name.lower())
        names[path] = name
    return names


def _spare_originals(images: Sequence[Path], folder: Path, names: Mapping[Path, str]) -> None:
    """Raises: UserError where a drawing would take the place of a picture that is to be read."""
    originals = {path.resolve() for path in images}
    replaced = [str(path) for path in images if (folder / names[path]).resolve() in originals]
    if replaced:
        raise UserError(
            f"--output {str(folder)!r}: the drawings would replace {', '.join(replaced[:5])}; give another folder"
        )


def sample_of(pixels: np.ndarray, path: Path) -> Sample:
    """The image as a sample without truth.

    Args:
        pixels: [H, W, 3] uint8, RGB.
        path: where it came from.
    """
    height, width = pixels.shape[:2]
    return Sample(
        image=pixels,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, bool),
        weights=np.zeros(0, np.float32),
        index=0,
        image_id=path.stem,
        path=str(path),
        original_size=(height, width),
    )
