"""What each command says to a file that was made to do harm; the output is the table of docs/hostile_input.md.

    python benchmarks/hostile_files.py

Makes a tiny data set, two configs, a sound checkpoint and a sound exported file (trickstack[export] is needed) in a
temporary folder, and in it one hostile file after the other; gives each to the command that would meet it, in this
process, as its command line would. Nothing is trained. At every command Python's audit events are watched: a process
that is started, a connection, or a file that is opened for writing outside the work folder ends this script with an
error, and so does a file that came into being there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import runpy
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image

_SHOWN = 500

REPOSITORY = Path(__file__).resolve().parents[1]

DETECTOR = """
from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import square_test, square_train
from transfer.data.voc import VOCDataset
from transfer.heads.box_head import BoxCriterion
from transfer.heads.faster_rcnn import FasterRCNNCriterion, FasterRCNNPostprocess, faster_rcnn_fpn
from transfer.heads.rpn import RPNCriterion
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Constant

_backbone = dict(type=TimmBackbone, name="test_resnet", weights=None, norm="batch")
model = dict(type=faster_rcnn_fpn, backbone=_backbone, width=16, head_width=32)
criterion = dict(type=FasterRCNNCriterion, rpn=dict(type=RPNCriterion), box=dict(type=BoxCriterion))
postprocess = dict(type=FasterRCNNPostprocess)
_voc = dict(type=VOCDataset, root="voc", splits="train")
data = dict(train=_voc, val=None, test=_voc)
augment = dict(train=dict(type=square_train, size=64), test=dict(type=square_test, size=64))
loader = dict(batch_size=2, workers=0)
optimizer = dict(type=SGD, lr=0.01, base_batch=2)
schedule = dict(type=Constant)
training = dict(epochs=1, preflight=False)
metrics = [dict(type=VOCMeanAP)]
"""
CLASSIFIER = """
from backbones.classifier_backbone import ClassifierBackbone
from transfer.augment.classification_presets import classification_test, classification_train
from transfer.data.image_list import ImageListDataset
from transfer.heads.classification import ClassificationPostprocess, classifier
from transfer.heads.classification_criterion import ClassificationCriterion
from transfer.metrics.accuracy import Accuracy
from transfer.optim.optimizers import SGD
from transfer.optim.schedules import Constant
from transfer.teacher import CheckpointTeacher

task = "classification"
model = dict(type=classifier, backbone=dict(type=ClassifierBackbone, name="test_resnet", weights=None))
criterion = dict(type=ClassificationCriterion, teacher=dict(type=CheckpointTeacher, path="evil.pth"))
postprocess = dict(type=ClassificationPostprocess)
_list = dict(type=ImageListDataset, root=".", list_file="list.txt")
data = dict(train=_list, val=None, test=_list)
augment = dict(train=dict(type=classification_train, size=32), test=dict(type=classification_test, size=32))
loader = dict(batch_size=2, workers=0)
optimizer = dict(type=SGD, lr=0.01, base_batch=2)
schedule = dict(type=Constant)
training = dict(epochs=1, preflight=False)
metrics = [dict(type=Accuracy)]
"""
XML = (
    "<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>40</xmax>"
    "<ymax>30</ymax></bndbox></object></annotation>"
)
LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY lol0 "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10}">' for n in range(1, 10))
    + "]><annotation><filename>&lol9;</filename></annotation>"
)
SECRET = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>'
ALIASES = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


class Touches:
    """Makes a file when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was_run",)


@dataclass
class Case:
    """One hostile file and the command that meets it."""

    what: str
    command: str
    """Tool and arguments, as typed in the work folder."""
    make: Callable[[], object]
    """Called in the work folder, which has the sound files again."""
    code: int = 2


def write(path: str, content: str | bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def changed(path: str, **changes: Any) -> None:
    """The sound checkpoint with other fields."""
    torch.save({**torch.load("sound.pth", weights_only=True), **changes}, path)


def with_config(path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """The sound checkpoint with another config."""
    config = json.loads(torch.load("sound.pth", weights_only=True)["config"])
    change(config)
    changed(path, config=json.dumps(config))


def with_graph(change: Callable[[Any, dict[str, Any]], object]) -> None:
    """The sound exported file, its graph or its description changed in place."""
    import onnx

    model = onnx.load("sound.onnx")
    about = json.loads(model.metadata_props[0].value)
    change(model, about)
    model.metadata_props[0].value = json.dumps(about)
    write("evil.onnx", model.SerializeToString())


def numbers_elsewhere(model: Any, about: dict[str, Any]) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("int64_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value="../outside/private.jpg")


def graph_with_system(model: Any, about: dict[str, Any]) -> None:
    config = json.loads(about["config"])
    config["postprocess"].update(type="os.system", command="touch was_run")
    about["config"] = json.dumps(config)


def graph_of_more_classes(model: Any, about: dict[str, Any]) -> None:
    about["class_names"] = ["cat", "dog"]


def compressed(path: str) -> None:
    """A checkpoint that is mostly zeros, deflated."""
    changed("plain.pth", extra=torch.zeros(50_000_000))
    with zipfile.ZipFile("plain.pth") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    os.remove("plain.pth")


def flipped(path: str) -> None:
    """A checkpoint with one other bit in its largest member."""
    data = bytearray(Path("sound.pth").read_bytes())
    with zipfile.ZipFile("sound.pth") as archive:
        member = max(archive.infolist(), key=lambda member: member.file_size)
    data[member.header_offset + 1000] ^= 1
    write(path, bytes(data))


def bomb_png() -> bytes:
    """A few bytes that state 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def coco(**entries: dict[str, Any]) -> str:
    """COCO JSON with the first entry of each named list changed."""
    content: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    for name, entry in entries.items():
        content[name][0].update(entry)
    return json.dumps(content)


def pipe(path: str) -> None:
    os.remove(path)
    os.mkfifo(path)


def wrong_values() -> str:
    content = json.loads(coco(images={"id": "1"}, categories={"name": "cat"}))
    content["annotations"] += [{"image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5]}]
    content["annotations"] += [{"image_id": 1, "category_id": 1, "bbox": [float("nan"), 0, -5, "5"]}, "box", None]
    return json.dumps(content)


def nested_xml() -> None:
    write("voc/Annotations/a.xml", XML.replace("<object>", "<a>" * 1000 + "</a>" * 1000 + "<object>"))


def filename_outside() -> None:
    os.remove("voc/JPEGImages/a.jpg")
    write("voc/Annotations/a.xml", XML.replace("a.jpg", "../../../outside/private.jpg"))


def link_to_itself() -> None:
    os.remove("voc/JPEGImages/a.jpg")
    os.symlink("a.jpg", "voc/JPEGImages/a.jpg")


def evil_teacher() -> None:
    changed("evil.pth", x=Touches())
    write("list.txt", "a.jpg cat\nvoc/JPEGImages/a.jpg dog\n")


def calls_system() -> None:
    changed("evil.pth", x=Touches())


def config_names_system(config: dict[str, Any]) -> None:
    config["criterion"].update(type="os.system", command="touch was_run")


def config_names_a_writer(config: dict[str, Any]) -> None:
    config["postprocess"].update(type="transfer.report.pages.write_picture")


EVALUATE, PREDICT = "evaluate.py evil.pth", "predict.py evil.pth a.jpg"
PREDICT_EXPORTED = "predict.py evil.onnx a.jpg"
DETECT, CLASSIFY = "train_det.py detector.py", "train_cls.py classifier.py"
CONVERT, CONVERT_JSON = "convert_data.py {} --to voc --output out", "convert_data.py x.json --to voc --output out"
WEIGHTS = f"{DETECT} --cfg-options model.backbone.weights=evil.pth"
CASES = (
    Case("a checkpoint whose pickle calls `os.system`", EVALUATE, calls_system),
    Case("the same, to go on from", f"{DETECT} --resume evil.pth", calls_system),
    Case("a bare pickle that calls it", PREDICT, lambda: write("evil.pth", pickle.dumps(Touches()))),
    Case("backbone weights that call it", WEIGHTS, lambda: torch.save({"state_dict": {}, "x": Touches()}, "evil.pth")),
    Case("a teacher that calls it", CLASSIFY, evil_teacher),
    Case("a mean of checkpoints, one calls it", "average_checkpoints.py sound.pth evil.pth --output m", calls_system),
    Case("a checkpoint whose config names `os.system`", EVALUATE, lambda: with_config("evil.pth", config_names_system)),
    Case("a checkpoint whose config names a function that writes", PREDICT,
         lambda: with_config("evil.pth", config_names_a_writer)),
    Case("class names that would clear the terminal", PREDICT, lambda: changed("evil.pth", class_names=["\x1b[2J<b>"])),
    Case("a checkpoint with fields of other types", EVALUATE,
         lambda: changed("evil.pth", class_names=5, best="high", backbone={})),
    Case("a checkpoint of zeros that unpacks to 200 MB", EVALUATE, lambda: compressed("evil.pth")),
    Case("a checkpoint with one bit flipped", EVALUATE, lambda: flipped("evil.pth")),
    Case("an empty checkpoint", PREDICT, lambda: write("evil.pth", b"")),
    Case("an exported file whose numbers lie in another file", PREDICT_EXPORTED, lambda: with_graph(numbers_elsewhere)),
    Case("an exported file whose config names `os.system`", PREDICT_EXPORTED, lambda: with_graph(graph_with_system)),
    Case("an exported file of three classes that names two", PREDICT_EXPORTED,
         lambda: with_graph(graph_of_more_classes)),
    Case("half an exported file", "evaluate.py evil.onnx",
         lambda: write("evil.onnx", Path("sound.onnx").read_bytes()[: os.path.getsize("sound.onnx") // 2])),
    Case("an XML entity bomb", DETECT, lambda: write("voc/Annotations/a.xml", LAUGHS)),
    Case("an external XML entity", DETECT, lambda: write("voc/Annotations/a.xml", SECRET)),
    Case("XML nested a thousand deep", CONVERT.format("voc"), nested_xml),
    Case("a named pipe in place of an XML file", DETECT, lambda: pipe("voc/Annotations/a.xml")),
    Case("a split list that leads out of the data", DETECT,
         lambda: write("voc/ImageSets/Main/train.txt", "../../../outside/private\n")),
    Case("a `<filename>` that leads out of the data", DETECT, filename_outside),
    Case("a COCO `file_name` that leads out of the data", CONVERT_JSON,
         lambda: write("x.json", coco(images={"file_name": "../outside/private.jpg"}))),
    Case("COCO with wrong types, a dangling id and NaN", CONVERT_JSON, lambda: write("x.json", wrong_values())),
    Case("JSON nested a hundred thousand deep", CONVERT_JSON, lambda: write("x.json", "[" * 100_000)),
    Case("a class number of 5,000 digits", CLASSIFY, lambda: write("list.txt", f"a.jpg {'9' * 5000}\n")),
    Case("an image list that leads out of the data", CLASSIFY,
         lambda: write("list.txt", "../outside/private.jpg cat\n/etc/passwd dog\n")),
    Case("a YAML alias bomb", CONVERT.format("yolo"),
         lambda: write("yolo/data.yaml", f"{ALIASES}train: *i\nnames: [cat]\n")),
    Case("YAML that asks for an object", CONVERT.format("yolo"),
         lambda: write("yolo/data.yaml", "train: !!python/object/apply:os.system ['touch was_run']\nnames: [cat]\n")),
    Case("a PNG that states 60,000 x 60,000 pixels", "predict.py sound.pth a.jpg", lambda: write("a.jpg", bomb_png())),
    Case("HTML called .jpg", "predict.py sound.pth a.jpg", lambda: write("a.jpg", "<html>")),
    Case("half a JPEG", "predict.py sound.pth a.jpg", lambda: write("a.jpg", Path("a.jpg").read_bytes()[:900])),
    Case("a photograph that links to itself", "check_data.py detector.py --output checked", link_to_itself, code=1),
    Case("an unknown key in a config", DETECT,
         lambda: write("detector.py", DETECTOR.replace("head_width", "head_widht"))),
)  # fmt: skip


def write_sound_files() -> None:
    """A devkit of two images, a YOLO set and two configs."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for path in ("a.jpg", "voc/JPEGImages/a.jpg", "voc/JPEGImages/b.jpg", "yolo/images/a.jpg"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        pixels = 255 - pixels
    for stem in "ab":
        write(f"voc/Annotations/{stem}.xml", XML.replace("a.jpg", f"{stem}.jpg"))
    write("voc/ImageSets/Main/train.txt", "a\nb\n")
    write("yolo/labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    write("yolo/data.yaml", "train: images\nnames: [cat]\n")
    write("detector.py", DETECTOR)
    write("classifier.py", CLASSIFIER)


def write_sound_checkpoint() -> None:
    """The detector before its first step."""
    from transfer.assemble import build_run
    from transfer.build import load_config
    from transfer.engine.checkpoint import save_checkpoint
    from transfer.engine.distributed import World

    run, _, _ = build_run(load_config("detector.py"), World(0, 1, torch.device("cpu")))
    save_checkpoint(Path("sound.pth"), run.state())


def write_sound_exported_file() -> None:
    """A classifier whose logits are the means of red, green and blue, as tools/export.py would write it."""
    from onnx import TensorProto, helper

    from transfer.build import load_config, to_json
    from transfer.engine.checkpoint import load_checkpoint
    from transfer.export.onnx_file import ExportFacts, describe, save

    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["logits"], keepdims=0),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, "height", "width"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(nodes, "means", [images], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    config = {"config": to_json(load_config("classifier.py")), "class_names": ["cat", "dog", "cow"], "category_ids": []}
    describe(model, load_checkpoint("sound.pth") | config, ExportFacts(gives="logits", multiple=1))
    save(model, Path("sound.onnx"))


class Watch:
    """Notes what a program may not do here: start another, connect, or write elsewhere than below `allowed`."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = str(allowed)
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "subprocess.Popen" and arguments[0] == "git":
            return  # asked for the commit of this project's own code
        if event in ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"):
            self.seen.append(f"{event} {arguments[:1]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and self._writes(arguments):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed + os.sep) and path != os.devnull:
                self.seen.append(f"writes {path}")

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        mode, flags = arguments[1], arguments[2]
        if isinstance(mode, str):
            return any(letter in mode for letter in "wax+")
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def call(command: str) -> tuple[int, str]:
    """Exit code and what was printed of a tool, run in this process as its command line would be."""
    tool, *arguments = command.split()
    printed = io.StringIO()
    before = sys.argv
    sys.argv = [tool, *arguments]
    code: object = None
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            runpy.run_path(str(REPOSITORY / "tools" / tool), run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    return int(code or 0) if isinstance(code, int) or code is None else 1, printed.getvalue()


def message_of(printed: str, root: Path) -> str:
    """The message alone: from "error:" on, else the findings; folders as seen from the work folder."""
    text = printed.replace(f"{root}{os.sep}work{os.sep}", "").replace(f"{root}{os.sep}", "../")
    if "error:" in text:
        text = text[text.index("error:") :]
        warnings = [line for line in printed.splitlines() if line.startswith("left out: ")]
        text = "\n".join([*(line.replace(f"{root}{os.sep}work{os.sep}", "") for line in warnings), text])
    return text.strip()


def files_below(folder: Path) -> Iterator[str]:
    for path, _, names in os.walk(folder):
        yield from (os.path.join(path, name) for name in names)


def rows(root: Path) -> Iterator[tuple[Case, int, str]]:
    """Every case with its exit code and message, checked.

    Args:
        root: an empty folder; `root/work` becomes the work folder.
    """
    work, outside = root / "work", root / "outside"
    outside.mkdir()
    Image.new("RGB", (60, 40)).save(outside / "private.jpg")
    sound = root / "sound"
    work.mkdir()
    os.chdir(work)
    write_sound_files()
    write_sound_checkpoint()
    write_sound_exported_file()
    assert call("predict.py sound.onnx a.jpg")[0] == 0
    shutil.rmtree("predictions")
    shutil.copytree(work, sound)
    left = sorted(files_below(outside))
    from matplotlib import font_manager  # noqa: F401  # lists the fonts of the machine, once

    watch = Watch(work)
    for case in CASES:
        os.chdir(root)
        shutil.rmtree(work)
        shutil.copytree(sound, work)
        os.chdir(work)
        case.make()
        watch.on = True
        code, printed = call(case.command)
        watch.on = False
        assert not watch.seen, f"{case.what}: {watch.seen}"
        assert not (work / "was_run").exists(), f"{case.what}: was run"
        assert sorted(files_below(outside)) == left, f"{case.what}: wrote outside"
        assert code == case.code, f"{case.what}: exit code {code}\n{printed}"
        assert "Traceback" not in printed, f"{case.what}:\n{printed}"
        yield case, code, message_of(printed, root)


def main() -> None:
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MPLCONFIGDIR", folder)
        print("| File | Command | Exit | Message |\n|---|---|---|---|")
        try:
            for case, code, message in rows(Path(folder).resolve()):
                shown = message if len(message) <= _SHOWN else f"{message[:_SHOWN]} ..."
                cell = "<br>".join(f"`{line.strip()}`" for line in shown.replace("|", "\\|").splitlines())
                print(f"| {case.what} | `tools/{case.command}` | {code} | {cell} |", flush=True)
        finally:
            os.chdir(here)
    print(f"\n{len(CASES)} files: nothing was executed, and nothing was written outside the work folder.")


if __name__ == "__main__":
    main()
