# Captures far from their world's origin give the same scene as near it, and can be brought back.
import json

import numpy as np
import pycolmap
import pytest
import torch
from plyfile import PlyData, PlyElement

import scenes
from scenes.frame import choose_frame, list_worlds
from scenes.normalize import transform_points
from tests.scenes.known import measure_color_error, write_moved_capture

FAR = {"site": (400, 0, 0), "UTM": (448000, 5411000, 300), "ECEF": (4177000.25, 855000.5, 4728000)}
FAR["1e7"] = (1e7, -1e7, 1e7)


@pytest.mark.parametrize("place", FAR)
def test_a_normalised_scene_does_not_depend_on_the_place(known, tmp_path, place):
    near = scenes.load(known.path, normalize=True, progress=False)
    path = write_moved_capture(tmp_path, known, FAR[place])
    scene = scenes.load(path, normalize=True, progress=False)
    assert torch.allclose(scene.cameras.viewmats, near.cameras.viewmats, atol=1e-6)
    assert torch.allclose(scene.points, near.points, atol=1e-6)
    assert scene.scale == pytest.approx(near.scale, rel=1e-6)


@pytest.mark.parametrize("place", FAR)
def test_a_world_that_is_kept_is_shifted_by_whole_numbers(known, tmp_path, place):
    scene = scenes.load(write_moved_capture(tmp_path, known, FAR[place]), progress=False)
    offset = -scene.transform[:3, 3]
    assert torch.equal(offset, offset.round()) and not scene.is_normalized
    assert scene.cameras.positions.mean(0).abs().max() <= 0.51
    assert measure_color_error(scene) == pytest.approx(measure_color_error(known), abs=1e-4)
    assert any(f"{offset[0]:.0f}" in note and "cameras.json" in note for note in scene.notes)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_transform_brings_points_and_cameras_back(known, tmp_path, normalize):
    path = write_moved_capture(tmp_path, known, FAR["UTM"])
    scene = scenes.load(path, normalize=normalize, progress=False)
    back = np.linalg.inv(np.array(json.loads(json.dumps(scene.transform.tolist()))))
    model = pycolmap.Reconstruction(path / "sparse/0")
    truth = np.array([point.xyz for _, point in sorted(model.points3D.items())])
    # what float32 loses of local coordinates, not of those in the capture's world (0.5)
    assert np.abs(transform_points(back, scene.points.double().numpy()) - truth).max() < 2e-6
    views = sorted(model.images.values(), key=lambda view: view.name)
    truth = np.array([view.projection_center() for view in views])
    positions = np.linalg.inv(scene.cameras.viewmats.double().numpy())[:, :3, 3]
    assert np.abs(transform_points(back, positions) - truth).max() < 2e-6


def test_a_world_near_its_origin_stays_as_it_is(known):
    model = pycolmap.Reconstruction(known.path / "sparse/0")
    truth = np.array([point.xyz for _, point in sorted(model.points3D.items())])
    assert np.array_equal(known.points, truth.astype(np.float32))
    assert torch.equal(known.transform, torch.eye(4).double()) and known.notes == ()


def test_digits_survive_text_models(known, tmp_path):
    path = write_moved_capture(tmp_path, known, FAR["ECEF"])
    binary = scenes.load(path, progress=False)
    pycolmap.Reconstruction(path / "sparse/0").write_text(path / "sparse/0")
    for file in (path / "sparse/0").glob("*.bin"):
        file.unlink()
    text = scenes.load(path, progress=False)
    assert torch.allclose(text.cameras.viewmats, binary.cameras.viewmats, atol=1e-6)
    assert torch.allclose(text.points, binary.points, atol=1e-6)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_transforms_json_with_a_point_cloud_far_away(known, tmp_path, dtype):
    offset = np.array(FAR["UTM"], np.float64)
    poses = known.cameras.camtoworlds.double() * torch.tensor([1.0, -1, -1, 1])
    poses[:, :3, 3] += torch.from_numpy(offset)
    (tmp_path / "images").symlink_to(known.path / "images")
    K, (width, height) = known.cameras.Ks[0], known.cameras.size
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": pose.tolist()}
        for name, pose in zip(known.names, poses, strict=True)
    ]
    content = {"w": width, "h": height, "fl_x": K[0, 0].item(), "fl_y": K[1, 1].item()}
    content |= {"ply_file_path": "points.ply", "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    vertex = np.zeros(len(known.points), [(axis, dtype) for axis in "xyz"])
    for axis, values in zip("xyz", (known.points.double().numpy() + offset).T, strict=True):
        vertex[axis] = values
    PlyData([PlyElement.describe(vertex, "vertex")]).write(tmp_path / "points.ply")
    scene = scenes.load(tmp_path, progress=False)
    error = measure_color_error(scene, scene.points, known.point_colors)
    rounded = any("points were rounded to float32" in note for note in scene.notes)
    assert rounded == (dtype == "f4") == (error > 0.06)


def test_the_worlds_of_splats(known, tmp_path):
    scene = scenes.load(write_moved_capture(tmp_path, known, (3, 4, 0)), progress=False)
    normalised = scenes.load(scene.path, normalize=True, progress=False)
    own, normal, gsplat = list_worlds(normalised).values()
    assert torch.equal(own, scene.transform)
    assert torch.allclose(normal, normalised.transform, atol=1e-5)
    moved = scene.in_world(normal)
    assert torch.allclose(moved.cameras.viewmats, normalised.cameras.viewmats, atol=1e-5)
    assert torch.allclose(moved.points, normalised.points, atol=1e-5)
    assert not torch.allclose(gsplat, normal, atol=1e-2)  # it measures from the origin
    assert moved.in_world(normal) is moved


def test_poses_that_were_rounded_to_float32_are_told(known):
    viewmats = known.cameras.viewmats.double().numpy()
    poses = np.linalg.inv(viewmats)
    poses[:, :3, 3] += FAR["UTM"]
    for rounded in (False, True):
        if rounded:
            poses[:, :3, 3] = poses[:, :3, 3].astype(np.float32)
        _, notes = choose_frame(known.names, np.linalg.inv(poses), np.zeros((0, 3)), False)
        assert any("poses were rounded to float32" in note for note in notes) == rounded
