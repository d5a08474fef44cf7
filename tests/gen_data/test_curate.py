# One scene: the layout, pictures that are what they say, resuming, and failures that leave nothing.
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from gen_data.curate import curate
from gen_data.recipe import Recipe
from gen_data.results import is_finished, load_depth, read_frames, save_depth
from gen_data.strategies import Strategy
from scenes import Cameras
from splats.formats import ply
from splats.rasterize import rasterize
from tests.gen_data.conftest import HEIGHT, VIEWS, WIDTH


def picture(file):
    return np.asarray(Image.open(file)).astype(np.float32) / 255


def test_underfitting_renders_every_frame_at_every_iteration(captures, tmp_path, quick):
    recipe = quick("underfitting", render_iter=(4, 2), save_iter=(4,))
    line = curate(captures[0], tmp_path / "scene", recipe)
    assert "12 train, 0 test, 4 steps" in line
    folder = tmp_path / "scene/gs_recon"
    assert {p.name for p in folder.iterdir()} == {"train", "point_cloud", "done.json"}
    names = [f"{i:05d}" for i in range(VIEWS)]
    for iteration in (2, 4):
        for kind in ("renders", "gt", "alpha", "depth"):
            files = sorted((folder / f"train/ours_{iteration}" / kind).iterdir())
            assert [file.stem for file in files] == names
    photo = captures[0] / "images/frame_00008.png"
    truths = [folder / f"train/ours_{i}/gt/00007.png" for i in (2, 4)]
    assert (picture(truths[0]) == picture(photo)).all()
    assert truths[0].samefile(truths[1])  # stored once
    early, late = (picture(folder / f"train/ours_{i}/renders/00007.png") for i in (2, 4))
    assert (early != late).any()


def test_what_is_saved_shows_what_is_rendered(captures, tmp_path, quick):
    """The saved splats, rendered at the saved cameras, give the saved pictures."""
    curate(captures[0], tmp_path / "scene", quick(save_iter=(4,)))
    folder = tmp_path / "scene/gs_recon_sparse_4"
    splats = ply.read(folder / "point_cloud/iteration_4/point_cloud.ply")
    frames = read_frames(folder / "test/cameras.json")
    assert [f.index for f in frames] == [i for i in range(VIEWS) if i % 4]
    for frame in frames[::3]:
        view = frame.view
        assert (view.width, view.height) == (WIDTH, HEIGHT)
        camera = Cameras(
            torch.tensor([view.viewmat]), torch.tensor([view.K]), torch.tensor([[WIDTH, HEIGHT]])
        )
        # the spherical harmonics join later than at the 4th step
        render = rasterize(splats, camera, sh_degree=0)
        files = folder / "test/ours_4"
        name = f"{frame.place:05d}"
        color = render.colors[0].detach().clamp(0, 1).numpy()
        assert np.abs(picture(files / f"renders/{name}.png") - color).max() < 0.6 / 255
        alpha = render.alphas[0].detach().numpy()
        assert np.abs(picture(files / f"alpha/{name}.png") - alpha).max() < 0.6 / 255
        depth, known = render.depths[0].detach(), alpha > 0.1
        loaded = load_depth(files / f"depth/{name}.npz")
        assert (loaded / depth - 1).abs()[known].max() < 1e-3


def test_held_out_frames_are_counted_within_their_split(captures, tmp_path, quick):
    curate(captures[0], tmp_path / "scene", quick())
    folder = tmp_path / "scene/gs_recon_sparse_4"
    photos = sorted((captures[0] / "images").iterdir())
    for split, frames in {"train": (0, 4, 8), "test": (1, 2, 3, 5, 6, 7, 9, 10, 11)}.items():
        listed = json.loads((folder / split / "cameras.json").read_text())
        assert [entry["index"] for entry in listed] == list(frames)
        assert [entry["name"] for entry in listed] == [photos[i].name for i in frames]
        for place, index in enumerate(frames):
            truth = picture(folder / split / f"ours_4/gt/{place:05d}.png")
            assert (truth == picture(photos[index])).all()


def test_held_out_frames_do_not_train(captures, tmp_path, quick):
    """Splats trained on one half are the same whatever the other half shows."""
    other = tmp_path / "other"
    shutil.copytree(captures[0], other)
    for file in sorted((other / "images").iterdir())[6:]:
        Image.new("RGB", (WIDTH, HEIGHT), "red").save(file)
    recipe = quick("cross", save_iter=(4,), depth=False)
    plys = []
    for capture in (captures[0], other):
        curate(capture, tmp_path / "out" / capture.name, recipe)
        folder = tmp_path / "out" / capture.name / "gs_recon_cross_1"
        plys.append((folder / "point_cloud/iteration_4/point_cloud.ply").read_bytes())
        assert not (folder / "test/ours_4/depth").exists()
    assert plys[0] == plys[1]


@pytest.mark.parametrize("name", ["random", "noise"])
@pytest.mark.parametrize("start", ["random", "dense"])
def test_the_same_recipe_gives_the_same_pictures(captures, tmp_path, quick, name, start):
    recipe = quick(name, start=start, render_iter=(3,), depth=False, densify="mcmc", cap_max=350)
    state = torch.get_rng_state()
    for place in ("a", "b"):
        curate(captures[1], tmp_path / place / "scene", recipe)
    assert torch.equal(state, torch.get_rng_state())
    files = [sorted((tmp_path / place).rglob("renders/*.png")) for place in ("a", "b")]
    assert len(files[0]) == VIEWS
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    done = json.loads(next((tmp_path / "a").rglob("done.json")).read_text())
    counts = {"random": 350, "noise": 300}  # the capture's points up to the cap; the noise's own
    assert done["gaussians"] == {"3": counts[name]}


def test_a_finished_scene_is_known_by_its_settings(captures, tmp_path, quick):
    scene = tmp_path / "scene"
    assert not is_finished(scene, quick())
    curate(captures[0], scene, quick())
    assert is_finished(scene, quick())
    assert is_finished(scene, quick(cap_max=77))  # of mcmc only
    assert not is_finished(scene, quick(train_every=5))  # another folder
    with pytest.raises(ValueError, match=r"gs_recon_sparse_4 .*render_iter 4.*--overwrite"):
        is_finished(scene, quick(render_iter=(5,)))
    (scene / "gs_recon_sparse_4/done.json").unlink()
    with pytest.raises(ValueError, match=r"gs_recon_sparse_4 has no done.json"):
        is_finished(scene, quick())


def test_a_killed_run_starts_clean_and_a_failed_one_leaves_nothing(captures, tmp_path, quick):
    scene = tmp_path / "scene"
    stale = scene / ".gs_recon_sparse_4.partial/test/ours_9/renders/00000.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    curate(captures[0], scene, quick())
    assert [p.name for p in scene.iterdir()] == ["gs_recon_sparse_4"]
    assert not (scene / "gs_recon_sparse_4/test/ours_9").exists()

    def stop(done, total):
        if done == total:  # when there is something on the disk
            assert (scene / ".gs_recon_sparse_4.partial/test/ours_2").is_dir()
            raise RuntimeError("in the middle")

    before = (scene / "gs_recon_sparse_4/done.json").read_bytes()
    with pytest.raises(RuntimeError, match="in the middle"):
        curate(captures[0], scene, quick(render_iter=(2, 5)), progress=stop)
    assert [p.name for p in scene.iterdir()] == ["gs_recon_sparse_4"]
    assert (scene / "gs_recon_sparse_4/done.json").read_bytes() == before


def test_images_4_means_the_size_where_only_images_is_there(benchmark, tmp_path, quick):
    capture = benchmark / "0a/gaussian_splat"
    shutil.rmtree(capture / "images_4")
    curate(capture, tmp_path / "c", quick("cross", image_folder="images_4", depth=False))
    for file in (tmp_path / "c/gs_recon_cross_1").rglob("*.png"):
        assert Image.open(file).size == (WIDTH, HEIGHT)
    with pytest.raises(FileNotFoundError, match=r"--image_folder .*photos does not exist"):
        curate(capture, tmp_path / "c", quick(image_folder="photos"))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_depth_keeps_its_precision_whatever_the_scale(tmp_path, scale):
    depth = torch.linspace(0.1, 40, 200).reshape(10, 20) * scale
    depth[0, 0], depth[0, 1] = 0, float("inf")
    save_depth(tmp_path / "d.npz", depth)
    loaded = load_depth(tmp_path / "d.npz")
    assert loaded[0, 0] == loaded[0, 1] == 0
    assert (loaded / depth - 1).abs()[1:].max() < 1e-3
    (tmp_path / "d.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"d.npz is no depth"):
        load_depth(tmp_path / "d.npz")


def test_a_schedule_is_3dgs_s_unless_it_is_shrunk(quick):
    config = Recipe(Strategy("underfitting"), (1000, 7000)).config()
    assert (config.max_steps, config.strategy.refine_stop_iter) == (30_000, 15_000)
    assert Recipe(Strategy("underfitting"), (40_000,)).config().max_steps == 40_000
    config = quick(render_iter=(300, 600), max_steps=600, densify="mcmc", cap_max=99).config()
    assert (config.max_steps, config.strategy.refine_stop_iter) == (600, 500)
    assert config.strategy.cap_max == 99
    assert quick("noise").config().init_type == "random"
    assert quick("noise", start="dense").config().init_type == "sfm"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"render_iter": ()}, "--render_iter needs"),
        ({"render_iter": (0, 5)}, "--render_iter counts from 1"),
        ({"save_iter": (-1,)}, "--save_iter counts from 1"),
        ({"max_steps": 3}, "--max_steps 3 ends before iteration 4"),
        ({"seed": -1}, "--seed -1"),
        ({"image_folder": "../x"}, "--image_folder"),
        ({"train_every": 1}, "--train_every 1"),
        ({"sh_degree": 5}, "--sh_degree is 5"),
        ({"init_num_pts": 0}, "--init_num_pts is 0"),
        ({"densify": "mcmc", "cap_max": 0}, "cap_max must be"),
    ],
)
def test_absurd_values_are_refused_before_any_work(quick, fields, why):
    with pytest.raises(ValueError, match=why):
        quick(**fields)
