# Where novel views are wanted, and the way there.
import json
from dataclasses import replace

import pytest
import torch

from reconstruction import FixConfig, original
from reconstruction.rounds.targets import choose_targets, perturb, towards
from scenes.nearest import measure_spacing
from scenes.scene import Split
from scenes.trajectory import check_inside, read_trajectory


def test_a_round_goes_no_farther_than_its_shift_and_rounds_arrive(scene):
    train, wanted = scene.cameras[[1, 4, 7]], scene.cameras[[0, 2, 3]]
    unit = measure_spacing(train)
    current, ways = train, []
    for _ in range(9):
        before = current
        current = towards(wanted, current, train, 0.3, False)
        step = torch.cdist(current.positions, before.positions).min(1).values
        assert (step <= 0.3 * unit + 1e-5).all()
        ways.append((current.positions - wanted.positions).norm(dim=1).max().item())
    assert ways[-1] < 1e-5 < ways[0]
    torch.testing.assert_close(current.viewmats, wanted.viewmats, atol=1e-5, rtol=0)
    turn = current.viewmats[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)


def test_the_original_counts_in_world_units(scene):
    train, wanted = scene.cameras[[1]], scene.cameras[[5]]
    moved = towards(wanted, train, train, 0.5, True)
    assert (moved.positions - train.positions).norm().item() == pytest.approx(0.5, rel=1e-5)


def test_targets_by_kind(scene):
    assert len(choose_targets(scene, FixConfig(), 0, 60)) == len(scene.split.test)
    assert len(choose_targets(scene, FixConfig(), 0, 1)) == 1
    everything = replace(scene, split=Split("all", tuple(range(len(scene))), (), "all"))
    path = choose_targets(everything, FixConfig(), 0, 60)
    assert len(path) == 2 * len(scene)
    with pytest.raises(ValueError, match="no view is held out"):
        choose_targets(everything, FixConfig(targets="test"), 0, 60)
    around = choose_targets(scene, FixConfig(targets="perturb"), 0, 20)
    train = scene.cameras[list(scene.split.train)]
    near = torch.cdist(around.positions, train.positions).min(1).values
    assert (
        len(around) == 20
        and (near <= 0.5 * measure_spacing(train) + 1e-5).all()
        and (near > 0).all()
    )
    assert torch.equal(perturb(train, 5, 1).viewmats, perturb(train, 5, 1).viewmats)


def test_no_more_views_are_fixed_than_steps_will_train_on():
    assert [FixConfig().most_views(n) for n in (1, 300, 10_000)] == [1, 45, 60]
    assert FixConfig(fade=True).most_views(300) == 22
    assert FixConfig(novel_views=100).most_views(1) == 100
    assert original(FixConfig()).most_views(1) == 60


def test_a_trajectory_of_your_own(scene, tmp_path):
    file = tmp_path / "cameras.json"
    cameras = scene.cameras
    content = {"viewmats": cameras.viewmats, "Ks": cameras.Ks, "sizes": cameras.sizes}
    file.write_text(json.dumps({k: v.tolist() for k, v in content.items()}))
    mine = FixConfig(targets="trajectory", trajectory=file)
    torch.testing.assert_close(choose_targets(scene, mine, 0, 60).viewmats, cameras.viewmats)
    poses = cameras.camtoworlds * torch.tensor([1.0, -1, -1, 1])
    frames = [{"transform_matrix": pose.tolist()} for pose in poses]
    file.write_text(json.dumps({"frames": frames}))
    torch.testing.assert_close(read_trajectory(file, scene).viewmats, cameras.viewmats)
    # the scene was normalised: a file in the capture's own world comes along
    moved = torch.eye(4).double()
    moved[:3, :3] *= 0.5
    moved[:3, 3] = torch.tensor([1.0, 2, 3])
    normal = replace(scene, transform=moved)
    away = read_trajectory(file, normal).positions
    torch.testing.assert_close(away, cameras.positions * 0.5 + torch.tensor([1.0, 2, 3]))


def test_a_trajectory_far_from_the_origin_keeps_its_digits(scene, tmp_path):
    file = tmp_path / "transforms.json"
    offset = torch.tensor([448000.0, 5411000.0, 300.0]).double()
    poses = scene.cameras.camtoworlds.double() * torch.tensor([1.0, -1, -1, 1])
    poses[:, :3, 3] += offset
    file.write_text(json.dumps({"frames": [{"transform_matrix": p.tolist()} for p in poses]}))
    shift = torch.eye(4).double()
    shift[:3, 3] = -offset
    cameras = read_trajectory(file, replace(scene, transform=shift))
    torch.testing.assert_close(cameras.viewmats, scene.cameras.viewmats, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["test", "interp", "perturb"])
def test_novel_views_stay_away_from_outlying_cameras(scene, kind):
    viewmats = scene.cameras.viewmats.clone()
    viewmats[5, :3, 3] += 1e4  # held out
    thrown = replace(scene, cameras=replace(scene.cameras, viewmats=viewmats))
    assert thrown.outliers == (5,)
    targets = choose_targets(thrown, FixConfig(targets=kind), 0, 20)
    assert targets.positions.norm(dim=1).max() < 10
    viewmats[1, :3, 3] += 1e4
    viewmats[5] = scene.cameras.viewmats[5]
    thrown = replace(scene, cameras=replace(scene.cameras, viewmats=viewmats))
    targets = choose_targets(thrown, FixConfig(targets=kind), 0, 20)
    assert targets.positions.norm(dim=1).max() < 10
    with pytest.raises(ValueError, match="times as far"):
        check_inside(thrown.cameras[1], thrown, "path.json")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no cameras"),
        ('{"frames": []}', "holds no cameras"),
        ('{"frames": [{"transform_matrix": [[1]]}]}', "holds no cameras"),
    ],
)
def test_what_is_no_trajectory_is_refused(scene, tmp_path, content, why):
    file = tmp_path / "path.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=why):
        read_trajectory(file, scene)


def test_a_trajectory_that_leaves_the_scene_is_refused(scene, tmp_path):
    file = tmp_path / "path.json"
    pose = torch.eye(4)
    pose[0, 3] = 1000
    file.write_text(json.dumps({"frames": [{"transform_matrix": pose.tolist()}]}))
    with pytest.raises(ValueError, match=r"camera 0 lies .* in the capture's own world"):
        choose_targets(scene, FixConfig(targets="trajectory", trajectory=file), 0, 60)


def test_the_steps_of_rounds():
    config = FixConfig(rounds=3, first_round=0.4)
    assert config.steps(0, 1000, 1.0, warm=False) == (400, 600, 800)
    assert config.steps(1000, 4000, 1.0, warm=True) == (1000, 2000, 3000)
    assert FixConfig(fix_steps=(3000, 6000, 99000)).steps(0, 4000, 0.5, warm=False) == (1500, 3000)
