# What an extra view asks of the splats.
import torch

from reconstruction.views import ExtraView, measure_progress
from scenes.cameras import Cameras

CAMERA = Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([[16, 12]]))


def test_a_correction_asks_for_what_is_left_of_it_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(12, 16, 3, generator=generator)
    correction = 0.1 * torch.rand(12, 16, 3, generator=generator)
    view = ExtraView(CAMERA, before + correction, torch.ones(12, 16), before)
    at_first = view.target(before)
    assert torch.allclose(at_first, before + correction, atol=1e-6)
    half = before + 0.5 * correction
    assert torch.allclose(view.target(half), before + correction, atol=1e-6)
    for enough in (1.0, 1.7):  # beyond it nothing pulls back
        done = before + enough * correction
        assert torch.allclose(view.target(done), done, atol=1e-6)
    away = before - correction  # the whole of it at most
    assert torch.allclose(view.target(away), before, atol=1e-6)


def test_what_photos_teach_beside_a_correction_is_left_alone():
    before = torch.full((12, 16, 3), 0.5)
    brighter = before + 0.1
    checks = 0.05 * (torch.arange(12)[:, None] + torch.arange(16)[None]).remainder(2).sub(0.5)
    detail = before + checks[..., None]  # has no mean, so nothing of the correction
    wanted = ExtraView(CAMERA, brighter, torch.ones(12, 16), before).target(detail)
    inner = slice(2, -2)  # windows of 25 pixels hold 12 or 13 of each kind
    assert torch.allclose((wanted - detail)[inner, inner], torch.tensor(0.1), atol=2e-3)
    picture = ExtraView(CAMERA, brighter, torch.ones(12, 16)).target(detail)
    assert torch.allclose(picture, brighter)  # the picture takes the detail away


def test_without_confidence_nothing_is_asked():
    now = torch.rand(12, 16, 3, generator=torch.Generator().manual_seed(1))
    for before in (None, torch.zeros(12, 16, 3)):
        view = ExtraView(CAMERA, torch.ones(12, 16, 3), torch.zeros(12, 16), before)
        assert torch.equal(view.target(now), now)


def test_progress_lies_between_nothing_and_all():
    correction = torch.zeros(12, 16, 3)
    correction[3:9, 4:12] = 0.2
    assert measure_progress(0.25 * correction, correction)[5, 7].item() == torch.tensor(0.25)
    assert measure_progress(-correction, correction).max() == 0
    assert measure_progress(9 * correction, correction).max() == 1
