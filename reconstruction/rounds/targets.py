# Where novel views are wanted, and how far a round goes towards them.
from __future__ import annotations

import json
from pathlib import Path

import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from reconstruction.rounds.settings import FixConfig
from scenes.cameras import Cameras
from scenes.nearest import measure_pose_distances, measure_spacing
from scenes.scene import Scene
from splats.paths import interpolate_path

AROUND = 0.5  # of the cameras' spacing: how far a perturbed view lies from its photo
TURNED = 0.1  # radians, at most
FAR = 4.0  # times the capture's own extent: farther away is outside the scene


def choose_targets(scene: Scene, config: FixConfig, seed: int, most: int) -> Cameras:
    """The cameras that novel views should come to, at most so many, evenly chosen.

    ValueError for a trajectory that cannot be read or leaves the scene, and for "test" without
    held-out views.
    """
    train = scene.cameras[scene.drop_outliers(scene.split.train)]
    kind = config.targets
    if kind == "auto":
        if config.trajectory is not None:
            kind = "trajectory"
        else:
            kind = "test" if scene.split.test else "interp"
    if kind == "test":
        if not scene.split.test:
            raise ValueError("--targets test: no view is held out; use interp, or another --split")
        cameras = scene.cameras[scene.drop_outliers(scene.split.test)]
    elif kind == "interp":
        cameras = interpolate_path(train, min(most, 2 * len(train)), keyframes=len(train))
    elif kind == "perturb":
        cameras = perturb(train, most, seed)
    else:
        cameras = read_trajectory(config.trajectory, scene)
        check_inside(cameras, scene, config.trajectory)
    if len(cameras) > most:
        cameras = cameras[torch.linspace(0, len(cameras) - 1, most).round().long()]
    return cameras


def towards(
    wanted: Cameras, current: Cameras, train: Cameras, shift: float, in_world_units: bool
) -> Cameras:
    """Each wanted view, or a view on the way to it: `shift` from the nearest current one.

    `shift` counts in the spacing of the training cameras, or in world units; the rotation comes
    along by the same share of the way.
    """
    unit = 1.0 if in_world_units else measure_spacing(train)
    nearest = measure_pose_distances(wanted, current).argmin(1)
    poses = wanted.camtoworlds.double().clone()
    starts = current.camtoworlds.double()[nearest]
    for i, (start, end) in enumerate(zip(starts, poses.clone(), strict=True)):
        way = (end[:3, 3] - start[:3, 3]).norm().item()
        if way <= shift * unit * (1 + 1e-9) or way == 0:
            continue
        share = shift * unit / way
        poses[i, :3, 3] = torch.lerp(start[:3, 3], end[:3, 3], share)
        ends = Rotation.from_matrix(torch.stack((start[:3, :3], end[:3, :3])).numpy())
        poses[i, :3, :3] = torch.from_numpy(Slerp((0, 1), ends)(share).as_matrix())
    return Cameras(torch.linalg.inv(poses).to(wanted.viewmats), wanted.Ks, wanted.sizes)


def perturb(train: Cameras, count: int, seed: int) -> Cameras:
    """Training views moved and turned a little at random, `count` of them."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    indices = order.repeat(-(-count // len(train)))[:count]
    poses = train.camtoworlds.double()[indices]
    moves = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    moves = moves / moves.norm(dim=1, keepdim=True) * AROUND * measure_spacing(train)
    turns = (torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1) * TURNED
    poses[:, :3, 3] += moves
    poses[:, :3, :3] = poses[:, :3, :3] @ torch.from_numpy(
        Rotation.from_rotvec(turns.numpy()).as_matrix()
    )
    viewmats = torch.linalg.inv(poses).to(train.viewmats)
    return Cameras(viewmats, train.Ks[indices], train.sizes[indices])


def read_trajectory(path: Path, scene: Scene) -> Cameras:
    """The cameras in a file: our cameras.json, or a transforms.json (OpenGL axes), both in the
    capture's own world. ValueError or FileNotFoundError names the file and what is wrong."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file (--trajectory)") from None
    except (ValueError, RecursionError, OSError):
        raise ValueError(f"{path} is not JSON (--trajectory)") from None
    try:
        if "viewmats" in content:
            viewmats = torch.tensor(content["viewmats"], dtype=torch.float64)
            transform = torch.tensor(
                content.get("transform", torch.eye(4).tolist()), dtype=torch.float64
            )
            own = Cameras(
                viewmats, torch.tensor(content["Ks"]).float(), torch.tensor(content["sizes"]).long()
            )
            poses = torch.linalg.inv(transform) @ own.camtoworlds
        else:
            poses = torch.tensor(
                [f["transform_matrix"] for f in content["frames"]], dtype=torch.float64
            )
            if poses.shape[1:] == (3, 4):
                poses = torch.cat(
                    (poses, poses.new_tensor([0, 0, 0, 1]).expand(len(poses), 1, 4)), 1
                )
            poses = poses * poses.new_tensor([1, -1, -1, 1])  # OpenGL to OpenCV
            first = scene.cameras[scene.split.train[0]]
            own = Cameras(
                poses.float(), first.Ks.expand(len(poses), 3, 3), first.sizes.expand(len(poses), 2)
            )
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError):
        raise ValueError(
            f"{path} holds no cameras: give a cameras.json of a result, or a transforms.json"
        ) from None
    if not len(own) or not poses.isfinite().all():
        raise ValueError(f"{path} holds no cameras, or poses that are not finite (--trajectory)")
    return Cameras(world_to_camera(scene.transform @ poses), own.Ks, own.sizes)


def world_to_camera(poses: Tensor) -> Tensor:
    """[N,4,4] float32 of camera-to-world poses whose rotations may carry a scale."""
    turn = poses[:, :3, :3]
    poses = poses.clone()
    poses[:, :3, :3] = turn / torch.linalg.det(turn).abs()[:, None, None] ** (1 / 3)
    return torch.linalg.inv(poses).float()


def check_inside(cameras: Cameras, scene: Scene, path: Path) -> None:
    """ValueError if a camera of the file lies far outside of the scene."""
    train = scene.cameras[scene.drop_outliers(scene.split.train)].positions.double()
    middle = train.mean(0)
    reach = FAR * max((train - middle).norm(dim=1).max().item(), 1e-9)
    away = (cameras.positions.double() - middle).norm(dim=1)
    if len(train) > 1 and (away > reach).any():
        worst = int(away.argmax())
        raise ValueError(
            f"{path}: camera {worst} lies {away[worst] / reach * FAR:.1f} times as far from the "
            "scene's middle as any photo: is the trajectory in the capture's own world?"
        )
