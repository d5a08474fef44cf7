# The GS-VAR fixer: any size, batches without effect, references where they belong.
import pytest
import torch

import fixers
from fixers.gsvar import GSVARFixer
from fixers.tiling import largest_part
from scenes.cameras import Cameras
from triplets.pictures import resize
from triplets.windows import find_shift


def pictures(*shape, seed=0):
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["tile", "resize"])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 32), (50, 90), (7, 200)])
@pytest.mark.parametrize("references", [0, 2])
def test_any_size_comes_back_at_its_size(fixer, mode, size, references):
    renders = pictures(2, *size)
    guides = pictures(2, references, *size) if references else None
    fixed = fixer(mode=mode).fix(renders, guides)
    assert fixed.shape == renders.shape
    assert fixed.min() >= 0
    assert fixed.max() <= 1
    assert fixed.isfinite().all()


@pytest.mark.parametrize("attends", ["all", "self"])
def test_batches_change_nothing(fixer, attends):
    renders, guides = pictures(3, 40, 70), pictures(3, 2, 40, 70, seed=1)
    one = fixer({"ref_attends": attends}, batch_size=1).fix(renders, guides)
    all_ = fixer({"ref_attends": attends}, batch_size=64).fix(renders, guides)
    torch.testing.assert_close(one, all_, rtol=0, atol=1e-4)
    alone = fixer({"ref_attends": attends}).fix(renders[1:2], guides[1:2])
    torch.testing.assert_close(one[1:2], alone, rtol=0, atol=1e-4)


def test_one_image_of_the_trained_size_is_the_model_itself(fixer):
    f = fixer(refiner="mean")
    render, guide = pictures(1, 32, 32), pictures(1, 1, 32, 32, seed=1)

    def inside(x):
        return x.movedim(-1, -3) * 2 - 1

    f_hat = f.restorer.restore(inside(render), inside(guide), refiner="mean")
    expected = (f.model.decode(f_hat).movedim(1, -1) + 1) / 2
    torch.testing.assert_close(f.fix(render, guide), expected, rtol=0, atol=1e-5)


def test_a_reference_photo_is_encoded_once(fixer, monkeypatch):
    f = fixer({"ref_attends": "self"}, batch_size=2)
    calls = []
    real = f.restorer.encode_references
    monkeypatch.setattr(f.restorer, "encode_references", lambda x: calls.append(1) or real(x))
    guide = pictures(1, 1, 32, 32, seed=1)
    f.fix(pictures(5, 32, 32), guide.expand(5, -1, -1, -1, -1))
    f.fix(pictures(2, 32, 32, seed=2), guide.expand(2, -1, -1, -1, -1))
    assert len(calls) == 1


def test_memories_are_not_kept_without_end(fixer):
    f = fixer({"ref_attends": "self"}, keep=3)
    f.fix(pictures(6, 32, 32), pictures(6, 1, 32, 32, seed=1))
    assert len(f.memories) == 3


def test_the_bridge_is_used_where_there_is_one_unless_told_otherwise(fixer):
    renders = pictures(1, 40, 40)
    with_bridge = fixer(bridge=True).fix(renders)
    assert not torch.equal(with_bridge, fixer(bridge=False).fix(renders))
    assert torch.equal(with_bridge, fixer(bridge=None).fix(renders))


def test_auto_is_one_piece_where_that_can_be_and_tiles_elsewhere(fixer):
    sizes = {"patch_nums": "1_2_4_8"}
    for height, width, same in ((40, 60, "native"), (40, 200, "tile")):
        renders = pictures(1, height, width)
        expected = fixer(sizes, mode=same).fix(renders)
        assert torch.equal(fixer(sizes, mode="auto").fix(renders), expected)


@pytest.mark.parametrize("mode", ["tile", "resize", "native"])
def test_a_guided_bridge_sees_the_first_reference(fixer, mode):
    guided, plain = (
        fixer({"warped_references": warped}, bridge=True, mode=mode) for warped in (True, False)
    )
    renders, guides = torch.rand(2, 40, 48, 3), torch.rand(2, 2, 40, 48, 3)
    last = guides.clone()
    last[:, 1] = 0
    # the transformer is kept from seeing them, so that only the bridge tells
    shape = (8, 5, 6) if mode == "native" else (8, 4, 4)
    for one, sees in ((guided, True), (plain, False)):
        one._restore = lambda images, guides: torch.zeros(len(images), *shape)
        answer = one.fix(renders, guides)
        assert torch.equal(answer, one.fix(renders, last))
        assert torch.equal(answer, one.fix(renders)) != sees


@pytest.mark.parametrize("mode", ["tile", "resize", "native"])
def test_a_bridge_that_reads_alpha_sees_it_where_it_is(fixer, mode):
    sizes = {"warped_references": True}
    reads, blind = (
        fixer(sizes | {"render_alpha": alpha}, bridge=True, mode=mode) for alpha in (True, False)
    )
    renders, alphas = torch.rand(2, 32, 56, 3), torch.ones(2, 32, 56)
    holes = alphas.clone()
    holes[1, :, 40:] = 0
    whole, holed = (reads.fix(renders, alphas=a) for a in (alphas, holes))
    assert torch.equal(whole[0], holed[0])
    assert (whole[1] - holed[1]).abs().max() > 1e-3
    torch.testing.assert_close(reads.fix(renders[1:], alphas=holes[1:]), holed[1:])
    torch.testing.assert_close(reads.fix(renders), reads.fix(renders, alphas=alphas / 2))
    assert torch.equal(blind.fix(renders), blind.fix(renders, alphas=holes))


def test_large_pictures_are_decoded_in_parts_of_bounded_size(fixer, monkeypatch):
    f = fixer({"warped_references": True, "render_alpha": True}, bridge=True, decoded=32 * 48)
    sizes = []

    def decode(f_hat, images, guides, alpha):  # what is decoded is where it belongs
        sizes.append(images.shape[-2] * images.shape[-1])
        cells = f_hat[:, :1].repeat_interleave(stride, -1).repeat_interleave(stride, -2)
        return images + guides[:, 0] * 2 + alpha + cells * 0

    stride = f.model.config.vqvae.stride
    monkeypatch.setattr(f, "_decode", decode)
    images, guides = torch.rand(2, 1, 3, 96, 208)
    alpha, f_hat = torch.rand(1, 1, 96, 208), torch.rand(1, 16, 96 // stride, 208 // stride)
    decoded = f._decode_in_parts(f_hat, images, guides[None], alpha)
    torch.testing.assert_close(decoded, images + guides * 2 + alpha)
    assert max(sizes) <= 32 * 48 and len(sizes) > 12


def test_a_picture_in_parts_is_nearly_the_same_as_in_one_piece():
    renders = torch.nn.functional.interpolate(
        torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0)), (192, 384)
    ).movedim(1, -1)
    whole, parts = (
        fixers.load("gsvar", mode="tile", decoded=n).fix(renders, renders[:, None])
        for n in (2**21, 192 * 256)
    )
    assert 0 < (whole - parts).abs().max() < 0.2
    assert (whole - parts).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("shape", "cells", "expected"),
    [
        ((10, 20), 200, (10, 20)),
        ((10, 20), 100, (10, 10)),
        ((100, 200), 100, (10, 10)),
        ((3, 200), 100, (3, 33)),
        ((200, 3), 100, (33, 3)),
        ((5, 5), 0, (1, 1)),
    ],
)
def test_the_largest_part(shape, cells, expected):
    assert largest_part(*shape, cells) == expected


def test_a_bridge_that_is_not_there_is_refused(model):
    network = model()
    network.vqvae.bridge = None
    with pytest.raises(ValueError, match="stage-2 file"):
        GSVARFixer(network, bridge=True)


def test_native_takes_what_the_schedule_takes(fixer):
    f = fixer({"patch_nums": "1_2_4_8"}, mode="native")
    assert f.fix(pictures(1, 50, 90)).shape == (1, 50, 90, 3)
    with pytest.raises(ValueError, match="--mode tile"):
        f.fix(pictures(1, 16, 200))


def test_confidence_keeps_the_render_where_it_is_trusted(fixer):
    renders = pictures(2, 32, 40)
    confidence = torch.zeros(2, 32, 40)
    confidence[:, :16] = 1
    fixed = fixer().fix(renders, confidence=confidence)
    plain = fixer().fix(renders)
    torch.testing.assert_close(fixed[:, :16], renders[:, :16])
    torch.testing.assert_close(fixed[:, 16:], plain[:, 16:])


def test_references_of_another_size_are_resized_and_it_is_said(fixer, caplog):
    caplog.set_level("INFO")
    fixer().fix(pictures(1, 32, 40), pictures(1, 1, 64, 80))
    assert "resized from 80x64 to 40x32" in caplog.text


@pytest.mark.parametrize("name", ["gsvar", "identity", "classical"])
def test_what_does_not_fit_is_refused(fixer, name):
    f = fixer() if name == "gsvar" else fixers.load(name)
    good = pictures(2, 32, 32)
    bad = good.clone()
    bad[1, 3, 4, 0] = float("nan")
    for arguments, why in (
        ((bad,), "NaN"),
        ((good[..., :2],), "must be"),
        ((good[0],), "must be"),
        ((good, good), "references must be"),
        ((good, pictures(3, 1, 32, 32)), "references must be"),
    ):
        with pytest.raises(ValueError, match=why):
            f.fix(*arguments)
    with pytest.raises(ValueError, match="confidence"):
        f.fix(good, confidence=torch.ones(2, 31, 32))
    with pytest.raises(ValueError, match="alphas"):
        f.fix(good, alphas=torch.ones(2, 31, 32))
    assert f.fix(good[:0]).shape == (0, 32, 32, 3)


def camera(x: float, turn: float = 0.0) -> Cameras:
    """At (x, 0, 0), looking along z, turned about y; 200x100 pixels."""
    viewmat = torch.eye(4)
    c, s = torch.tensor(turn).cos(), torch.tensor(turn).sin()
    viewmat[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    viewmat[:3, 3] = -viewmat[:3, :3] @ torch.tensor([x, 0.0, 0.0])
    K = torch.tensor([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]])
    return Cameras(viewmat[None], K[None], torch.tensor([[200, 100]]))


def test_windows_follow_the_content():
    depth = torch.full((100, 200), 4.0)
    box = (60, 20, 92, 52)
    # one unit to the right at depth 4: content moves 100 * 1 / 4 pixels to the left
    assert find_shift(box, camera(0), camera(1.0), depth) == (-25, 0)
    assert find_shift(box, camera(0), camera(1.0), None) == (0, 0)
    assert find_shift(box, camera(0), camera(0, turn=3.1), depth) is None
    dx, dy = find_shift((84, 34, 116, 66), camera(0), camera(0, turn=0.2), None)
    assert abs(dx) == pytest.approx(100 * torch.tensor(0.2).tan().item(), abs=2)
    assert dy == 0


def test_cameras_move_the_window_a_tile_looks_at(fixer):
    """A reference that is the render moved by a latent cell serves as well as the render."""
    f = fixer(refiner="mean")
    depths = torch.full((1, 100, 200), 4.0)
    scene = pictures(1, 100, 264)
    renders, guide = scene[:, :, :200], scene[:, :, 8:208]  # 8 px: x moves by 0.32 at depth 4
    with_cameras = f.fix(
        renders, guide[:, None], cameras=camera(0), reference_cameras=[camera(0.32)], depths=depths
    )
    without = f.fix(renders, guide[:, None])
    same = f.fix(renders, renders[:, None])
    middle = (slice(None), slice(0, 100), slice(40, 160))
    error = (with_cameras[middle] - same[middle]).abs().mean()
    assert error < 0.5 * (without[middle] - same[middle]).abs().mean()


def test_names_and_options_that_do_not_exist_are_told():
    with pytest.raises(ValueError, match="did you mean gsvar"):
        fixers.load("gsvr")
    with pytest.raises(ValueError, match="identity"):
        fixers.load("identity", strength=3)
    with pytest.raises(ValueError, match=r"gsvar.*chekpoint"):
        fixers.load("gsvar", chekpoint="x")


def test_parts_too_small_to_decode_are_refused(model):
    for decoded in (0, 255, -1, None, float("nan")):
        with pytest.raises(ValueError, match="decoded must be a whole number from 1024"):
            GSVARFixer(model(), decoded=decoded)
    with pytest.raises(ValueError, match="keep must be at least 0"):
        GSVARFixer(model(), keep=-3)
    renders = pictures(1, 70, 90)
    assert GSVARFixer(model(), decoded=1024).fix(renders).shape == renders.shape


def test_the_shipped_weights_are_the_default_and_change_a_render_a_little():
    fixer = fixers.load("gsvar", device="cpu")
    assert fixer.options.bridge and fixer.model.config.warped_references
    render = resize(pictures(1, 12, 16), 192, 256)
    fixed = fixer.fix(render, render[:, None])
    assert 0 < (fixed - render).abs().mean() < 0.2


def test_classical_smooths_noise_and_keeps_flat_areas():
    clean = torch.full((1, 40, 40, 3), 0.5)
    noisy = clean + 0.03 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    fixed = fixers.load("classical", strength=10).fix(noisy)
    assert (fixed - clean).abs().mean() < 0.5 * (noisy - clean).abs().mean()
    assert torch.equal(fixers.load("identity").fix(clean), clean)
