# Signals beside the colours: values and gradients on both backends, with and without the geometry.
import pytest
import torch

from splats.gaussians import NAMES, Gaussians, Splats
from splats.rasterize import rasterize
from tests.splats.reference import random_scene, raw_parameters, render
from tests.splats.torch_gsplat import torch_gsplat  # noqa: F401  a fixture

GEOMETRY = ("means", "scales", "quats", "opacities")
BACKENDS = ("cpu", "gsplat")


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()


def case(D=3, E=2, n_cameras=2, seed=1, **scene):
    """Splats, cameras, and per-Gaussian [N,D] and per-view [C,N,E] signals with a background."""
    splats, cameras = random_scene(n_cameras=n_cameras, seed=seed, **scene)
    g = torch.Generator().manual_seed(seed)
    signals = torch.randn(splats.count, D, generator=g, requires_grad=True)
    view_signals = torch.randn(n_cameras, splats.count, E, generator=g, requires_grad=True)
    behind = torch.rand(D + E, generator=g, requires_grad=True)
    return splats, cameras, {
        "signals": signals, "view_signals": view_signals, "signal_background": behind,
    }  # fmt: skip


def weights_like(*pictures):
    g = torch.Generator().manual_seed(9)
    return [torch.randn(p.shape, generator=g) for p in pictures]


def weighted(pictures, weights):
    return sum((p * w.to(p)).sum() for p, w in zip(pictures, weights, strict=True))


def reference(splats, cameras, options, dtype=torch.float64):
    """Leaves of the float64 renderer, by name, and its (colours, alphas, depths, signals)."""
    leaves = raw_parameters(splats, dtype)
    leaves |= {k: v.detach().to(dtype).requires_grad_() for k, v in options.items()}
    return leaves, reference_pictures(leaves, cameras)


def reference_pictures(leaves, cameras):
    signals = leaves["signals"].expand(len(cameras), -1, -1)
    image, alphas, sums, _ = render(
        leaves,
        cameras,
        signals=torch.cat([signals, leaves["view_signals"]], -1),
        background=torch.cat([torch.zeros(3).to(signals), leaves["signal_background"]]),
    )
    return image[..., :3], alphas, sums / alphas.clamp(min=1e-10), image[..., 3:]


def pictures_of(out):
    return out.colors, out.alphas, out.depths, out.signals


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("D", [1, 5, 40])
def test_signals_and_their_gradients_match_a_float64_renderer(torch_gsplat, backend, D):  # noqa: F811
    splats, cameras, options = case(D)
    out = rasterize(splats, cameras, **options, backend=backend)
    leaves, expected = reference(splats, cameras, options)
    for name, a, b in zip(("colors", "alphas", "depths"), pictures_of(out), expected, strict=False):
        shown = expected[1] > 0.01
        assert (a - b)[shown].abs().max() < 1e-4 * max(1, b.abs().max()), name
    assert out.signals.shape == (2, 37, 50, D + 2)
    assert (out.signals - expected[3]).abs().max() < 1e-4
    weights = weights_like(*expected)
    weights[2] *= expected[1] > 0.05  # the expectation's slope explodes where alpha is 0
    weighted(pictures_of(out), weights).backward()
    weighted(expected, weights).backward()
    for name, leaf in leaves.items():
        ours = options[name] if name in options else splats[name]
        assert relative(ours.grad, leaf.grad) < 2e-3, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("detach", [False, True])
def test_gradients_are_the_slopes_of_a_float64_renderer(torch_gsplat, backend, detach):  # noqa: F811
    """Finite differences along random directions; with detach_geometry, the geometry's and the
    harmonics' slopes are those of the other pictures alone."""
    splats, cameras, options = case()
    out = rasterize(splats, cameras, **options, detach_geometry=detach, backend=backend)
    leaves, expected = reference(splats, cameras, options)
    leaves = {name: leaf.detach() for name, leaf in leaves.items()}
    weights = weights_like(*expected)
    weights[2] *= expected[1] > 0.05
    weighted(pictures_of(out), weights).backward()

    g = torch.Generator().manual_seed(3)
    step = 1e-8  # small, so that no pixel of a Gaussian comes or goes between the two
    for name in leaves:
        shown = slice(0, 3) if detach and name in GEOMETRY else slice(0, 4)
        direction = torch.randn(leaves[name].shape, generator=g, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            moved = {**leaves, name: leaves[name] + sign * step * direction}
            with torch.no_grad():
                pictures = reference_pictures(moved, cameras)
            values.append(weighted(pictures[shown], weights[shown]))
        slope = (values[0] - values[1]) / (2 * step)
        ours = (options[name] if name in options else splats[name]).grad
        size = ours.double().norm() * direction.norm() / direction.numel() ** 0.5
        assert ((ours * direction).sum() - slope).abs() < 5e-3 * size, name


@pytest.mark.parametrize("depth", [True, False])
@pytest.mark.parametrize("D", [1, 5, 33, 70])
def test_colours_are_bit_for_bit_those_without_signals(D, depth):
    splats, cameras, options = case(D)
    options["background"] = torch.tensor([0.2, 0.7, 0.4])
    plain = rasterize(splats, cameras, depth=depth, background=options["background"])
    for detach in (False, True):
        out = rasterize(splats, cameras, depth=depth, detach_geometry=detach, **options)
        assert torch.equal(out.colors, plain.colors)
        assert torch.equal(out.alphas, plain.alphas)
        assert not depth or torch.equal(out.depths, plain.depths)


@pytest.mark.parametrize("depth", [True, False])
@pytest.mark.parametrize("D", [1, 5, 33])
def test_detached_signals_leave_no_trace_in_the_gradients_of_the_rest(D, depth):
    """Bit for bit, absolute gradients of the means included."""
    gradients = []
    for with_signals in (False, True):
        splats, cameras, options = case(D)
        options = {**options, "detach_geometry": True} if with_signals else {}
        out = rasterize(splats, cameras, depth=depth, absgrad=True, **options)
        pictures = [out.colors, out.alphas] + [out.depths] * depth
        loss = weighted(pictures, weights_like(*pictures))
        if with_signals:
            loss = loss + out.signals.square().sum()
        loss.backward()
        gradients.append([out.info["means2d"].absgrad] + [splats[name].grad for name in NAMES])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("D", [2, 40])
def test_detached_signals_alone_move_nothing_but_themselves(torch_gsplat, backend, D):  # noqa: F811
    gradients = []
    for detach in (False, True):
        splats, cameras, options = case(D)
        out = rasterize(splats, cameras, **options, detach_geometry=detach, backend=backend)
        out.signals.square().sum().backward()
        gradients.append([value.grad for value in options.values()])
        still = all(splats[k].grad is None or (splats[k].grad == 0).all() for k in GEOMETRY)
        assert still == detach
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("depth", [True, False])
@pytest.mark.parametrize("D", [0, 7])
def test_signals_without_colours_are_the_same(torch_gsplat, backend, detach, depth, D):  # noqa: F811
    splats, cameras, options = case(D or 1)
    options = {**options, "detach_geometry": detach} if D else {}
    both = rasterize(splats, cameras, **options, backend=backend)
    alone = rasterize(splats, cameras, **options, colors=False, depth=depth, backend=backend)
    assert alone.colors is None
    for name, requested in (("alphas", True), ("depths", depth), ("signals", D > 0)):
        a, b = getattr(alone, name), getattr(both, name)
        assert (a is None) == (not requested), name
        if requested and backend == "cpu":
            assert torch.equal(a, b), name
        elif requested:  # torch may sum in another order there
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    gradients = []
    for out in (both, alone):
        splats.zero_grad()
        (out.alphas.sum() + (out.signals.square().sum() if D else 0)).backward()
        gradients.append([splats[name].grad for name in GEOMETRY])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gsplat_blends_all_that_fits_at_once(torch_gsplat):  # noqa: F811
    """Colours, depth and 28 signals in one kernel; detached, the signals in kernels of their own,
    without gradient to the means. Absolute gradients come from the first kernel alone."""
    splats, cameras, options = case(28, 2, n_cameras=1, count=10)
    blends = {
        False: [(32, True, True), (2, False, True)],
        True: [(4, True, True), (32, False, False)],
    }
    for detach, expected in blends.items():
        torch_gsplat.calls.clear()
        rasterize(
            splats, cameras, **options, detach_geometry=detach, absgrad=True, backend="gsplat"
        )
        assert torch_gsplat.calls == expected
    torch_gsplat.calls.clear()
    rasterize(splats, cameras, signals=options["signals"][:, :3], backend="gsplat")
    assert torch_gsplat.calls == [(8, False, True)]  # 7, padded to what its kernels have


def test_plain_pictures_match_gsplats_own_code(torch_gsplat):  # noqa: F811
    splats, cameras = random_scene(n_cameras=2)
    for options in ({}, {"antialiased": True, "depth": False, "background": torch.rand(3)}):
        ours = rasterize(splats, cameras, **options)
        theirs = rasterize(splats, cameras, **options, backend="gsplat")
        assert (ours.colors - theirs.colors).abs().max() < 1e-4
        assert (ours.alphas - theirs.alphas).abs().max() < 1e-4
        assert theirs.signals is None


def test_signals_are_chosen_by_name_in_the_order_of_the_request():
    splats, cameras, options = case(4, 1, count=20)
    latent, sure = options["signals"].split([3, 1], dim=1)
    gaussians = Gaussians(
        *(splats[name] for name in NAMES), signals={"sure": sure, "latent": latent}
    )
    together = rasterize(splats, cameras, signals=options["signals"]).signals
    named = rasterize(gaussians, cameras, signals=("latent", "sure")).signals
    assert torch.equal(together, named)
    assert torch.equal(rasterize(gaussians, cameras, signals="sure").signals, together[..., 3:])
    assert rasterize(gaussians, cameras).signals is None
    with pytest.raises(ValueError, match="no signal 'depth'; they have sure, latent"):
        rasterize(gaussians, cameras, signals=("sure", "depth"))
    trained = Splats.from_gaussians(gaussians)
    assert torch.equal(rasterize(trained, cameras, signals=("latent", "sure")).signals, named)
    rasterize(trained, cameras, signals="latent").signals.sum().backward()
    assert trained["latent"].grad.abs().sum() > 0 and trained["sure"].grad is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_and_more_channels(torch_gsplat, backend):  # noqa: F811
    splats, cameras, options = case(150, 1, n_cameras=1)
    out = rasterize(splats, cameras, **options, backend=backend)
    one = rasterize(splats, cameras, signals=options["signals"][:, 130:131])
    behind = (1 - one.alphas) * options["signal_background"][130]
    torch.testing.assert_close(out.signals[..., 130], one.signals[..., 0] + behind)
    out.signals.sum().backward()
    assert options["signals"].grad.abs().amin(1).max() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_network_that_predicts_gaussians_learns_from_a_render(dtype):
    """From the pictures through `Gaussians` to the weights, as the float64 renderer has it."""
    splats, cameras = random_scene(count=30, sh_degree=1, n_cameras=2)
    base = [splats[name].detach().to(dtype) for name in NAMES]
    sizes = [value[0].numel() for value in base]
    torch.manual_seed(0)
    network = torch.nn.Linear(8, sum(sizes) + 3).to(dtype)
    inputs = torch.randn(30, 8).to(dtype)

    def predict(network, inputs, base):
        *parts, latent = (0.1 * network(inputs)).split([*sizes, 3], dim=1)
        tensors = [b + p.reshape(b.shape) for b, p in zip(base, parts, strict=True)]
        return Gaussians(*tensors, signals={"latent": latent})

    out = rasterize(predict(network, inputs, base), cameras, signals=("latent",))
    assert out.colors.dtype == torch.float32
    weights = weights_like(out.colors, out.signals)
    weighted((out.colors, out.signals), weights).backward()
    ours = network.weight.grad.clone()
    assert (ours.double().abs().sum(1) > 0).all()  # every output has been reached

    network = network.double()
    network.zero_grad()
    gaussians = predict(network, inputs.double(), [value.double() for value in base])
    raw = {name: getattr(gaussians, name) for name in NAMES}
    image, *_ = render(raw, cameras, sh_degree=1, signals=gaussians.signals["latent"])
    weighted((image[..., :3], image[..., 3:]), weights).backward()
    assert relative(ours, network.weight.grad) < (0.1 if dtype == torch.bfloat16 else 2e-3)
