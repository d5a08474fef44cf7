# Splats and captures meet in one world, wherever the capture lies and whoever normalised it.
import importlib
import json
import sys
from copy import deepcopy

import numpy as np
import pycolmap
import pytest
import torch

import scenes
from examples.gsplat.flags import Flags
from examples.gsplat.inputs import load_scene_of
from reconstruction import Start
from scenes.formats.colmap import write_model
from scenes.frame import list_worlds
from scenes.normalize import transform_points
from splats.formats import ply
from splats.gaussians import from_points

command = importlib.import_module("examples.gsplat.simple_trainer_difix3d")
UTM = np.array([448000.0, 5411000.0, 300.0])


def run(monkeypatch, *flags):
    base = ["mcmc", "--data_factor", 1, "--no-fix", "--no-save_video"]
    monkeypatch.setattr(sys, "argv", ["trainer", *map(str, [*base, *flags])])
    command.main()


def place(capture, folder, offset):
    """The same capture elsewhere."""
    model = pycolmap.Reconstruction(capture / "sparse/0")
    model.transform(pycolmap.Sim3d(1, pycolmap.Rotation3d(), offset))
    folder.mkdir()
    write_model(model, folder)
    (folder / "images").symlink_to(capture / "images")
    return folder


def read_psnr(result, step):
    return json.loads((result / f"stats/val_step{step:04d}.json").read_text())["psnr"]


@pytest.mark.parametrize("flag", ["--normalize_world_space", "--no-normalize_world_space"])
def test_training_far_away_is_training_near(capture, tmp_path, monkeypatch, flag):
    results = []
    for name, offset in (("near", np.zeros(3)), ("far", UTM)):
        data, result = place(capture, tmp_path / f"{name}_data", offset), tmp_path / name
        run(monkeypatch, "--data_dir", data, flag, "--max_steps", 8, "--result_dir", result)
        content = json.loads((result / "cameras.json").read_text())
        back = np.linalg.inv(np.array(content["transform"]))
        means = ply.read(result / "ply/point_cloud_7.ply").means.detach().double().numpy()
        positions = np.linalg.inv(np.array(content["viewmats"]))[:, :3, 3]
        results.append(
            [transform_points(back, values) - offset for values in (means, positions)]
            + [read_psnr(result, 7)]
        )
    (means, positions, psnr), (far_means, far_positions, far_psnr) = results
    assert np.abs(far_positions - positions).max() < 2e-6
    assert np.median(np.abs(far_means - means)) < 1e-4
    assert far_psnr == pytest.approx(psnr, abs=0.02)


def test_the_world_of_a_result_goes_with_its_splats(capture, tmp_path, monkeypatch):
    """As of a run by a version that normalised otherwise."""
    result = tmp_path / "result"
    run(monkeypatch, "--data_dir", capture, "--max_steps", 3, "--result_dir", result)
    file = result / "cameras.json"
    content = json.loads(file.read_text())
    stored = torch.diag(torch.tensor([1.5, 1.5, 1.5, 1])).double()
    world = scenes.load(capture, progress=False).in_world(stored)
    content |= {"transform": stored.tolist(), "viewmats": world.cameras.viewmats.tolist()}
    file.write_text(json.dumps(content))
    own = torch.eye(4).double()
    for options, world in (
        ({"eval_only": True}, stored),
        ({}, stored),  # resumed
        ({"normalize_world_space": False}, own),  # refused later: that run was normalised
        ({"normalize_world_space": False, "resume": False}, own),
    ):
        flags = Flags(capture, data_factor=1, result_dir=result, **options)
        assert torch.equal(load_scene_of(None, flags, torch.device("cpu")).transform, world)
    content["viewmats"][0][0][3] = 9.0  # one camera elsewhere, and then all: another capture
    file.write_text(json.dumps(content))
    flags = Flags(capture, data_factor=1, result_dir=result)
    assert torch.equal(load_scene_of(None, flags, torch.device("cpu")).transform, stored)
    for viewmat in content["viewmats"]:
        viewmat[0][3] += 9.0
    file.write_text(json.dumps(content))
    assert not torch.equal(load_scene_of(None, flags, torch.device("cpu")).transform, stored)


def test_splats_in_gsplats_world_are_found_there(capture, tmp_path, monkeypatch, caplog):
    offset = np.array([2.0, -1.0, 3.0])
    data = place(capture, tmp_path / "data", offset)
    scene = scenes.load(data, normalize=True, progress=False)
    name, transform = list(list_worlds(scene).items())[-1]
    generator = torch.Generator().manual_seed(0)
    points = 0.7 * torch.randn(200, 3, generator=generator)  # what the photos show
    colors = torch.rand(200, 3, generator=generator)
    truth = from_points(points, colors, opacity=0.9, scale=0.7, generator=generator)
    size = torch.linalg.det(transform[:3, :3]) ** (1 / 3)
    moved = transform_points(transform.numpy(), points.double().numpy() + offset)
    truth["means"].data = torch.from_numpy(moved).float()
    truth["scales"].data += size.log().float()
    (tmp_path / "splats").mkdir()
    ply.write(tmp_path / "splats/raw.ply", truth)
    flags = ["--data_dir", data, "--ply", tmp_path / "splats/raw.ply", "--sh_degree", 0]
    run(monkeypatch, *flags, "--max_steps", 1, "--result_dir", tmp_path / "result")
    assert f"lies in {name}: taking that" in caplog.text
    assert read_psnr(tmp_path / "result", 0) > 20


def test_thin_splats_are_told_from_splats_elsewhere(capture, tmp_path, monkeypatch, caplog):
    """As after a few steps; where the result states the world, that is not questioned."""
    result = tmp_path / "result"
    run(monkeypatch, "--data_dir", capture, "--max_steps", 1, "--result_dir", result)
    thin = ply.read(result / "ply/point_cloud_0.ply")
    thin["opacities"].data[:] = -2.5
    away = deepcopy(thin)
    away["means"].data += 1e3
    for folder in (result / "ply", tmp_path / "alone/ply"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, splats in (("thin", thin), ("away", away)):
            file = folder / f"{name}.ply"
            ply.write(file, splats)
            flags = Flags(capture, data_factor=1, ply=file, eval_only=True)
            if name == "away" and folder.parent != result:
                with pytest.raises(ValueError, match="next to nothing of the splats"):
                    load_scene_of(Start.from_ply(file), flags, torch.device("cpu"))
                continue
            caplog.clear()
            load_scene_of(Start.from_ply(file), flags, torch.device("cpu"))
            assert "shows little of what the photos do" in caplog.text
