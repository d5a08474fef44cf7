import pytest
import torch

from splats.gaussians import NAMES, SH_C0, Gaussians, Splats, from_points, random_splats


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


def some_gaussians(count=5, degree=2, dtype=torch.float32, seed=0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    K = (degree + 1) ** 2 - 1
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 1, 3), (count, K, 3))
    return Gaussians(
        *(torch.randn(shape, generator=g).to(dtype) for shape in shapes),
        signals={"latent": torch.randn(count, 4, generator=g).to(dtype)},
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gaussians_are_the_tensors_themselves_of_any_precision(dtype):
    gaussians = some_gaussians(dtype=dtype)
    leaf = gaussians.means.requires_grad_()
    again = Gaussians(*(getattr(gaussians, name) for name in NAMES))
    assert again.means is leaf and again.means.dtype == dtype
    assert len(again) == 5 and again.sh_degree == 2 and again.colors.shape == (5, 9, 3)
    assert again.signals == {}


def test_indices_moves_and_joins_stay_in_the_graph():
    gaussians = some_gaussians()
    leaves = [getattr(gaussians, name).requires_grad_() for name in NAMES]
    latent = gaussians.signals["latent"].requires_grad_()
    mask = torch.tensor([True, False, True, False, False])
    joined = Gaussians.concatenate([gaussians[mask], gaussians[3], gaussians[1:2], gaussians[[4]]])
    assert torch.equal(joined.means, leaves[0][[0, 2, 3, 1, 4]])
    assert torch.equal(joined.signals["latent"], latent[[0, 2, 3, 1, 4]])
    moved = joined.to("cpu").to(torch.float64).with_sh_degree(3)
    assert moved.means.dtype == moved.signals["latent"].dtype == torch.float64
    (sum(getattr(moved, name).sum() for name in NAMES) + moved.signals["latent"].sum()).backward()
    for leaf in (*leaves, latent):
        assert torch.equal(leaf.grad, torch.ones_like(leaf))
    assert not moved.detach().means.requires_grad


def test_gaussians_of_different_degrees_join_at_the_highest():
    low, high = some_gaussians(2, degree=0), some_gaussians(3, degree=2)
    joined = Gaussians.concatenate([low, high])
    assert joined.sh_degree == 2 and len(joined) == 5
    assert (joined.shN[:2] == 0).all() and torch.equal(joined.shN[2:], high.shN)
    assert torch.equal(high.with_sh_degree(1).shN, high.shN[:, :3])
    plain = Gaussians(*(getattr(low, name) for name in NAMES))
    with pytest.raises(ValueError, match=r"different signals \(latent; none\)"):
        Gaussians.concatenate([low, plain])
    with pytest.raises(ValueError, match="no Gaussians"):
        Gaussians.concatenate([])


def test_wrong_tensors_of_gaussians_are_refused_by_name():
    good = {name: getattr(some_gaussians(), name) for name in NAMES}
    for name, value, message in (
        ("scales", torch.zeros(4, 3), r"scales of shape \(5, 3\), got \(4, 3\)"),
        ("means", torch.tensor(0.0), "means of shape"),
        ("opacities", torch.zeros(5, dtype=torch.long), "opacities as floating point"),
        ("sh0", torch.zeros(5, 1, 3, device="meta"), "sh0 is on meta"),
        ("signals", {"latent": torch.zeros(4, 2)}, r"the signal latent of shape \(5, 2\)"),
        ("signals", {"latent": torch.zeros(5)}, r"the signal latent of shape \(5, D\)"),
        ("signals", {"means": torch.zeros(5, 3)}, "cannot be named 'means'"),
    ):
        with pytest.raises(ValueError, match=message):
            Gaussians(**{**good, name: value})


def test_splats_give_their_parameters_and_are_copied_from_gaussians():
    gaussians = some_gaussians(dtype=torch.float64)
    gaussians.means.requires_grad_()
    splats = Splats.from_gaussians(gaussians)
    assert set(splats) == {*NAMES, "latent"}
    assert all(p.dtype == torch.float32 and p.requires_grad for p in splats.values())
    assert all(getattr(splats.gaussians, name) is splats[name] for name in NAMES)
    assert splats.gaussians.signals["latent"] is splats["latent"]
    copy = Splats.from_gaussians(splats.gaussians)
    copy["means"].data.zero_()
    assert splats["means"].abs().sum() > 0 and splats["means"].is_leaf
    assert Splats(*(getattr(gaussians, name) for name in NAMES)).gaussians.signals == {}
    assert splats.with_sh_degree(1)["latent"].shape == (5, 4)
