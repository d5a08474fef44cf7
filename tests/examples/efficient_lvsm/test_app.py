# The page of the demo: its logic, and itself in a browser.
import copy
import shutil
import socket
import subprocess
import time

import pytest
import torch

from examples.efficient_lvsm.app import Options, Visit, check_port, load_scenes
from models.efficient_lvsm import EfficientLVSM, tiny
from models.efficient_lvsm.adapter import LAYOUT
from scenes import procedural
from tests.conftest import GUARD, ROOT
from tests.examples.conftest import environment
from tests.scenes.test_re10k import make_scene

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EfficientLVSM(tiny()).eval()


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    procedural.write(folder, 5, n_views=8, width=64, height=48, path="walk", progress=False)
    return folder


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(LAYOUT.export(model), path)
    return path


def test_photos_come_and_go(model, town):
    (scene,) = load_scenes(Options(scenes=(town,)))
    visit = Visit(model, 4)
    visit.choose(scene)
    assert len(visit.photos) == 2 and visit.target not in visit.photos
    first = visit.render()
    visit.add()
    visit.add()
    assert not (visit.render() == first).all()
    with pytest.raises(ValueError, match="There is room for 4 photos"):
        visit.add()
    added = list(visit.photos)[2:]
    visit.remove()
    visit.remove(added[0])
    assert (visit.render() == first).all()  # as if they had never been there
    with pytest.raises(ValueError, match=f"Photo {added[0]} is not there"):
        visit.remove(added[0])
    visit.clear()
    assert visit.render() is None and not visit.photos
    with pytest.raises(ValueError, match="There is no photo to remove"):
        visit.remove()
    assert sum("added photo" in line for line in visit.lines) == 4


def test_visitors_do_not_mix(model, town):
    (scene,) = load_scenes(Options(scenes=(town,)))
    page = Visit(model, 3)
    one, two = copy.deepcopy(page), copy.deepcopy(page)
    one.choose(scene)
    two.choose(scene)
    two.add()
    assert (len(one.photos), len(two.photos), page.scene) == (2, 3, None)
    assert one.model is two.model is model
    two.remove()
    assert (one.render() == two.render()).all()


def test_processed_scenes_are_shown_too(model, tmp_path):
    torch.save([make_scene(frames=5)[0]], tmp_path / "0.torch")
    (scene,) = load_scenes(Options(lists=(tmp_path,)))
    visit = Visit(model, 3)
    visit.choose(scene)
    assert visit.scene.name == "0a1b" and visit.render().shape == (18, 32, 3)


def test_wrong_flags_are_one_sentence(tmp_path):
    for wrong, message in (({"views": 1}, "--views 1"), ({"port": 0}, "--port 0 must lie")):
        with pytest.raises(ValueError, match=message):
            Options(**wrong)
    with pytest.raises(ValueError, match="name captures, or --lists"):
        load_scenes(Options())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port} at 127.0.0.1 cannot be used"):
            check_port(Options(port=port))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(town, weights, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["bash", ROOT / "examples/efficient_lvsm/scripts/app.sh", town]
    command += ["--checkpoint", weights, "--port", port, "--views", 4]
    server = subprocess.Popen(
        [str(part) for part in command], env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        for line in server.stderr:
            if f"http://127.0.0.1:{port}" in line:
                break
        else:
            pytest.fail("the page did not start")
        with playwright.sync_playwright() as tool:
            browser = tool.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            page = browser.new_page(viewport={"width": 1200, "height": 1100})
            page.set_default_timeout(1000 * GUARD / 4)
            page.goto(f"http://127.0.0.1:{port}")

            def wait_for(count, before=None):
                """Until so many photos are there and another picture than before is drawn."""
                page.get_by_text(f"{count} of 4 photos").wait_for()
                end = time.monotonic() + GUARD / 4
                while time.monotonic() < end:
                    images = page.locator("#photos img").count()
                    pictures = page.locator("#view img")
                    drawn = pictures.first.get_attribute("src") if pictures.count() else None
                    if images >= count and drawn is not None and drawn != before:
                        return drawn
                    time.sleep(0.1)
                raise AssertionError(f"no {count} photos, or no other picture")

            start = wait_for(2)
            page.locator("#add").click()
            three = wait_for(3, start)
            page.locator("#add").click()
            four = wait_for(4, three)
            page.locator("#remove").click()
            wait_for(3, four)
            text = page.locator("#log textarea").input_value()
            assert text.count("added photo") == 4 and text.count("removed photo") == 1
            page.screenshot(path=tmp_path / "page.png")
            page.locator("#clear").click()
            page.get_by_text("0 of 4 photos").wait_for()
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=GUARD)
