import pytest
import torch

from splats.gaussians import NAMES, SH_C0, Splats, from_points, random_splats


def brute_force_spacing(points):
    distances = torch.cdist(points, points).sort(1).values[:, 1:4]
    return distances.square().mean(1).sqrt()


def test_scales_are_the_spacing_of_the_nearest_points():
    points, colors = torch.randn(200, 3), torch.rand(200, 3)
    splats = from_points(points, colors, opacity=0.3, scale=2.0)
    expected = (2 * brute_force_spacing(points.double())).log()[:, None].expand(-1, 3)
    torch.testing.assert_close(splats["scales"].double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(splats["opacities"].sigmoid(), torch.full((200,), 0.3))
    torch.testing.assert_close(splats["sh0"][:, 0] * SH_C0 + 0.5, colors)
    assert (splats["shN"] == 0).all() and splats.sh_degree == 3 and splats.count == 200


def test_coincident_points_stay_finite():
    splats = from_points(torch.zeros(10, 3), torch.zeros(10, 3))
    assert splats["scales"].isfinite().all()


def test_random_splats_fill_their_cube_and_repeat_by_seed():
    center = torch.tensor([5.0, -2.0, 1.0])
    make = [
        random_splats(500, 2.0, center=center, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    offsets = make[0]["means"] - center
    assert offsets.abs().max() <= 2.0 and offsets.abs().amax(0).min() > 1.8
    assert all(torch.equal(make[0][name], make[1][name]) for name in NAMES)


@pytest.mark.parametrize("degree", range(4))
def test_another_degree_keeps_what_both_have(degree):
    splats = random_splats(6, 1.0, sh_degree=2)
    splats["shN"].data.normal_()
    other = splats.with_sh_degree(degree)
    assert other.sh_degree == degree and splats.sh_degree == 2
    keep = min(other["shN"].shape[1], 8)
    assert torch.equal(other["shN"][:, :keep], splats["shN"][:, :keep])
    assert (other["shN"][:, keep:] == 0).all()
    other["means"].data.zero_()
    assert splats["means"].abs().sum() > 0  # a copy


def test_wrong_shapes_are_refused_by_name():
    good = {name: random_splats(5, 1.0)[name].detach() for name in NAMES}
    for name, shape in (("quats", (5, 3)), ("opacities", (5, 1)), ("shN", (5, 7, 3))):
        with pytest.raises(ValueError, match=name):
            Splats(**{**good, name: torch.zeros(shape)})
    with pytest.raises(ValueError, match="3 points are too few"):
        from_points(torch.zeros(3, 3), torch.zeros(3, 3))
