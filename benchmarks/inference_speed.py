"""Images a second of a detector, a segmenter and a classifier on EfficientNet-Lite0: eager, fused, exported, INT8.

    python benchmarks/inference_speed.py

One image at a time, as tools/predict.py has them: the network and its postprocess alone, and with reading, resizing and
batching of the picture before. Pictures are scenes of the embedded sample. The backbone has its ImageNet weights, heads
are random: speed does not depend on what they say, but for the detector's NMS, so its objectness is shifted until 30 of
an image's slots are candidates, as in a trained one. Every form is compared with eager's results first, and the table
says how far it is off.

One thread is measured in processor time, two threads in wall time, which other work on the machine disturbs. INT8 is
calibrated on the measured pictures: what it costs in accuracy is measured by `tools/export.py --int8` (docs/export.md).
torch.compile is left out: it needs a compiler, and its first call takes longer than most uses of this command.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import Result, Row, Times, benchmark_parser, in_turn, one_thread, ratio_of, report, versions_of

from transfer.assemble import backbone_of, build_task
from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.build import load_config, to_json
from transfer.data.image import read_image
from transfer.data.sample import make_sample
from transfer.engine.checkpoint import FORMAT, library_versions, save_checkpoint
from transfer.export.agreement import agreement
from transfer.export.command import export_checkpoint
from transfer.export.fused import fused
from transfer.export.onnx_file import describe, read
from transfer.export.quantize import quantized
from transfer.export.session import restore_exported
from transfer.heads.yolov3 import OBJECTNESS
from transfer.loading import build_augment
from transfer.prediction import sample_of
from transfer.types import Batch, Request

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TASKS = {  # name -> (config, side in pixels, classes, how many times eager was aimed at)
    "YOLOv3": ("sample_yolov3_lite0.py", 320, 12, 2.0),
    "FCN": ("sample_fcn_lite0.py", 320, 13, 1.3),
    "classifier": ("sample_cls_lite0.py", 160, 14, 1.5),
}
THREADS = (1, 2)
CANDIDATES = 30
EXACT = ("fused", "fused, channels_last", "ONNX Runtime")
"""Forms that give eager's results but for rounding: those the target is for."""


@dataclass
class Measured:
    """One task, ready to be measured."""

    task: Any
    pipeline: Callable[..., Any]
    collate: Collate
    files: list[Path]

    def prepared(self, number: int) -> Batch:
        """One picture, read and prepared."""
        path = self.files[number % len(self.files)]
        request = Request(0, 0)
        sample = self.pipeline(sample_of(read_image(path), path), request, np.random.default_rng(0))
        return self.collate([ViewedSample(sample, request)])


def _built(name: str, folder: Path, files: list[Path]) -> tuple[Measured, Path]:
    """The task, and its checkpoint."""
    file, side, classes, _ = TASKS[name]
    config = load_config(CONFIGS / file)  # of its data nothing is read
    if "size" in config["augment"]["test"]:
        config["augment"]["test"]["size"] = side
    torch.manual_seed(0)
    task = build_task(config, classes)
    task.model.eval()
    backbone = backbone_of(task.model)
    divisor = 1 if name == "classifier" else 32
    measured = Measured(task, build_augment(config, "test"), Collate(backbone.pad_value, size_divisor=divisor), files)
    if name == "YOLOv3":
        _make_selective(task.model, measured.prepared(0).images)
    checkpoint = {
        "format": FORMAT,
        "model": task.model.state_dict(),
        **dict.fromkeys(("ema", "optimizer", "scaler", "best")),
        **dict.fromkeys(("iteration", "measured_at", "seed"), 0),
        "world_size": 1,
        "config": to_json(config),
        "class_names": [f"class {number}" for number in range(classes)],
        "category_ids": [],
        "backbone": backbone.describe(),
        "metrics": [],
        "versions": library_versions(),
    }
    path = folder / f"{name}.pth"
    save_checkpoint(path, checkpoint)
    return measured, path


@torch.no_grad()
def _make_selective(model: Any, images: torch.Tensor) -> None:
    """Shift YOLOv3's biases so that `CANDIDATES` slots of an image score, each for about one class."""
    for layer in model.head.outputs:
        layer.weight *= 30  # slots that differ, as of a trained head
        layer.bias.view(-1, model.head.numbers)[:, OBJECTNESS + 1 :] = -3.0
    logits = model(images, [images.shape[2:]]).raw[0, :, OBJECTNESS]
    shift = logits.sort(descending=True).values[CANDIDATES] + 2.0  # the weakest candidate has sigmoid(-2) = 0.12
    for layer in model.head.outputs:
        layer.bias.view(-1, model.head.numbers)[:, OBJECTNESS] -= shift


def _forms(measured: Measured, path: Path, folder: Path, threads: int) -> dict[str, Any]:
    """The task in every form, by name."""
    forms = {"eager": measured.task}
    folded = copy.copy(measured.task)
    folded.model = fused(measured.task.model)
    last = copy.copy(measured.task)
    last.model = copy.deepcopy(folded.model).to(memory_format=torch.channels_last)
    forms |= {"fused": folded, "fused, channels_last": last}
    exported, integers = path.with_suffix(".onnx"), path.with_suffix(".int8.onnx")
    if not exported.exists():
        export_checkpoint(path, exported, check_on=[str(measured.files[0].parent)])
    forms["ONNX Runtime"] = restore_exported(exported, threads=threads)[1].task
    if not integers.exists():
        import onnx

        checkpoint, facts, content = read(exported)
        model = forms["ONNX Runtime"].model
        batches = [measured.prepared(number) for number in range(len(measured.files))]
        feeds = (model.feeds(batch.images, [target.size for target in batch.targets]) for batch in batches)
        made = quantized(onnx.load_from_string(content), feeds, gives=facts.gives)
        del made.metadata_props[:]
        describe(made, checkpoint, facts)
        integers.write_bytes(made.SerializeToString())
    forms["ONNX Runtime, INT8"] = restore_exported(integers, threads=threads)[1].task
    return forms


def _times(measured: Measured, forms: dict[str, Any], *, rounds: int, threads: int, whole: bool) -> Times:
    """Seconds of each form a round: every picture once."""
    ready = [measured.prepared(number) for number in range(len(measured.files))]

    def run(task: Any) -> None:
        for number, batch in enumerate(ready):
            task.predict(task.model, measured.prepared(number) if whole else batch)

    clock = time.process_time if threads == 1 else time.perf_counter
    return in_turn(
        {name: lambda task=task: run(task) for name, task in forms.items()},  # type: ignore[misc]
        rounds=rounds,
        clock=clock,
    )


def _rows(name: str, measured: Measured, forms: dict[str, Any], *, rounds: int, threads: int) -> list[Row]:
    """A row a form, for the network and postprocess alone, and on one thread with the preparation, too."""
    pictures, (_, side, _, target) = len(measured.files), TASKS[name]
    batches = [measured.prepared(number) for number in range(pictures)]
    said = {form: agreement(measured.task, task, batches).text() for form, task in forms.items()}
    rows = []
    for whole in (False, True) if threads == 1 else (False,):
        times = _times(measured, forms, rounds=rounds, threads=threads, whole=whole)
        ratios = {form: ratio_of(times["eager"], times[form]) for form in forms if form != "eager"}
        best = max(EXACT, key=lambda form: ratios[form][0])
        for form, (ratio, spread) in ratios.items():
            what = f"{name} {side} px, {threads} thread{'s' * (threads > 1)}, {'from the file' * whole or 'prepared'}"
            rows.append(
                Row(
                    key="inference",
                    what=f"{what}: {form}",
                    ours=f"{pictures / float(np.median(times[form])):.1f} images/s",
                    beside=f"eager {pictures / float(np.median(times['eager'])):.1f} images/s",
                    ratio=ratio,
                    spread=spread,
                    target=target if form == best and not whole else None,
                    note=said[form],
                )
            )
    return rows


def result(*, quick: bool) -> Result:
    """The rows.

    Args:
        quick: the classifier alone, few rounds.
    """
    one_thread()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_sample(folder / "sample", train=1, test=3, crops_per_class=0)
        files = sorted((folder / "sample").rglob("JPEGImages/*.jpg"))
        for name in ("classifier",) if quick else TASKS:
            measured, path = _built(name, folder, files)
            for threads in THREADS[:1] if quick else THREADS:
                torch.set_num_threads(threads)
                forms = _forms(measured, path, folder, threads)
                rows += _rows(name, measured, forms, rounds=3 if quick else 5, threads=threads)
            torch.set_num_threads(1)
    return Result(rows, versions_of("torch", "timm", "onnxruntime", "numpy"))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
