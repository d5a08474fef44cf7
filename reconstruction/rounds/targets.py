# Where novel views are wanted, and how far a round goes towards them.
from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation, Slerp

from reconstruction.rounds.settings import FixConfig
from scenes.cameras import Cameras
from scenes.nearest import measure_pose_distances, measure_spacing
from scenes.scene import Scene
from scenes.trajectory import check_inside, read_trajectory
from splats.paths import interpolate_path

AROUND = 0.5  # of the cameras' spacing: how far a perturbed view lies from its photo
TURNED = 0.1  # radians, at most


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
