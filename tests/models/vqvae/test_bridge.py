# The VAE-bridge: off without weights, an identity at a friendly start, and fed by the render.
from dataclasses import replace

import pytest
import torch

from models.vqvae.bridge import Bridge
from models.vqvae.config import VQVAEConfig
from models.vqvae.model import VQVAE

SMALL = VQVAEConfig(
    width=16, multipliers=(1, 1, 2), res_blocks=1, groups=8, latent_channels=4, vocabulary=16
)


@torch.no_grad()
def test_a_fresh_identity_bridge_returns_the_render():
    torch.manual_seed(0)
    vqvae = VQVAE(SMALL)
    vqvae.add_bridge()
    render = torch.rand(2, 3, 16, 24) * 2 - 1
    f_hat = vqvae.latent(render)
    bridged, plain = vqvae.decode(f_hat, render, bridge=True), vqvae.decode(f_hat)
    assert (bridged - render).abs().max() < 0.03 * (plain - render).abs().max()


def test_a_fresh_identity_bridge_learns():
    torch.manual_seed(0)
    vqvae = VQVAE(SMALL)
    vqvae.add_bridge()
    render = torch.rand(1, 3, 16, 16) * 2 - 1
    loss = vqvae.decode(vqvae.latent(render), render, bridge=True).square().mean()
    loss.backward()
    grads = {n: p.grad.abs().max() for n, p in vqvae.bridge.named_parameters()}
    alive = [n for n, g in grads.items() if g > 0]
    assert "blend.conv_out.weight" in alive
    assert "levels.0.content.conv2.weight" in alive
    assert "levels.2.weight.conv2.bias" in alive


@torch.no_grad()
def test_the_original_start_is_not_an_identity_but_uses_the_render():
    torch.manual_seed(0)
    vqvae = VQVAE(SMALL, bridge=True)
    render = torch.rand(1, 3, 16, 16) * 2 - 1
    f_hat = vqvae.latent(render)
    one = vqvae.decode(f_hat, render, bridge=True)
    other = vqvae.decode(f_hat, -render, bridge=True)
    assert (one - other).abs().max() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_a_guided_bridge_starts_as_an_identity_and_can_see_both_pictures(patch):
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, guided_bridge=True, patch=patch))
    vqvae.add_bridge()
    render, guide = torch.rand(2, 1, 3, 16, 24) * 2 - 1
    f_hat = vqvae.latent(render)
    bridged = vqvae.decode(f_hat, render, bridge=True, guide=guide)
    assert (bridged - render).abs().max() < 0.03 * (vqvae.decode(f_hat) - render).abs().max()

    own, twice = vqvae.encoder.features(render), vqvae.features(render)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own, twice, strict=True))
    seen = vqvae.features(render, guide)
    assert all(not torch.allclose(a, b, atol=1e-2) for a, b in zip(own, seen, strict=True))

    vqvae.bridge = Bridge(vqvae.config)  # open gates
    answers = [vqvae.decode(f_hat, render, bridge=True, guide=g) for g in (guide, render, None)]
    assert (answers[0] - answers[1]).abs().max() > 0.01
    assert torch.equal(answers[1], answers[2])


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_alpha_is_read_beside_both_pictures(patch):
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, guided_bridge=True, render_alpha=True, patch=patch))
    vqvae.add_bridge()
    render, guide = torch.rand(2, 1, 3, 16, 24) * 2 - 1
    alpha = torch.rand(1, 1, 16, 24) * 2 - 1
    known, unknown = vqvae.features(render, guide, alpha), vqvae.features(render, guide)
    assert all(torch.equal(a, b) for a, b in zip(known, unknown, strict=True))  # says nothing yet
    vqvae.bridge = Bridge(vqvae.config)
    f_hat = vqvae.latent(render)
    known, unknown, zero = (
        vqvae.decode(f_hat, render, bridge=True, guide=guide, alpha=a)
        for a in (alpha, None, torch.zeros_like(alpha))
    )
    assert (known - unknown).abs().max() > 0.01
    assert torch.equal(unknown, zero)


@torch.no_grad()
def test_a_bridge_without_alpha_gets_a_place_for_it():
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, guided_bridge=True, patch=2), bridge=True)
    render, guide = torch.rand(2, 1, 3, 16, 24) * 2 - 1
    alpha = torch.rand(1, 1, 16, 24) * 2 - 1
    before = vqvae.features(render, guide)
    for _ in range(2):  # the second time nothing is left to do
        vqvae.read_alpha()
        after = vqvae.features(render, guide, alpha)
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b)
    assert vqvae.config.render_alpha
    with pytest.raises(ValueError, match="warped references"):
        VQVAE(SMALL).read_alpha()


@torch.no_grad()
def test_a_last_level_at_full_resolution_changes_nothing_yet_and_can_be_added():
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, guided_bridge=True, patch=2))
    vqvae.bridge = Bridge(vqvae.config)  # open gates
    render, guide = torch.rand(2, 1, 3, 16, 24) * 2 - 1
    alpha = torch.rand(1, 1, 16, 24) * 2 - 1
    f_hat = vqvae.latent(render)

    def decoded():
        return vqvae.decode(f_hat, render, bridge=True, guide=guide, alpha=alpha)

    before = decoded()
    for _ in range(2):  # the second time nothing is left to do
        vqvae.add_fine(8)
        torch.testing.assert_close(decoded(), before)
    vqvae.bridge.fine.conv_out.weight.normal_()
    changed = decoded()
    assert (changed - before).abs().max() > 0.01
    vqvae.read_alpha()  # alpha says nothing yet, there too
    torch.testing.assert_close(decoded(), changed, atol=1e-3, rtol=1e-3)
    again = VQVAE(vqvae.config, bridge=True)
    again.load_state_dict(vqvae.state_dict())
    loaded = again.decode(f_hat, render, bridge=True, guide=guide, alpha=alpha)
    assert torch.equal(loaded, decoded())
    vqvae.bridge.start_as_identity()
    bridged = vqvae.decode(f_hat, render, bridge=True, guide=guide)
    assert (bridged - render).abs().max() < 0.03 * (vqvae.decode(f_hat) - render).abs().max()
    with pytest.raises(ValueError, match="8 wide already"):
        vqvae.add_fine(16)
    with pytest.raises(ValueError, match="warped references"):
        VQVAE(SMALL).add_fine(8)


@pytest.mark.parametrize("guided", [True, False])
def test_what_is_compiled_for_a_gpu_is_one_program_and_the_same(guided):
    torch.manual_seed(0)
    config = replace(SMALL, guided_bridge=guided, patch=2, fine_width=8 * guided)
    vqvae = VQVAE(config).double()  # in float64, with gradients, a CPU has no kernels of its own
    vqvae.bridge = Bridge(config).double()
    render, guide = torch.rand(2, 1, 3, 16, 24, dtype=torch.float64) * 2 - 1

    def answers():
        f_hat = vqvae.latent(render)
        yield f_hat
        yield vqvae.decode(f_hat)
        yield vqvae.decode(f_hat, render, bridge=True, guide=guide)

    plain = list(answers())
    programs = 0

    def counted(graph, inputs):
        nonlocal programs
        programs += 1
        return graph.forward

    vqvae.compile_parts(backend=counted, dynamic=False, fullgraph=True)
    for one, other in zip(answers(), plain, strict=True):
        torch.testing.assert_close(one, other)
    assert programs == 4  # encoder, decoder, what the bridge reads, decoder with bridge
    torch.compiler.reset()


def test_the_last_level_sees_single_pixels():
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, guided_bridge=True, patch=2, fine_width=8), bridge=True)
    picture = torch.rand(1, 6, 16, 24, requires_grad=True)
    h = torch.zeros(1, vqvae.config.channels[0], 8, 12)
    vqvae.bridge.fine(picture, picture[:, :3], h)[0, 0, 5, 7].backward()
    assert (picture.grad[0, 0, 4:7, 6:9] != 0).all()


def test_asking_for_a_bridge_that_is_not_there_is_an_error():
    vqvae = VQVAE(SMALL)
    with pytest.raises(ValueError, match="no VAE-bridge"):
        vqvae.decode(torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 16, 16), bridge=True)
