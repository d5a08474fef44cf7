# The demo: what visitors do, without a browser and in one.
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.efficient_lvsm.demo.photos import Photos, crop, list_photos
from examples.efficient_lvsm.demo.visits import Visits
from generators.session import Session
from models.checkpoints import system
from models.efficient_lvsm import EfficientLVSM, tiny
from models.efficient_lvsm.adapter import SYSTEM
from scenes import procedural
from scenes.re10k import list_scenes, read_chunk, write_scene
from tests.conftest import GUARD, ROOT
from tests.scenes.test_re10k import make_scene

SCRIPT = "examples/efficient_lvsm/app.py"
LONGEST = 300  # seconds until something hangs
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
QUIET += ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = EfficientLVSM(tiny()).eval().requires_grad_(False)
    model.colors.weight.mul_(20)  # far from grey, so that pictures differ
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Weights, a capture of 8 photos, and a list of one scene of 6."""
    folder = tmp_path_factory.mktemp("demo")
    system.export(SYSTEM, model, folder / "tiny.safetensors")
    procedural.write(
        folder / "room", 5, n_views=8, width=64, height=48, path="walk", progress=False
    )
    torch.save([make_scene("walk", 6)[0]], folder / "0.torch")
    (scene,) = read_chunk(folder / "0.torch")
    (folder / "full_list.txt").write_text(f"{write_scene(scene, folder / 'walk')}\n")
    return folder


@pytest.fixture(scope="module")
def photos(folder):
    return list_photos([folder / "room"], [folder / "full_list.txt"], 32, 8)


@pytest.fixture
def visits(model, photos):
    return Visits(lambda: Session(model, capacity=3), photos, most=2)


def test_scenes_are_squares_of_captures_and_lists(photos, folder):
    room, walk = photos
    assert (room.name, len(room), walk.name, len(walk)) == ("room", 8, "walk", 6)
    assert (room.target, walk.target) == (0, 3)  # held out; in the middle
    for scene in photos:
        image, camera = scene.load(1)
        assert image.shape == (32, 32, 3) and camera.size == (32, 32)
    (chunked,) = list_photos([], [folder], 32, 8)  # 0.torch is there
    assert torch.equal(chunked.load(2)[0], walk.load(2)[0])
    assert len(list_scenes(folder, 0)) == len(list_scenes(folder / "full_list.txt", 0)) == 0
    narrow = list_photos([folder / "room"] * 2, [], 32, 8, window=4)
    assert [scene.name for scene in narrow] == ["room", "room (2)"]
    assert narrow[0].names == room.names[2:6]
    image, K = crop(Image.new("RGB", (40, 80)), torch.eye(3), 32, 8)  # portrait: its width counts
    assert image.shape == (32, 32, 3) and K[0, 0] == pytest.approx(0.8)


def test_views_come_and_go(visits, photos):
    visit = visits.choose("a", 0)
    assert len(visit.frames) == 2 and visit.target not in visit.frames.values()
    two, psnr = visit.prediction, visit.psnr
    farthest = visit.farthest()
    assert farthest in visit.others() and visit.target not in visit.others()
    positions = photos[0].positions
    there = positions[list(visit.frames.values())]
    distance = {i: np.linalg.norm(positions[i] - there, axis=1).min() for i in visit.others()}
    assert distance[farthest] == max(distance.values())
    visit.add()
    assert farthest in visit.frames.values() and visit.is_full
    assert not torch.equal(visit.prediction, two)
    with pytest.raises(ValueError, match="room for 3 photos"):
        visit.add()
    visit.remove()
    assert torch.allclose(visit.prediction, two, atol=1e-6) and visit.psnr == pytest.approx(psnr)
    first = next(iter(visit.frames.values()))
    visit.remove(first)
    assert first not in visit.frames.values() and len(visit.images) == 1
    visit.add(first)  # their order is nothing
    assert torch.allclose(visit.prediction, two, atol=1e-5)
    with pytest.raises(ValueError, match="is there already"):
        visit.add(first)
    with pytest.raises(ValueError, match="is not there"):
        visit.remove(farthest)
    visit.aim(first)
    assert "has seen it" in visit.log[-1]
    visit.clear()
    assert visit.prediction is None and visit.psnr is None and not visit.session.views
    with pytest.raises(ValueError, match="no view is there"):
        visit.remove()
    said = "\n".join(visit.log)
    assert re.search(r"added frame_0000\d.png, the farthest: encoded in \d+ ms", said)
    assert re.search(r"rendered from 3 views in \d+ ms; cache 0.0469 of 0.0469 MiB; ", said)


def test_visitors_do_not_mix_and_are_forgotten(visits):
    one, other = visits.choose("a", 0), visits.choose("b", 0)
    before = other.prediction
    one.add()
    assert len(one.frames) == 3 and len(other.frames) == 2
    other.aim(other.target)
    assert torch.equal(other.prediction, before)
    assert visits.find("a", 0) is one  # now "b" is the one idle the longest
    visits.choose("c", 1)
    assert list(visits.visits) == ["a", "c"]
    assert "begun anew" in visits.find("b", 1).log[-1]
    visits.leave("b")
    assert list(visits.visits) == ["c"]


def test_a_scene_of_one_place_is_refused(model):
    image = torch.zeros(32, 32, 3)
    still = Photos("still", ("a", "b"), np.tile(np.eye(4), (2, 1, 1)), 0, lambda _: (image, 0))
    with pytest.raises(ValueError, match="at one place"):
        Visits(lambda: Session(model), [still], most=1).choose("a", 0)


def test_mistakes_are_one_sentence(folder, run_script, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        for flags, message in (
            ((), "no scene: name captures, or lists of scenes with --lists"),
            (("x", "--views", 1), "--views 1 must be at least 2"),
            (("x", "--window", 2), "--window 2 must be at least 3"),
            (("x", "--port", used), f"port {used} is in use; choose another one with --port"),
            (("x", "--device", "abacus"), "--device abacus is not a device"),
            (("x", "--checkpoint", "no.pt"), "no.pt: no such checkpoint file"),
            (("x", "--checkpoint", folder / "tiny.safetensors"), "x does not exist"),
            (
                ("--lists", "x", "--checkpoint", folder / "tiny.safetensors"),
                "x: no such list of scenes",
            ),
        ):
            if "--port" not in flags:
                flags = (*flags, "--port", free_port())
            code, text = run_script(tmp_path, SCRIPT, *flags)
            assert code == 2 and message in text, text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def serve(*flags):
    """The command as a process: its address, and a function that waits for a line of its log."""
    port = free_port()
    command = ["bash", ROOT / "examples/efficient_lvsm/scripts/app.sh", *flags, "--port", port]
    # proxies that answer nobody: Gradio must not ask them for its own address
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env |= {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    pipes = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), env=env, **pipes) as process:

        def wait_for(text):
            lines = []
            for line in process.stderr:
                lines.append(line)
                if text in line:
                    return
            pytest.fail(f"{text!r} is not in {''.join(lines)}")

        guard = threading.Timer(LONGEST, process.kill)
        guard.start()
        try:
            wait_for("open http://")
            yield f"http://127.0.0.1:{port}", wait_for
        finally:
            guard.cancel()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=GUARD)
        assert process.returncode == 143


def test_in_a_browser(folder, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no chromium is on this machine")
    expect.set_options(timeout=1000 * LONGEST)
    flags = (folder / "room", "--lists", folder / "full_list.txt", "--views", 4)
    flags += ("--checkpoint", folder / "tiny.safetensors", "--device", "cpu")
    with serve(*flags) as (address, wait_for), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(QUIET))
        page, asked = browser.new_page(), []
        page.set_default_timeout(1000 * LONGEST)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        views, status = page.locator("#gallery .grid-container img"), page.locator("#status")
        picture = page.locator("#prediction img")

        def look(count):
            """The prediction's bytes and the log, when so many views are there."""
            expect(views).to_have_count(count)
            expect(status).to_contain_text(f"{count} of 4 input views active")
            said = page.locator("#log textarea").input_value()
            if not count:
                expect(picture).to_have_count(0)
                return None, said
            source = picture.get_attribute("src")
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(source) as file:
                return file.read(), said

        seen = [look(2)]
        for button, count in (("add", 3), ("add", 4), ("remove", 3)):
            page.click(f"#{button}")
            seen.append(look(count))
        pictures, logs = zip(*seen, strict=True)
        assert len(set(pictures[:3])) == 3 and pictures[3] == pictures[1]
        assert all(len(a) < len(b) and b.endswith(a) for a, b in pairwise(logs))
        other = browser.new_context().new_page()
        other.goto(address)
        expect(other.locator("#status")).to_contain_text("2 of 4 input views active")
        views.first.click()
        page.click("#remove")
        look(2)
        page.fill("#target input[type=number]", "5")
        page.keyboard.press("Enter")
        expect(page.locator("#log textarea")).to_have_value(
            re.compile(r"^.*\n.*target frame_00006.png")
        )
        assert look(2)[0] != pictures[0]
        page.click("#clear")
        look(0)
        expect(page.locator("#remove")).to_be_disabled()
        page.click("#next input")
        page.get_by_role("option", name="frame_00003.png").click()
        page.click("#add")
        assert "added frame_00003.png: " in look(1)[1]
        page.click("#scene input")
        page.get_by_role("option", name="walk").click()
        assert "scene walk: 6 photos" in look(2)[1]
        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address[7:]}
        other.close()
        wait_for("a page was closed; 1 open")
        browser.close()
