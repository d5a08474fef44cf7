import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reconstruction import EvaluationConfig, Start, optimise
from reconstruction.corrections.bilateral import BilateralGrids, list_places
from reconstruction.corrections.corrections import Corrections
from reconstruction.corrections.poses import PoseDeltas, add_noise
from reconstruction.photos import take_photo
from reconstruction.trainer import Trainer
from splats.gaussians import from_points
from tests.reconstruction.test_optimise import QUICK, StopAt, config_of

CPU = torch.device("cpu")
ALL = {"pose_opt": True, "app_opt": True, "use_bilateral_grid": True}


def test_deltas_move_cameras_in_their_own_frames(scene):
    deltas = PoseDeltas(2)
    cameras = scene.cameras[[3, 5]]
    assert torch.equal(deltas(cameras, torch.arange(2)).viewmats, cameras.viewmats)
    with torch.no_grad():
        deltas.embeds.weight[1, :3] = torch.tensor([0.0, 0.0, 0.5])
        deltas.embeds.weight[0, 3:] = torch.tensor([0.0, 0.2, 0.0, -0.2, 0.0, 0.0])
        moved = deltas(cameras, torch.arange(2))
    forward = cameras.viewmats[1, 2, :3]
    assert torch.allclose(moved.positions[1], cameras.positions[1] + 0.5 * forward, atol=1e-5)
    assert torch.allclose(moved.positions[0], cameras.positions[0], atol=1e-5)
    turn = moved.viewmats[0, :3, :3] @ cameras.viewmats[0, :3, :3].T
    assert math.degrees(math.acos((turn.trace().item() - 1) / 2)) == pytest.approx(
        math.degrees(math.atan(0.2)), abs=1e-2
    )
    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-5)


def test_noise_disturbs_training_views_alone_and_follows_the_seed(scene):
    noisy, again = (add_noise(scene, 0.01, seed=4).cameras.viewmats for _ in range(2))
    assert torch.equal(noisy, again)
    moved = (noisy != scene.cameras.viewmats).flatten(1).any(1).nonzero()[:, 0]
    assert tuple(moved.tolist()) == scene.split.train


def test_wrong_poses_are_found_by_training_on_right_splats(scene):
    """Splats of the right photos stay; only the poses may move."""
    still = {f"{name}_lr": 0.0 for name in ("means", "scales", "quats", "opacities", "sh0", "shN")}
    own = {"pose_opt": True, "pose_opt_lr": 1e-3, "pose_noise": 0.01, "random_bkgd": False}
    config = config_of("default", max_steps=120, **own, **still)
    config = replace(config, strategy=replace(config.strategy, refine_stop_iter=0))
    g = torch.Generator().manual_seed(0)  # as the scene's photos are made
    points, colors = 0.7 * torch.randn(150, 3, generator=g), torch.rand(150, 3, generator=g)
    right = from_points(points, colors, opacity=0.9, scale=0.7, generator=g)
    trainer = Trainer(scene, config, CPU, Start(right, 0, "the truth"))

    errors = torch.stack([trainer.step()[1] for _ in range(120)])
    # Not the poses themselves: a turn and a shift can be exchanged.
    assert errors[-7:].median() < 0.5 * errors[:7].median()
    assert torch.equal(trainer.posed_scene.cameras.viewmats[0], scene.cameras.viewmats[0])


def test_grids_are_the_identity_at_first_and_learn_an_exposure():
    grids = BilateralGrids(2, (4, 3, 5))
    g = torch.Generator().manual_seed(0)
    picture = torch.rand(20, 30, 3, generator=g)
    places = list_places((30, 20), (0, 0), (30, 20))
    assert torch.allclose(grids(picture, places, 1), picture, atol=1e-6)
    assert grids.total_variation(torch.tensor([0, 1])) == 0
    optimizer = torch.optim.Adam(grids.parameters(), 2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (grids(picture, places, 0) - 0.6 * picture).square().mean()
        (loss + 10 * grids.total_variation(torch.tensor([0]))).backward()
        optimizer.step()
    assert (grids(picture, places, 0) - 0.6 * picture).abs().mean() < 0.02
    # the other photo is as much brighter than their common colours
    assert (grids(picture, places, 1) - 1.4 * picture).abs().mean() < 0.1


def test_a_crop_is_a_part_of_its_photo(scene):
    torch.manual_seed(0)
    photo = take_photo(scene, scene.cameras, 3, None, patch_size=16)
    (x, y), whole = photo.corner, scene.image(3)
    assert photo.image.shape == (16, 16, 3) and photo.camera.size == (16, 16)
    assert torch.equal(photo.image, whole[y : y + 16, x : x + 16])
    shift = scene.cameras.Ks[3, :2, 2] - photo.camera.Ks[0, :2, 2]
    assert shift.tolist() == [x, y]
    all_places = list_places(photo.whole, (0, 0), photo.whole)
    places = list_places((16, 16), photo.corner, photo.whole)
    assert torch.allclose(places, all_places[y : y + 16, x : x + 16])
    large = take_photo(scene, scene.cameras, 3, None, patch_size=50)
    assert large.image.shape == (40, 50, 3)


def test_without_a_photo_splats_look_as_they_are(scene):
    """An embedding changes what its photo shows, in training alone."""
    trainer = Trainer(scene, config_of("default", app_opt=True), CPU)
    appearance = trainer.state.corrections.appearance
    splats, rows = trainer.state.splats, torch.tensor([0, 1])
    places = scene.cameras[[1, 2]].positions
    plain = appearance(splats.gaussians, places, rows, 1)
    with torch.no_grad():
        appearance.color_head[-1].weight.normal_()
        changed = appearance(splats.gaussians, places, rows, 1)
        appearance.embeds.weight[1:] = appearance.embeds.weight[0]
        without = appearance(splats.gaussians, places, rows, 1)
    assert (changed - plain).abs().mean() > 0.01
    assert torch.allclose(without[1], plain[1])


@pytest.mark.parametrize("stop", [7, 31])
def test_a_stopped_run_with_corrections_continues_bit_for_bit(scene, stop, tmp_path, monkeypatch):
    config = config_of("default", max_steps=40, patch_size=24, batch_size=2, **ALL)
    straight = optimise(scene, config, result_dir=tmp_path / "straight", evaluation=QUICK)
    with monkeypatch.context() as patch:
        StopAt(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            optimise(scene, config, result_dir=tmp_path / "stopped", evaluation=QUICK)
    resumed = optimise(scene, config, result_dir=tmp_path / "stopped", evaluation=QUICK)
    for key, value in straight.items():
        assert torch.equal(value, resumed[key]), key
    ends = [
        torch.load(tmp_path / name / "ckpts/ckpt_39_rank0.pt", weights_only=True)
        for name in ("straight", "stopped")
    ]
    for module in ("pose_adjust", "app_module", "post_processing"):
        for key, value in ends[0][module].items():
            assert torch.equal(value, ends[1][module][key]), key
        moved = [v for k, v in ends[0][module].items() if k != "identity"]
        assert any((v.diff(dim=0) != 0).any() for v in moved)


def test_corrections_explain_exposures(scene):
    """With either, splats of photos at different exposures are sharper than without."""
    stops = np.linspace(-0.5, 0.5, len(scene))
    images = tuple(
        (np.clip((image / 255.0) * 2**stop, 0, 1) * 255).round().astype(np.uint8)
        for image, stop in zip(
            scene.images, np.random.default_rng(0).permutation(stops), strict=True
        )
    )
    dim = replace(scene, images=images)
    errors = {}
    for name in (None, "use_bilateral_grid", "app_opt"):
        config = config_of(
            "default", max_steps=150, random_bkgd=False, **({name: True} if name else {})
        )
        trainer = Trainer(dim, config, CPU)
        last = [trainer.step()[1] for _ in range(150)][-30:]
        errors[name] = torch.stack(last).mean().item()
    assert errors["use_bilateral_grid"] < 0.9 * errors[None], errors
    assert errors["app_opt"] < 0.8 * errors[None], errors


def test_rounds_refuse_photos_that_differ_in_colour(scene, tmp_path):
    for name in ("app_opt", "use_bilateral_grid"):
        config = config_of("default", **{name: True})
        with pytest.raises(ValueError, match=f"--{name} .*add --no-fix"):
            optimise(scene, config, result_dir=tmp_path, generator=object())


def test_batches_need_photos_of_one_size(scene):
    other = replace(scene.cameras, sizes=scene.cameras.sizes.clone())
    other.sizes[3] = torch.tensor([40, 56])
    mixed = replace(scene, cameras=other)
    with pytest.raises(ValueError, match="--batch_size 2 needs photos of one size"):
        Trainer(mixed, config_of("default", batch_size=2), CPU)
    Trainer(mixed, config_of("default", batch_size=2, patch_size=30), CPU)


def test_corrected_metrics_are_reported_where_photos_differ(scene, tmp_path):
    config = config_of("default", max_steps=3, use_bilateral_grid=True)
    optimise(scene, config, result_dir=tmp_path, evaluation=EvaluationConfig(save_video=False))
    stats = (tmp_path / "stats/val_step0002.json").read_text()
    assert '"cc_psnr"' in stats and '"cc_ssim"' in stats
    assert "cc PSNR" in (tmp_path / "report/index.html").read_text()


def test_poses_learn_at_gsplats_rate_for_the_length_of_the_run(scene):
    rates = [
        Corrections(config_of("default", max_steps=n, pose_opt=True, **own), (1, 2), CPU).rates
        for n, own in ((30_000, {}), (3_000, {}), (3_000, {"pose_opt_lr": 2e-5}))
    ]
    assert [rate["poses"] for rate in rates] == pytest.approx([1e-5, 1e-4, 2e-5])
