import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from runtime.command import run_command
from scenes.cameras import Cameras
from splats import files, paths, save
from splats.formats import checkpoint
from splats.gaussians import Splats, from_points
from splats.view import pictures
from splats.view.__main__ import main
from splats.view.viewer import Viewer
from tests.conftest import GUARD

ROOT = Path(__file__).parent.parent.parent


def ball(count: int = 300, strays: int = 10) -> Splats:
    """Red Gaussians in a ball around (5, 0, 0), flat along z, and a few far away."""
    g = torch.Generator().manual_seed(0)
    points = torch.randn(count, 3, generator=g) * torch.tensor([1, 1, 0.3])
    points[:strays] *= 1000
    points += torch.tensor([5.0, 0, 0])
    splats = from_points(points, torch.tensor([[1.0, 0, 0]]).expand(count, 3), sh_degree=1)
    torch.nn.init.constant_(splats["scales"], -1.5)
    return splats


def capture(n: int = 6) -> Cameras:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    positions = np.stack([5 + 6 * np.cos(t), 6 * np.sin(t), 0 * t + 2], axis=1)
    poses = paths.look_at(positions, np.array([5.0, 0, 0]), np.array([0.0, 0, 1]))
    K = torch.tensor([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(np.linalg.inv(poses)).float(),
        K.repeat(n, 1, 1),
        torch.tensor([[128, 96]]).repeat(n, 1),
    )


def write_cameras(path: Path, cameras: Cameras) -> None:
    content = {name: getattr(cameras, name).tolist() for name in ("viewmats", "Ks", "sizes")}
    path.write_text(json.dumps(content))


def browser_view(start: pictures.InitialView, aspect: float = 4 / 3, width: int = 64) -> Cameras:
    """What a browser shows that took the start."""
    pose = paths.look_at(
        start.position.double().numpy()[None], start.target.double().numpy(), start.up.numpy()
    )[0]
    wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
    return pictures.make_browser_camera(wxyz, pose[:3, 3], start.fov, aspect, width)


def test_the_first_view_without_cameras_frames_the_bulk():
    start = pictures.choose_initial_view(ball())
    assert (start.target - torch.tensor([5.0, 0, 0])).norm() < 0.3
    assert 1 < (start.position - start.target).norm() < 6  # strays are 1000 away
    assert torch.equal(start.up, torch.tensor([0.0, 0, 1]))  # the ball is flat along z
    image, in_view = pictures.render_picture(ball(), browser_view(start), pictures.Settings())
    assert image.shape == (48, 64, 3)
    assert image[20:28, 28:36, 0].mean() > 60
    assert in_view > 100


def test_the_first_view_with_cameras_is_the_first_camera():
    cameras = capture()
    shown = browser_view(pictures.choose_initial_view(ball(), cameras), width=128)
    assert shown.size == (128, 96)
    torch.testing.assert_close(shown.viewmats[0], cameras.viewmats[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(shown.Ks[0], cameras.Ks[0], rtol=1e-4, atol=0)


def test_tall_windows_are_limited_by_their_height():
    assert browser_view(pictures.choose_initial_view(ball()), aspect=0.5, width=100).size == (
        50,
        100,
    )


def test_pictures_of_colour_depth_and_alpha():
    splats, camera = ball(), capture()[0]
    red, _ = pictures.render_picture(splats, camera, pictures.Settings(background=(0, 0, 1.0)))
    assert red[0, 0].tolist() == [0, 0, 255]
    assert red[48, 64, 0] > red[48, 64, 2]
    alpha, _ = pictures.render_picture(splats, camera, pictures.Settings(mode="alpha"))
    assert alpha[0, 0].tolist() == [0, 0, 0]
    assert alpha[48, 64, 0] > 60
    with torch.no_grad():
        splats["opacities"] += 10
    depth, _ = pictures.render_picture(splats, camera, pictures.Settings(mode="depth"))
    assert depth[0, 0].tolist() == [0, 0, 0]
    assert np.unique(depth.reshape(-1, 3), axis=0).shape[0] > 20
    nothing, in_view = pictures.render_picture(
        splats,
        Cameras(-torch.eye(4)[None], camera.Ks, camera.sizes),
        pictures.Settings(mode="depth"),
    )
    assert nothing.max() == 0
    assert in_view == 0


class Handles:
    """Stands in for viser's server, panel and clients: takes any call, keeps the pictures."""

    def __init__(self):
        self.pictures = []
        self.scene = SimpleNamespace(
            set_background_image=lambda image, **_: self.pictures.append(image),
            set_up_direction=lambda _: None,
        )
        self.camera = SimpleNamespace(
            wxyz=np.array([1.0, 0, 0, 0]),
            position=np.array([5.0, 0, -4]),
            fov=1.0,
            aspect=4 / 3,
            on_update=lambda callback: setattr(self, "moved", callback),
        )
        self.client_id = 0
        self.initial_camera = SimpleNamespace()
        self.atomic = nullcontext
        self.on_client_connect = self.on_client_disconnect = lambda _: None
        self.gui = self

    def __getattr__(self, name):
        return lambda *args, **_: SimpleNamespace(
            value=None, on_update=lambda _: None, on_click=lambda _: None
        )


def rest(viewer: Viewer) -> None:
    """Draw until nothing is due."""
    end = time.monotonic() + GUARD
    while (due := viewer.step()) is not None:
        assert time.monotonic() < end
        time.sleep(due)


def test_small_while_moving_and_sharp_at_rest():
    client = Handles()
    viewer = Viewer(Handles(), ball(), width=400)
    viewer._connect(client)
    viewer.moving_width = 100
    viewer.step()
    assert client.pictures[-1].shape[1] == 100
    rest(viewer)
    assert client.pictures[-1].shape == (300, 400, 3)
    drawn = len(client.pictures)
    assert viewer.step() is None
    assert len(client.pictures) == drawn  # nothing moved, nothing is drawn
    client.moved(None)
    viewer.step()
    assert client.pictures[-1].shape[1] < 400


def test_the_size_while_moving_follows_the_measured_time(monkeypatch):
    client = Handles()
    viewer = Viewer(Handles(), ball(), width=400)
    viewer._connect(client)
    for limit, expected in ((1e-9, pictures.SMALLEST), (100.0, 400)):
        monkeypatch.setattr("splats.view.viewer.MOVING_SECONDS", limit)
        for _ in range(12):
            client.moved(None)
            viewer.step()
        assert client.pictures[-1].shape[1] == expected


def test_the_path_plays_to_its_end(monkeypatch):
    monkeypatch.setattr("splats.view.viewer.PATH_FPS", 2)  # one of 16 frames every half second
    client = Handles()
    cameras = capture()
    viewer = Viewer(Handles(), ball(), cameras=cameras, width=100)
    viewer._connect(client)
    viewer._toggle_path(client)
    viewer.browsers[0].playing_since -= 100
    rest(viewer)
    assert viewer.browsers[0].playing_since is None
    np.testing.assert_allclose(client.camera.position, cameras.positions[-1], atol=1e-4)
    viewer._toggle_path(client)
    assert viewer.step() == 0
    np.testing.assert_allclose(client.camera.position, cameras.positions[0], atol=1e-4)
    viewer._toggle_path(client)
    assert viewer.browsers[0].playing_since is None


def test_cameras_json_in_both_forms(tmp_path):
    cameras = capture()
    write_cameras(tmp_path / "ours.json", cameras)
    poses = cameras.camtoworlds.double()
    inria = [
        {
            "id": i, "img_name": f"{i}", "width": 128, "height": 96, "fx": 100.0, "fy": 100.0,
            "position": poses[i, :3, 3].tolist(), "rotation": poses[i, :3, :3].tolist(),
        }
        for i in range(len(cameras))
    ]  # fmt: skip
    (tmp_path / "inria.json").write_text(json.dumps(inria))
    for name in ("ours.json", "inria.json"):
        back = files.read_cameras(tmp_path / name)
        torch.testing.assert_close(back.viewmats, cameras.viewmats, rtol=0, atol=1e-5)
        assert torch.equal(back.Ks, cameras.Ks)
        assert torch.equal(back.sizes, cameras.sizes)


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "[]", "{}", "[1]", '[{"width": 3}]', '{"viewmats": [NaN], "Ks": 1, "sizes": 2}',
     '{"viewmats": [[[NaN,0,0,0],[0,0,0,0],[0,0,0,0],[0,0,0,1]]],'
     ' "Ks": [[[1,0,0],[0,1,0],[0,0,1]]], "sizes": [[4,4]]}', "[" * 100_000],
)  # fmt: skip
def test_bad_cameras_json_is_named(tmp_path, text):
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(ValueError, match=r"cameras\.json") as error:
        files.read_cameras(tmp_path / "cameras.json")
    assert "\n" not in str(error.value)


def run_viewer(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "splats.view", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_page_answers_and_a_second_viewer_is_refused(tmp_path, free_port, monkeypatch, capsys):
    save(tmp_path / "ckpts/ckpt_9_rank0.pt", ball(), step=9)
    write_cameras(tmp_path / "cameras.json", capture())
    viewer = run_viewer(tmp_path, "--port", free_port, "--width", 160)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        page, deadline = b"", time.monotonic() + GUARD  # kernels may have to be compiled first
        while not page and time.monotonic() < deadline:
            try:
                page = direct.open(f"http://127.0.0.1:{free_port}", timeout=GUARD).read()
            except OSError:
                assert viewer.poll() is None, viewer.stderr.read()
                time.sleep(0.2)
        assert b"<html" in page
        monkeypatch.setattr(sys, "argv", ["view", str(tmp_path), "--port", str(free_port)])
        with pytest.raises(SystemExit) as stop:
            run_command(main)
        assert stop.value.code == 2
        assert capsys.readouterr().err == (
            f"error: port {free_port} is in use; choose another one with --port\n"
        )
    finally:
        viewer.terminate()
        viewer.communicate(timeout=GUARD)


def test_nothing_heavy_is_loaded_before_the_command_has_set_the_threads():
    code = "import sys, splats, splats.view.__main__; print({'torch', 'viser'} & set(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "set()\n"


def test_bad_arguments_are_one_sentence(tmp_path, monkeypatch, free_port):
    (tmp_path / "a.ply").write_bytes(b"ply\nnot really")
    (tmp_path / "empty").mkdir()
    for arguments, expected in (
        ((tmp_path / "a.ply", "--port", free_port), "a.ply is truncated"),
        ((tmp_path / "none", "--port", free_port), "no such file"),
        ((tmp_path / "empty", "--port", free_port), "no splats in"),
        ((tmp_path, "--port", 99999), "--port 99999"),
        ((tmp_path, "--width", 5), "--width 5"),
    ):
        monkeypatch.setattr(sys, "argv", ["view", *map(str, arguments)])
        with pytest.raises((ValueError, OSError), match=expected):
            main()


class Panel(Handles):
    """Keeps the dropdowns, which a test may turn."""

    def __init__(self):
        super().__init__()
        self.dropdowns = {}

    def add_dropdown(self, label, options, **_):
        handle = SimpleNamespace(value=options[0], options=options)
        handle.on_update = lambda callback: setattr(handle, "changed", callback)
        self.dropdowns[label] = handle
        return handle

    def add_rgb(self, *_):
        return SimpleNamespace(value=(0, 0, 0), on_update=lambda _: None)

    def add_slider(self, label, low, high, step, value, **_):
        return SimpleNamespace(value=value, on_update=lambda _: None)

    def add_checkbox(self, label, value):
        self.box = SimpleNamespace(value=value)
        self.box.on_update = lambda changed: setattr(self.box, "changed", changed)
        return self.box


def test_before_and_after_and_the_confidence_can_be_seen(tmp_path):
    after, before = ball(), ball()
    torch.nn.init.constant_(before["sh0"], 0.0)
    sure = torch.ones(300)
    panel, client = Panel(), Handles()
    viewer = Viewer(panel, after, width=160, before=before, confidence=sure)
    viewer._connect(client)
    shown = {}

    def show(which, mode):
        panel.dropdowns["Splats"].value, panel.dropdowns["Show"].value = which, mode
        panel.dropdowns["Show"].changed(None)
        rest(viewer)
        return client.pictures[-1].astype(int)

    for which in ("after", "before"):
        for mode in ("colour", "confidence"):
            shown[which, mode] = show(which, mode)
    assert (shown["after", "colour"] != shown["before", "colour"]).any()
    red, green, _ = shown["after", "confidence"].reshape(-1, 3).T
    assert (green > red + 30).any() and not (red > green).any()
    viewer.choices["after"] = after, torch.zeros(300)
    red, green, _ = show("after", "confidence").reshape(-1, 3).T
    assert (red > green + 30).any() and not (green > red).any()
    assert (shown["before", "confidence"] == shown["before", "colour"]).all()
    assert "confidence" not in Panel.add_dropdown(panel, "x", pictures.MODES).options


def test_confidence_is_read_from_a_checkpoint(tmp_path):
    splats = ball()
    file = tmp_path / "ckpts" / "ckpt_9_rank0.pt"
    checkpoint.write(file, splats, 9, confidence=torch.linspace(0, 1, splats.count))
    torch.testing.assert_close(files.read_confidence(tmp_path), torch.linspace(0, 1, splats.count))
    checkpoint.write(file, splats, 9)
    assert files.read_confidence(tmp_path) is None


def test_antialiased_splats_are_shown_so(tmp_path):
    panel, client = Panel(), Handles()
    viewer = Viewer(panel, ball(), width=160, antialiased=True)
    viewer._connect(client)
    shown = {}
    for box in (True, False):
        panel.box.value = box
        panel.box.changed(None)
        rest(viewer)
        shown[box] = client.pictures[-1]
        settings = pictures.Settings(antialiased=box, sh_degree=0)
        camera = pictures.make_browser_camera(
            client.camera.wxyz, client.camera.position, 1.0, 4 / 3, viewer.width
        )
        assert (shown[box] == pictures.render_picture(ball(), camera, settings)[0]).all()
    assert (shown[True] != shown[False]).any()

    assert not files.read_antialiased(tmp_path)
    for text, expected in (
        ("antialiased: true\n", True),
        ("strategy: !!python/object:gsplat.DefaultStrategy {}\nantialiased: true\r\n", True),
        ("random_bkgd: false\nantialiased: false\n", False),
        ("about: antialiased: true\n", False),
    ):
        (tmp_path / "cfg.yml").write_text(text)
        assert files.read_antialiased(tmp_path) is expected
