"""tools/check_data.py as a user meets it: exit codes, what is printed, what is left on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faulty_sets import APPLES, TEST, TRAIN, VOC_FAULTS, config_of, write_voc, xml_of
from PIL import Image

from transfer.checking.check import check_detection
from transfer.checking.images import ImageFacts, inspect_images
from transfer.checking.page import draw_page
from transfer.checking.progress import with_progress
from transfer.checking.report import as_text

RunTool = Callable[..., tuple[int, str]]
CONFIG = "configs/voc_folder_frcnn_lite0.py"


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes a second to draw, and has tests of its own."""
    monkeypatch.setattr("transfer.checking.page.draw_page", lambda report, path: None)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below the folder with size and time."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_sound_data(tmp_path: Path, run_tool: RunTool, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_voc(tmp_path / "voc")
    before = listing(folder)
    code, errors = run_tool("check_data", repository / CONFIG, "--data", folder, "--output", tmp_path / "out")
    assert code == 0
    assert "checked 36 of 36 images" in errors
    assert listing(folder) == before
    assert sorted(os.listdir(tmp_path / "out")) == ["check_data.jpg", "findings.json"]
    content = json.loads((tmp_path / "out/findings.json").read_text())
    assert content["counts"] == {"error": 0, "warning": 0, "note": 0}
    assert content["findings"] == []
    assert content["class_names"] == ["apple", "pear"]
    assert {name: part["images"] for name, part in content["statistics"].items()} == {"train": 28, "val": 2, "test": 6}
    with Image.open(tmp_path / "out/check_data.jpg") as page:
        assert page.format == "JPEG"
        assert min(page.size) > 900


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize(("what", "expected"), [("cut image", 1), ("tiny", 0), ("one pixel outside", 0)])
def test_the_exit_code_is_that_of_the_worst(
    tmp_path: Path, run_tool: RunTool, repository: Path, what: str, expected: int
) -> None:
    folder = write_voc(tmp_path / "voc")
    VOC_FAULTS[what].plant(folder)
    code, _ = run_tool("check_data", repository / CONFIG, "--data", folder, "--output", tmp_path / "out")
    assert code == expected
    (finding,) = json.loads((tmp_path / "out/findings.json").read_text())["findings"]
    assert finding["code"] == VOC_FAULTS[what].code
    assert finding["severity"] == VOC_FAULTS[what].severity


@pytest.mark.usefixtures("no_page")
def test_runs_are_numbered(
    tmp_path: Path, run_tool: RunTool, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_voc(tmp_path / "voc")
    monkeypatch.chdir(tmp_path)
    for number in ("001", "002"):
        assert run_tool("check_data", repository / CONFIG, "--data", "voc")[0] == 0
        assert (tmp_path / "runs/check_data/voc_folder_frcnn_lite0" / number / "findings.json").is_file()
    assert sorted(os.listdir(tmp_path)) == ["runs", "voc"]
    assert sorted(os.listdir(folder)) == ["Annotations", "ImageSets", "JPEGImages"]


def test_mistakes_end_in_a_message_before_anything_is_written(
    tmp_path: Path, run_tool: RunTool, repository: Path
) -> None:
    folder = write_voc(tmp_path / "voc")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    config = repository / CONFIG
    for arguments, expected in (
        ([config, "--data", tmp_path / "vox"], "no such folder"),
        ([repository / "configs/voc_folder_frcnn_lite.py", "--data", folder], "did you mean"),
        ([config, "--data", folder, "--output", tmp_path / "full"], "not empty"),
        ([config, "--data", folder, "--fix", tmp_path / "full"], "is there already"),
        ([config, "--data", folder, "--fix", folder / "Annotations/fixed"], "not to be touched"),
        ([config, "--data", folder, "--output", tmp_path / "full/notes.txt/deep"], "no folder to write to"),
        ([config, "--data", folder, "--workers", "0"], "--workers is 0"),
        ([config, "--data", folder, "--cfg-options", "data.val.splitz=test"], "has no key 'splitz'"),
        ([config, "--data", folder, "--cfg-options", "data.train.class_names=apple"], "class_names is the text"),
    ):
        code, errors = run_tool(
            "check_data", *arguments, *([] if "--output" in arguments else ["--output", tmp_path / "o"])
        )
        assert code == 2, arguments
        assert expected in errors
        assert "Traceback" not in errors
        assert "checked" not in errors  # said before the images are decoded, which may take hours
        assert sorted(os.listdir(tmp_path)) == ["full", "voc"]


@pytest.mark.usefixtures("no_page")
def test_fix_by_command_line(tmp_path: Path, run_tool: RunTool, repository: Path) -> None:
    folder = write_voc(tmp_path / "voc")
    for what in ("cut image", "in train and test", "outside"):
        VOC_FAULTS[what].plant(folder)
    before = listing(folder)
    config, fixed = repository / CONFIG, tmp_path / "fixed"
    assert run_tool("check_data", config, "--data", folder, "--output", tmp_path / "1")[0] == 1
    code, _ = run_tool("check_data", config, "--data", folder, "--output", tmp_path / "2", "--fix", fixed)
    assert code == 0  # the copy is what training is to use
    assert listing(folder) == before
    assert run_tool("check_data", config, "--data", fixed, "--output", tmp_path / "3")[0] == 0
    assert json.loads((tmp_path / "3/findings.json").read_text())["findings"] == []


@pytest.mark.usefixtures("no_page")
def test_training_runs_on_the_repaired_copy(tmp_path: Path, run_tool: RunTool, devkit: Path, repository: Path) -> None:
    from tiny_devkit import write_config

    folder = shutil.copytree(devkit, tmp_path / "kit") / "VOC2007"
    picture = folder / "JPEGImages/000003.jpg"
    picture.write_bytes(picture.read_bytes()[:-500])
    (folder / "JPEGImages/000005.jpg").unlink()
    path = folder / "Annotations/000006.xml"
    path.write_text(path.read_text().replace("<width>64<", "<width>99<"))
    config = write_config(tmp_path / "tiny.py", tmp_path / "kit")
    few = ("training.epochs=1", "loader.batch_size=2")
    assert run_tool("train_det", config, "--work-dir", tmp_path / "runs", "--cfg-options", *few)[0] == 2
    assert run_tool("check_data", config, "--output", tmp_path / "1", "--fix", tmp_path / "fixed")[0] == 0
    code, errors = run_tool(
        "train_det", config, "--data", tmp_path / "fixed", "--work-dir", tmp_path / "runs", "--cfg-options", *few
    )
    assert code == 0, errors
    assert "6 images" in errors  # of 8


@pytest.mark.parametrize("moment", ["decoding", "page"])
def test_an_interruption_leaves_no_half_file(
    tmp_path: Path, run_tool: RunTool, repository: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    name = {"decoding": "transfer.checking.images.inspect_image", "page": "matplotlib.figure.Figure.savefig"}[moment]
    monkeypatch.setattr(name, interrupt)
    folder = write_voc(tmp_path / "voc")
    arguments = ("--data", folder, "--output", tmp_path / "out", "--fix", tmp_path / "fixed")
    code, errors = run_tool("check_data", repository / CONFIG, *arguments)
    assert (code, errors.splitlines()[-1]) == (130, "interrupted")
    assert not (tmp_path / "fixed").exists()
    left = os.listdir(tmp_path / "out") if (tmp_path / "out").exists() else []
    assert left == ([] if moment == "decoding" else ["findings.json"])


def test_a_real_interrupt_stops_the_threads(tmp_path: Path, repository: Path) -> None:
    folder = write_voc(tmp_path / "voc")
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "JPEGImages/train_00.png", compress_level=1)
    lines = []
    for number in range(400):  # long enough to be interrupted on any machine
        (folder / f"JPEGImages/big_{number}.png").symlink_to("train_00.png")
        (folder / f"Annotations/big_{number}.xml").write_text(xml_of("big", APPLES, size=(600, 800)))
        lines.append(f"big_{number}\n")
    (folder / "ImageSets/Main/train.txt").write_text("".join(lines))
    process = subprocess.Popen(
        [sys.executable, str(repository / "tools/check_data.py"), str(repository / CONFIG), "--data", str(folder),
         "--output", str(tmp_path / "out"), "--workers", "2"],
        stderr=subprocess.PIPE, text=True, cwd=repository,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )  # fmt: skip
    assert process.stderr is not None
    assert "checked" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_the_text_shows_each_code_once(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for number in (3, 4, 5, 6, 7):
        path = folder / "Annotations" / f"{TRAIN[number]}.xml"
        path.write_text(xml_of(TRAIN[number], [*APPLES, ("apple", (9, 9, 9, 9))]))
    VOC_FAULTS["another size"].plant(folder)
    text = as_text(check_detection(config_of(folder), workers=1))
    lines = text.splitlines()
    start = lines.index("error: size-differs: 1 (the stated size is not the image's)")
    assert lines[start + 3] == "warning: box-without-area: 5 (boxes that span no area)"
    assert [line.split(":")[1].strip() for line in lines[start + 4 : start + 7]] == [
        str(folder / "Annotations" / f"train_0{number}.xml") for number in (3, 4, 5)
    ]
    assert lines[start + 7] == "  and 2 more, see findings.json"
    assert lines[start + 8].endswith("(--fix ends it)")
    assert lines[-1] == "1 error, 5 warnings, 0 notes"
    row = next(line for line in lines if line.startswith("train "))
    assert row.split()[1:4] == ["28", "0", "59"]


def test_a_page_of_nothing_and_of_names_outside_ascii(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "voc")
    for stem in (*TRAIN, *TEST, "val_00", "val_01"):
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, []))
    report = check_detection(config_of(folder, class_names=["apple"]), workers=1)
    draw_page(report, tmp_path / "empty.png")
    for stem in (*TRAIN, *TEST, "val_00", "val_01"):
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, [("pomme à $5 $", (3, 3, 20, 20))]))
    draw_page(check_detection(config_of(folder), workers=1), tmp_path / "named.png")
    empty, named = (np.asarray(Image.open(tmp_path / name)) for name in ("empty.png", "named.png"))
    assert named.shape[0] > empty.shape[0]
    assert sorted(os.listdir(tmp_path)) == ["empty.png", "named.png", "voc"]


def test_the_page_shows_the_boxes_of_the_class(tmp_path: Path) -> None:
    """Grey images, one box: the tile has the class's colour around the box and nowhere within."""
    folder = write_voc(tmp_path / "voc")
    for number, stem in enumerate((*TRAIN, *TEST, "val_00", "val_01")):
        Image.new("RGB", (50, 40), (100 + number,) * 3).save(folder / f"JPEGImages/{stem}.jpg")
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, [("apple", (11, 9, 40, 32))]))
    draw_page(check_detection(config_of(folder), workers=1), tmp_path / "page.png")
    page = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)[:290, :300]
    red = (page[..., 0] > 200) & (page[..., 1] < 80) & (page[..., 2] < 80)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    grey = (page.max(2) - page.min(2) < 3) & (page.max(2) < 150) & (page.max(2) > 90)
    image_rows, image_columns = np.flatnonzero(grey.sum(1) > 50), np.flatnonzero(grey.sum(0) > 50)
    height, width = np.ptp(image_rows), np.ptp(image_columns)
    assert width / height == pytest.approx(50 / 40, rel=0.03)
    assert (columns.min() - image_columns.min()) / width == pytest.approx(10 / 50, abs=0.03)
    assert (columns.max() - image_columns.min()) / width == pytest.approx(40 / 50, abs=0.03)
    assert (rows.min() - image_rows.min()) / height == pytest.approx(8 / 40, abs=0.03)
    assert (rows.max() - image_rows.min()) / height == pytest.approx(32 / 40, abs=0.03)


def test_only_a_few_images_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def paths() -> object:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield str(number)

    monkeypatch.setattr("transfer.checking.images.inspect_image", lambda path: ImageFacts(path, "image-missing"))
    found = set()
    for seen, facts in enumerate(inspect_images(paths(), workers=2), 1):  # type: ignore[arg-type]
        found.add(facts.path)
        assert taken <= seen + 2 * 8
    assert found == {str(number) for number in range(1000)}


def test_progress_passes_everything_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert list(with_progress(iter(range(7)), 7, "images")) == list(range(7))
    assert caplog.messages == [f"checked {number} of 7 images" for number in (1, 3, 5, 7)]
    assert list(with_progress([], 0, "images")) == []


@pytest.mark.usefixtures("no_page")
@pytest.mark.data
def test_bccd(tmp_path: Path, run_tool: RunTool, shared_data: Path, repository: Path) -> None:
    folder = shared_data / "bccd"
    before = listing(folder)
    arguments = ("--data", folder, "--output", tmp_path / "out", "--fix", tmp_path / "fixed")
    code, _ = run_tool("check_data", repository / CONFIG, *arguments)
    assert code == 0
    assert listing(folder) == before
    content = json.loads((tmp_path / "out/findings.json").read_text())
    found = [(each["severity"], each["code"], Path(each["file"]).stem) for each in content["findings"]]
    assert found == [
        ("warning", "box-without-area", "BloodImage_00343"),
        ("warning", "box-without-area", "BloodImage_00338"),
    ]
    assert content["statistics"]["train"]["boxes_per_class"] == {"RBC": 2381, "WBC": 214, "Platelets": 209}
    changed = [
        path.stem
        for path in (folder / "Annotations").glob("*.xml")
        if path.read_bytes() != (tmp_path / "fixed/Annotations" / path.name).read_bytes()
    ]
    assert sorted(changed) == ["BloodImage_00338", "BloodImage_00343"]
    code, _ = run_tool("check_data", repository / CONFIG, "--data", tmp_path / "fixed", "--output", tmp_path / "again")
    assert code == 0
    assert json.loads((tmp_path / "again/findings.json").read_text())["findings"] == []


@pytest.mark.usefixtures("no_page")
@pytest.mark.data
def test_fruit(tmp_path: Path, run_tool: RunTool, shared_data: Path, repository: Path) -> None:
    config = repository / "configs/xml_folder_frcnn_lite0.py"
    roots = [f"data.{part}.root={shared_data / 'fruit' / part}" for part in ("train", "test")]
    arguments = ("--output", tmp_path / "out", "--fix", tmp_path / "fixed")
    assert run_tool("check_data", config, "--cfg-options", *roots, *arguments)[0] == 0
    findings = json.loads((tmp_path / "out/findings.json").read_text())["findings"]
    found = {each["file"] for each in findings}
    stated = {
        str(path) for path in (shared_data / "fruit").glob("*/*.xml") if "<width>0</width>" in path.read_text("utf-8")
    }
    assert found == stated
    assert len(findings) == len(stated) == 37
    assert {each["code"] for each in findings} == {"size-unknown"}
    roots = [f"data.{part}.root={tmp_path / 'fixed' / part}" for part in ("train", "test")]
    assert run_tool("check_data", config, "--cfg-options", *roots, "--output", tmp_path / "again")[0] == 0
    assert json.loads((tmp_path / "again/findings.json").read_text())["findings"] == []
