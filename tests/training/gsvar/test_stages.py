# The stages' losses: what they are made of, and what must not change them.
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.gsvar import GSVAR, diffusion
from tests.training.conftest import sizes
from training.draws import Draws
from training.gsvar.bridge import BridgeStage
from training.gsvar.latent import LatentStage
from training.gsvar.stage import drops_references
from training.gsvar.tokenizer import TokenizerStage
from training.losses import ImageObjective, harm
from training.triplets import TripletDataset, collate
from triplets import manifest


def model(**changes):
    torch.manual_seed(0)
    network = GSVAR(sizes(**changes))
    with torch.no_grad():  # a new model says the same of everything
        network.head.weight.mul_(100)
        for block in network.transformer.blocks:
            block.adaln[1].weight.mul_(1000)
        for block in network.refiner.blocks:
            block.modulation.weight.normal_(std=0.05)
        network.refiner.output.weight.normal_(std=0.1)
    return network


@pytest.fixture(scope="module")
def batch(triplets):
    dataset = TripletDataset(manifest.read(triplets, ["train"]), (64, 64), references=2)
    return collate([dataset[i, 100 + i] for i in range(4)]).to("cpu")


def part(batch, samples):
    """Some samples of a batch."""
    names = ("keys", "sources", "places", "seeds")
    lists = {name: getattr(batch, name)[samples] for name in names}
    return replace(batch, views=batch.views[samples], truth=batch.truth[samples], **lists)


@pytest.mark.parametrize("both", [False, True])
def test_stage_1_is_cross_entropy_and_twice_the_refiners_loss(batch, both):
    network = model(ref_attends="all")
    stage = LatentStage(network, both_views=both, label_smoothing=0.1)
    losses = stage(batch)
    quantizer, grids = network.vqvae.quantizer, network.config.scales.grids
    images = torch.cat((batch.truth[:, None], batch.views[:, 1:]), 1)
    tokens = [network.vqvae.tokens(images[:, v], grids) for v in range(3)]
    inputs = torch.stack([quantizer.inputs(t.indices, grids) for t in tokens], 1)
    labels = torch.tensor([[0, 1, 1]])
    draws, last = Draws(batch.seeds), network.config.scales.lengths[-1]
    hidden = network(batch.views, inputs, labels, draws.uniform(network.config.depth, 2))
    logits = network.logits(hidden, labels)
    entropies, refined = [], []
    views = 3 if both else 1
    steps, noise = draws.integers(1000, 4, views, last), draws.normal(4, views, last, 8)
    for v in range(views):
        target = torch.cat(tokens[v].indices, 1)
        entropies.append(F.cross_entropy(logits[:, v].mT, target, label_smoothing=0.1))
        guess = logits[:, v, -last:].argmax(-1)
        x0 = (tokens[v].residual - quantizer.codebook(guess)) / 0.6
        condition = network.refiner_condition(hidden[:, v, -last:], guess)
        for k in range(4):
            i, eps = steps[:, k, v].flatten(), noise[:, k, v].flatten(0, 1)
            x = diffusion.training_process().noised(x0.flatten(0, 1), i, eps)
            answer = network.refiner(x, i, condition.flatten(0, 1))
            parts = diffusion.losses(answer, x0.flatten(0, 1), x, i, eps)
            refined.append(sum(parts).mean())
    expected = torch.stack(entropies).mean() + 2 * torch.stack(refined).mean()
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses["cross_entropy"], torch.stack(entropies).mean())


def test_a_batch_is_the_mean_of_its_halves(batch):
    for stage in (
        LatentStage(model(), corrupt=0.3),
        TokenizerStage(model(), ImageObjective(None), total=10),
    ):
        whole = stage(batch)["loss"]
        halves = [stage(part(batch, samples))["loss"] for samples in (slice(2), slice(2, 4))]
        torch.testing.assert_close(whole, sum(halves) / 2, rtol=1e-5, atol=1e-6)


def test_dropped_references_leave_the_inference_without_them(batch):
    stage = LatentStage(model(), drop_references=0.5)
    assert 0.4 < sum(drops_references(seed << 40, 0.5) for seed in range(1000)) / 1000 < 0.6
    without = next(s for s in range(100) if drops_references(s, 0.5))
    alone = replace(batch, views=batch.views[:, :1])
    ours = stage(replace(batch, step_seed=without))["cross_entropy"]
    torch.testing.assert_close(ours, LatentStage(model())(alone)["cross_entropy"])
    with_them = next(s for s in range(100) if not drops_references(s, 0.5))
    assert stage(replace(batch, step_seed=with_them))["cross_entropy"] != ours


def test_corruption_changes_what_is_given_not_how_much_is_asked(batch):
    plain, corrupt = LatentStage(model()), LatentStage(model(), corrupt=0.5)
    scales = plain.fit_scales(batch.views)
    latents, _ = plain.latents(batch, batch.views)
    with torch.no_grad():
        before = plain.targets(latents, scales, Draws(batch.seeds))
        after = corrupt.targets(latents, scales, Draws(batch.seeds))
    assert torch.equal(before[0][:, 1:], after[0][:, 1:])  # references are as they are
    assert torch.equal(before[2][:, 1:], after[2][:, 1:])
    changed = (before[2][:, 0] != after[2][:, 0]).any(-1).float().mean()
    assert changed > 0.5
    assert before[0].shape == after[0].shape


def test_recomputed_activations_give_the_same_gradients(batch):
    gradients = []
    for on in (False, True):
        stage = LatentStage(model())
        stage.model.transformer.checkpointing = on
        stage(batch)["loss"].backward()
        gradients.append([p.grad for _, p in stage.parameters_of("model")])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_kept_latents_change_nothing(batch, tmp_path):
    network = model()
    plain = LatentStage(network)(batch)["loss"]
    cached = LatentStage(network, cache=tmp_path)
    assert [cached(batch)["loss"].item() for _ in range(2)] == [plain.item()] * 2
    assert len(list(tmp_path.rglob("*.safetensors"))) > 4


@pytest.mark.parametrize("number", [0, 1, 2])
def test_half_precision_is_near(batch, number):
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        network = model()
        network.vqvae.add_bridge(identity=False)
        if number == 0:
            network.vqvae.bridge = None
            stage = TokenizerStage(network, ImageObjective(None), total=10, dtype=dtype)
        elif number == 1:
            network.vqvae.bridge = None
            stage = LatentStage(network, dtype=dtype)
        else:
            stage = BridgeStage(network.eval(), ImageObjective(None), dtype=dtype)
        loss = stage(batch)["loss"]
        loss.backward()
        for name, parameter in stage.parameters_of("model"):
            assert parameter.grad is not None, name
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) < 0.03 * abs(losses[0])


def test_a_new_bridge_starts_at_the_render(batch):
    network = model().eval()
    network.vqvae.add_bridge()
    stage = BridgeStage(network, ImageObjective(None))
    ours = stage(batch)["loss"].item()
    render = ImageObjective(None)(batch.views[:, 0], batch.truth)["loss"].item()
    assert abs(ours - render) < 0.05 * render
    assert {n.split(".")[1] for n, _ in stage.parameters_of("model")} == {"bridge"}


def test_restored_latents_are_kept_and_the_same(batch, tmp_path):
    network = model().eval()
    network.vqvae.add_bridge()
    plain = BridgeStage(network, ImageObjective(None)).restored(batch, batch.views)
    cached = BridgeStage(network, ImageObjective(None), cache=tmp_path)
    assert torch.equal(cached.restored(batch, batch.views), plain)
    with torch.no_grad():  # what is there is not computed again, nor forgotten with the bridge
        network.vqvae.bridge.blend.conv_out.bias += 1
        again = BridgeStage(network, ImageObjective(None), cache=tmp_path)
        again.restored(batch, batch.views)
        assert again.stored.folder == cached.stored.folder
        cached.frozen[0].head.weight.zero_()
    assert torch.equal(cached.restored(batch, batch.views), plain)


def test_a_pretrained_tokenizer_keeps_its_codes(batch):
    stage = TokenizerStage(model(), ImageObjective(None), total=1000, revive_every=0, new=False)
    before = stage.model.vqvae.quantizer.codebook.weight.clone()
    numbers = {}
    for step in range(100):
        if step in (0, 99):
            stage(batch)
        numbers |= stage.after_step(step)
    assert torch.equal(stage.model.vqvae.quantizer.codebook.weight, before)
    assert 0 < numbers["codes_used"] < 1


def test_reviving_replaces_unused_codes_only(batch):
    stage = TokenizerStage(model(), ImageObjective(None), total=1000, revive_every=5)
    for step in range(5):
        stage(replace(batch, step=step))
        codes = stage.model.vqvae.quantizer.codebook.weight
        used, before = stage.hits + stage.counted[0] > 0, codes.detach().clone()
        numbers = stage.after_step(step)
    assert numbers == {"codes_used": pytest.approx(used.float().mean().item())}
    assert 0 < used.sum() < len(used)
    assert torch.equal(codes[used], before[used])
    assert (codes[~used] != before[~used]).any(-1).all()
    assert not stage.hits.any()


def test_a_collapsing_codebook_is_warned_of(caplog):
    stage = TokenizerStage(model(), ImageObjective(None), total=1000, revive_every=0, new=False)
    count = len(stage.hits)

    def look(used, vectors=10):
        hits = torch.zeros(count)
        hits[:used] = vectors * count
        caplog.clear()
        stage.counted = [hits]
        stage.after_step(99)
        return caplog.text

    assert "collapsing" not in look(count // 8)
    assert "collapsing" not in look(5, vectors=1e-3)  # too few vectors to tell
    said = look(5)
    assert f"collapsing: 5 of {count} codes ({500 / count:.1f} %) are in use at step 100" in said
    assert "--revive_every=100" in said
    assert "collapsing" not in look(5)
    assert f"2 of {count} codes" in look(2)


def test_a_render_prior_starts_at_the_render_s_tokens_and_learns(batch, tmp_path):
    torch.manual_seed(0)
    network = GSVAR(sizes(render_prior=True, sampler="none"))
    grids = network.config.scales.grids
    with torch.no_grad():
        own, truth = (
            torch.cat(network.vqvae.tokens(images, grids).indices, 1)
            for images in (batch.views[:, 0], batch.truth)
        )
    stage = LatentStage(network)
    losses = stage(batch, detail=True)
    assert "diffusion" not in losses
    assert losses["accuracy"] >= 0.5 * (own == truth).float().mean()
    losses["loss"].backward()
    assert all(p.grad is not None for _, p in stage.parameters_of("model"))
    cached = LatentStage(network, cache=tmp_path)
    for _ in range(2):
        torch.testing.assert_close(cached(batch)["loss"], losses["loss"])


def test_a_render_prior_says_nothing_of_references():
    with pytest.raises(ValueError, match="use_ref_view_loss"):
        LatentStage(model(render_prior=True), both_views=True)


def test_the_bridge_may_learn_on_the_render_s_own_tokens(batch):
    network = model()
    network.vqvae.add_bridge()
    stage = BridgeStage(network, ImageObjective(None), own_tokens=True)
    own = network.vqvae.quantized(batch.views[:, 0], network.config.scales.grids)
    torch.testing.assert_close(stage.restored(batch, batch.views), own)


def test_a_bridge_may_learn_to_read_alpha(batch):
    network = model(warped_references=True, render_alpha=True)
    network.vqvae.add_bridge()
    stage = BridgeStage(network, ImageObjective(None), own_tokens=True)
    with torch.no_grad():
        network.vqvae.bridge.change.weight.normal_(std=0.1)
    batch = replace(batch, alpha=torch.rand_like(batch.alpha) * 2 - 1)
    stage(batch)["loss"].backward()
    read = network.vqvae.bridge.reader.conv_in.weight.grad[:, 6:]
    assert read.abs().max() > 0


def test_a_bridge_s_last_level_learns_beside_it(batch):
    network = model(warped_references=True, fine_width=16)
    network.vqvae.add_bridge()
    stage = BridgeStage(network, ImageObjective(None), own_tokens=True)
    fine = network.vqvae.bridge.fine
    stage(batch)["loss"].backward()
    assert fine.conv_out.weight.grad.abs().max() > 0  # the others as soon as it is not zero
    with torch.no_grad():
        fine.conv_out.weight.normal_(std=0.1)
    stage(batch)["loss"].backward()
    assert all(p.grad.abs().max() > 0 for p in fine.parameters())


def test_harm_is_what_became_worse(batch):
    render, truth = batch.views[:, 0], batch.truth
    assert harm(render, render, truth) == 0
    assert harm(truth, render, truth) == 0
    half = torch.lerp(render, truth, 0.5)
    torch.testing.assert_close(harm(render, half, truth), (render - half).abs().mean())
    network = model()
    network.vqvae.add_bridge(identity=False)
    plain, careful = (
        BridgeStage(network, ImageObjective(None), own_tokens=True, harm=weight)(batch)
        for weight in (0.0, 2.0)
    )
    assert "harm" not in plain and careful["harm"] > 0
    torch.testing.assert_close(careful["loss"], plain["loss"] + 2 * careful["harm"])
