# What can be relied on whatever the weights are: photos and targets apart, in float64.
import pytest
import torch

from models.efficient_lvsm import EfficientLVSM, tiny
from models.efficient_lvsm.model import initialize, join
from models.layers.slot_cache import SlotCache

N, M, H, W = 3, 2, 16, 24


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EfficientLVSM(tiny()).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(1)

    def noise(views, channels):
        return torch.randn(1, views, channels, H, W, generator=generator, dtype=torch.float64)

    return noise(N, 3), noise(N, 6), noise(M, 6)


def caches(model, capacity):
    config, tokens = model.config, H * W // model.config.patch**2
    sizes = 1, config.heads, capacity * tokens, config.head_dim
    return [SlotCache.empty(*sizes, dtype=torch.float64) for _ in range(config.depth)]


def add(cached, model, name, photo, rays):
    contexts = join(model.encode(photo, rays))
    for cache, context in zip(cached, contexts, strict=True):
        cache.add(name, *context)


def near(ours, theirs):
    return (ours - theirs).abs().max() < 1e-10


def test_views_added_one_at_a_time_are_all_at_once(model, inputs):
    photos, rays, targets = inputs
    cached = caches(model, N)
    for i in range(N):
        add(cached, model, i, photos[:, i : i + 1], rays[:, i : i + 1])
        render = model.decode(targets, [cache.read() for cache in cached])
        assert near(render, model(photos[:, : i + 1], rays[:, : i + 1], targets))


def test_a_removed_view_was_never_there(model, inputs):
    photos, rays, targets = inputs
    cached = caches(model, N)
    for i in range(N):
        add(cached, model, i, photos[:, i : i + 1], rays[:, i : i + 1])
    for cache in cached:
        cache.remove(1)
    render = model.decode(targets, [cache.read() for cache in cached])
    assert near(render, model(photos[:, ::2], rays[:, ::2], targets))


def test_the_order_of_views_does_not_matter(model, inputs):
    photos, rays, targets = inputs
    assert near(model(photos.flip(1), rays.flip(1), targets), model(photos, rays, targets))


def test_targets_do_not_see_each_other(model, inputs):
    photos, rays, targets = inputs
    apart = [model(photos, rays, targets[:, i : i + 1]) for i in range(M)]
    assert near(torch.cat(apart, 1), model(photos, rays, targets))


def test_initial_deviations():
    torch.manual_seed(0)
    model = EfficientLVSM(tiny())
    before = model.encoder[0].mlp[0].weight.clone()
    initialize(model)
    assert torch.equal(model.encoder[0].mlp[0].weight, before)
    for layer, std in (
        (model.photo_tokens, 0.02),
        (model.decoder[0].mlp[0], 0.02 / 2**0.5),
        (model.decoder[1].mlp[0], 0.02 / 2),
    ):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
    initialize(model, deepens=False, encoder=True)
    for blocks in (model.encoder, model.decoder):
        assert blocks[0].mlp[0].weight.std().item() == pytest.approx(0.02 / 2, rel=0.03)
