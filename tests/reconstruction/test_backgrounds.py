# Photos with alpha, and masks: what training, evaluation and the report make of them.
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import reconstruction
from evaluation.metrics import Metrics
from reconstruction import Config, optimise
from reconstruction.backgrounds import is_random, masked_mse, name_background
from reconstruction.evaluate import evaluate
from reconstruction.losses import ALPHA_WEIGHT, alpha_difference
from reconstruction.rendering import compute_support, measure, render_view
from reconstruction.report import describe_protocol
from reconstruction.start import initial_splats
from reconstruction.trainer import Trainer
from scenes.scene import Scene
from splats.gaussians import from_points
from splats.rasterize import rasterize
from tests.reconstruction.test_optimise import STRATEGIES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cut_out(scene) -> Scene:
    """An object of blobs, cut out: over white, with alpha; the points reach beyond it."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(150, 3, generator=generator)
    points = 0.7 * points / points.norm(dim=1, keepdim=True)
    colors = 0.6 * torch.rand(150, 3, generator=generator)
    truth = from_points(points, colors, opacity=0.9, scale=1.0, generator=generator)
    with torch.no_grad():
        renders = rasterize(truth, scene.cameras, background=torch.ones(3))
    images = tuple((image.clamp(0, 1) * 255).round().byte().numpy() for image in renders.colors)
    alphas = tuple((alpha.clamp(0, 1) * 255).round().byte().numpy() for alpha in renders.alphas)
    both = torch.cat((points[:60], scene.points[:20]))
    return replace(
        scene, images=images, alphas=alphas, points=both, point_colors=torch.full((80, 3), 0.5)
    )


@pytest.fixture(scope="module")
def masked(scene) -> Scene:
    """The capture of blobs with the right third of each photo hidden."""
    mask = np.ones(scene.images[0].shape[:2], bool)
    mask[:, 36:] = False
    return replace(scene, masks=(mask,) * len(scene))


def spoil(scene: Scene, seed: int) -> Scene:
    """The same with noise in what the masks hide."""
    rng = np.random.default_rng(seed)
    images = [image.copy() for image in scene.images]
    for image, mask in zip(images, scene.masks, strict=True):
        image[~mask] = rng.integers(0, 256, image[~mask].shape)
    return replace(scene, images=tuple(images))


def test_a_photo_with_alpha_is_shown_over_any_background(cut_out):
    index, background = 2, torch.tensor([0.2, 0.4, 0.6])
    over_white, alpha = cut_out.image(index), cut_out.alpha(index)[..., None]
    premultiplied = over_white - (1 - alpha)
    expected = premultiplied + (1 - alpha) * background
    torch.testing.assert_close(cut_out.image(index, background), expected.clamp(0, 1))
    assert alpha.min() < 0.05 and alpha.max() > 0.9


@pytest.mark.parametrize(
    ("hint", "flags", "expected"),
    [
        (None, {}, ("white", True)),
        ("white", {}, ("white", False)),  # NeRF-synthetic
        ("white", {"background": "random"}, ("white", True)),
        (None, {"background": "white"}, ("white", False)),
        (None, {"background": "black"}, ("black", False)),
        ("white", {"random_bkgd": True}, ("white", True)),
    ],
)
def test_backgrounds_of_training_and_evaluation(cut_out, hint, flags, expected):
    scene, config = replace(cut_out, background=hint), Config(**flags)
    assert (name_background(scene, config), is_random(scene, config)) == expected
    assert f"over {expected[0]} where photos are transparent" in describe_protocol(
        Metrics(None), scene, config
    )


def test_opaque_photos_keep_black_unless_told(scene):
    assert name_background(scene, Config()) == "black" and not is_random(scene, Config())
    assert is_random(scene, Config(background="random"))
    assert "full frame, no mask" in describe_protocol(Metrics(None), scene, Config())
    with pytest.raises(ValueError, match="--random_bkgd contradicts --background white"):
        Config(random_bkgd=True, background="white")


@pytest.mark.parametrize("background", [None, "white"])
def test_transparent_pixels_grow_no_splats(cut_out, background):
    config = replace(
        reconstruction.default(),
        strategy=STRATEGIES["default"],
        max_steps=150,
        sh_degree_interval=50,
        background=background,
    )
    splats = optimise(cut_out, config)
    transparent, psnr = [], measure(splats, cut_out, cut_out.split.test, config)[1]
    with torch.no_grad():
        for view in cut_out.split.test:
            alphas = render_view(splats, cut_out.cameras[view], config).alphas[0]
            transparent.append(alphas[cut_out.alpha(view) == 0])
    before = initial_splats(cut_out, config)
    assert psnr > measure(before, cut_out, cut_out.split.test, config)[1] + 2
    assert torch.cat(transparent).mean() < 0.05


def test_mean_alpha_is_of_the_pixels_that_count(cut_out):
    """Splats of an object that fills a small part of its photos are not out of sight."""
    splats, test = initial_splats(cut_out, reconstruction.default()), cut_out.split.test
    alone = measure(splats, cut_out, test, reconstruction.default())[0]
    opaque = replace(cut_out, alphas=None)
    assert alone > 1.5 * measure(splats, opaque, test, reconstruction.default())[0]
    masks = tuple(alpha > 127 for alpha in cut_out.alphas)
    masked = measure(splats, replace(opaque, masks=masks), test, reconstruction.default())[0]
    assert masked == pytest.approx(alone, rel=0.1)


def test_masked_pixels_have_no_influence_on_training(masked):
    config = replace(
        reconstruction.mcmc(), strategy=STRATEGIES["mcmc"], max_steps=20, sh_degree_interval=5
    )
    results = [optimise(spoil(masked, seed), config) for seed in (1, 2)]
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


def test_masks_hide_alpha_too(cut_out, masked):
    both = replace(cut_out, masks=masked.masks)
    config = replace(
        reconstruction.mcmc(), strategy=STRATEGIES["mcmc"], max_steps=20, sh_degree_interval=5
    )
    opaque = [
        np.where(mask, alpha, 255) for alpha, mask in zip(both.alphas, both.masks, strict=True)
    ]
    results = [
        optimise(scene, config)
        for scene in (spoil(both, 1), spoil(replace(both, alphas=tuple(opaque)), 2))
    ]
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


def test_hidden_splats_get_no_gradient(masked):
    hidden = replace(masked, masks=(np.zeros_like(masked.masks[0]),) * len(masked))
    hidden.masks[0][0, 0] = True
    trainer = Trainer(hidden, replace(Config(), ssim_lambda=0.2), CPU)
    before = {key: value.detach().clone() for key, value in trainer.state.splats.items()}
    trainer.step()
    moved = (trainer.state.splats["means"] - before["means"]).abs().amax(1)
    assert (moved > 0).float().mean() < 0.3  # none but those at the corner


def test_masked_pixels_are_out_of_the_metrics(masked):
    config, metrics = Config(), Metrics(None)
    splats = initial_splats(masked, config)
    clean, noisy = (
        evaluate(splats, spoil(masked, seed), config, metrics, step=0).stats for seed in (1, 2)
    )
    assert clean["psnr"] == pytest.approx(noisy["psnr"], abs=1e-6)
    whole = evaluate(splats, replace(spoil(masked, 1), masks=None), config, metrics, step=0).stats
    assert whole["psnr"] < clean["psnr"] - 0.5
    assert "masked pixels left out" in describe_protocol(metrics, masked, config)
    test = masked.split.test
    assert measure(splats, spoil(masked, 1), test, config)[1] == pytest.approx(clean["psnr"])
    supports = [compute_support(splats, spoil(masked, seed), config) for seed in (1, 2)]
    assert torch.equal(*supports)


def test_alpha_counts_where_the_mask_is_true():
    render, photo = torch.tensor([[0.0, 0.5], [1.0, 1.0]]), torch.ones(2, 2)
    mask = torch.tensor([[False, True], [True, True]])
    assert alpha_difference(render, photo).item() == pytest.approx(ALPHA_WEIGHT * 1.5 / 4)
    assert alpha_difference(render, photo, mask).item() == pytest.approx(ALPHA_WEIGHT * 0.5 / 4)


def test_the_error_of_a_mask_is_the_mean_of_what_counts():
    truth, mask = torch.zeros(4, 6, 3), torch.zeros(4, 6, dtype=torch.bool)
    image = torch.ones(4, 6, 3)
    mask[1, 2:4] = True
    image[1, 2] = 0.5
    assert masked_mse(image, truth, mask).item() == pytest.approx((0.25 + 1) / 2)
    assert masked_mse(image, truth, None).item() == pytest.approx((0.25 + 23) / 24)
    assert math.isclose(masked_mse(truth, truth, mask).item(), 0)
