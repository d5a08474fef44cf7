# Render, then fix: the fixer gets what it needs, in order, and its answer is judged.
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from fixers.fixer import Needs
from generators import References, RenderThenFix
from generators.guides import Guides, render_one
from scenes.cameras import Cameras
from splats.gaussians import from_points
from splats.rasterize import rasterize


class Recorder:
    """A fixer that keeps what it was called with and darkens the renders."""

    def __init__(self, **needs: bool):
        self.needs, self.calls, self.factor = Needs(**needs), [], 0.5

    def fix(self, renders, references=None, *, confidence=None, alphas=None):
        self.calls.append((renders, references, confidence, alphas))
        return renders * self.factor


@pytest.fixture(scope="module")
def render(scene):
    colors = torch.rand(len(scene.points), 3, generator=torch.Generator().manual_seed(2))
    return partial(rasterize, from_points(scene.points, colors, opacity=0.9, scale=1.5))


@pytest.fixture
def references(scene):
    return References.from_scene(scene, (1, 3, 7))


def test_a_fixer_gets_what_it_needs(scene, render, references):
    cameras = scene.cameras[[0, 2]]
    plain, warped = Recorder(references=True), Recorder(references=True, warped=True)
    for fixer in (plain, warped):
        RenderThenFix(fixer, references=2).generate(references, cameras, render=render)
    photos = torch.stack([references.images[i] for i in range(3)])
    _, seen, _, alphas = plain.calls[0]
    assert seen.shape[:2] == (2, 2) and alphas is None
    assert all(any(torch.equal(image, photo) for photo in photos) for image in seen.flatten(0, 1))
    renders, seen, _, _ = warped.calls[0]
    assert (seen == renders[:, None]).all(-1).any()  # where a warped photo shows nothing
    assert not any(torch.equal(image, photo) for image in seen.flatten(0, 1) for photo in photos)
    alone = Recorder(alpha=True)
    RenderThenFix(alone).generate(references, cameras, render=render)
    assert alone.calls[0][1] is None and alone.calls[0][3].shape == renders.shape[:3]
    unguided = Recorder(references=True)
    RenderThenFix(unguided, use_ref=False).generate(references, cameras, render=render)
    assert unguided.calls[0][1] is None


def test_views_come_in_the_cameras_order_whatever_their_sizes(scene, render, references):
    small = scene.cameras[[2]].scaled(0.5)
    cameras = Cameras.concatenate([scene.cameras[[0]], small, scene.cameras[[4]]])
    views = RenderThenFix(Recorder()).generate(references, cameras, render=render)
    for i, view in enumerate(views):
        expected = render(cameras[i]).colors[0].clamp(0, 1)
        torch.testing.assert_close(view.pictures["render"], expected)
        torch.testing.assert_close(view.image, expected * 0.5)
        assert view.confidence.shape == view.image.shape[:2]
        assert view.confidence.min() >= 0 and view.confidence.max() <= 1
        assert set(view.references) <= set(references.names)
        assert {"rendering", "references", "fixing", "confidence"} == set(view.seconds)
    assert views[0].agreement is not None


def test_a_fixer_that_answers_nan_is_named(scene, render, references):
    broken = Recorder()
    broken.factor = math.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        RenderThenFix(broken).generate(references, scene.cameras[[0]], render=render)
    with pytest.raises(ValueError, match="renderer"):
        RenderThenFix(broken).generate(references, scene.cameras[[0]])


def test_no_camera_gives_no_view(scene, render, references):
    assert RenderThenFix(Recorder()).generate(references, scene.cameras[[]], render=render) == []


def test_what_masks_hide_guides_nothing(scene, render):
    height, width = scene.images[0].shape[:2]
    mask = (torch.arange(height)[:, None] // 8 + torch.arange(width) // 8) % 2 == 0
    red = torch.tensor([1.0, 0, 0])

    def spoiled(references):
        images = [torch.where(mask[..., None], photo, red) for photo in references.images]
        return replace(references, images=images, masks=[mask] * len(images))

    clean, view = References.from_scene(scene, (1, 3)), scene.cameras[[2]]
    bare, masked = (
        Guides(render, references).find(view, render_one(render, view), 2)
        for references in (clean, spoiled(clean))
    )
    for guide, whole in zip(masked, bare, strict=True):
        own = render(scene.cameras[scene.names.index(guide.name)]).colors[0].clamp(0, 1)
        assert torch.equal(guide.photo[~mask], own[~mask])
        assert torch.equal(guide.photo[mask], whole.photo[mask])
        assert guide.valid.sum() < whole.valid.sum() and not (guide.valid & ~whole.valid).any()
        torch.testing.assert_close(guide.warped[guide.valid], whole.warped[guide.valid])
        assert not guide.warped[~guide.valid].any()
    assert sum(guide.valid.sum() for guide in masked) > 30
