# Stage 0: the multi-scale VQ-VAE learns to say pictures in tokens.
from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.gsvar import GSVAR
from models.vqvae.discriminator import Discriminator, hinge
from models.vqvae.model import exact
from runtime.seeds import mix_seeds
from training.distributed import rank, world
from training.draws import Draws
from training.losses import ImageObjective
from training.stages import Losses, Networks
from training.triplets import Batch

EARLY = (1, 10, 30)  # steps after which a new tokenizer's codes are revived too
REPORTED = 100  # steps between two counts of the codes in use, where none are revived
SETTLED = 0.8  # share of the run after which codes are left alone


class TokenizerStage(Networks):
    """Reconstruction, codebook and commitment losses (VAR, arXiv 2404.02905, section 3.2).

    `continuous` of the pictures are decoded from the latent itself, as the refiner will restore
    it. Codes that nobody used for `revive_every` steps (0: never) become vectors of the batch;
    those of a `new` tokenizer in its first steps too. With `gan` > 0 a patch discriminator joins
    from step `gan_from` on.
    """

    prefix = "vqvae"

    def __init__(
        self,
        model: GSVAR,
        objective: ImageObjective,
        *,
        total: int,
        dtype: torch.dtype = torch.float32,
        commitment: float = 0.25,
        continuous: float = 0.25,
        revive_every: int = 100,
        new: bool = True,
        gan: float = 0.0,
        gan_from: int = 0,
        seed: int = 0,
    ):
        super().__init__(model, dtype, None)
        self.total, self.commitment, self.continuous = total, commitment, continuous
        self.revive_every, self.early = revive_every, EARLY if new and revive_every else ()
        self.gan, self.gan_from, self.seed = gan, gan_from, seed
        model.requires_grad_(False)
        model.vqvae.requires_grad_(True)
        model.vqvae.quantizer.phis.requires_grad_(False)  # a short schedule leaves some unused
        for phi in model.vqvae.quantizer.used_phis(len(model.config.scales)):
            phi.requires_grad_(True)
        self.objective = (objective,)
        self.discriminator = Discriminator() if gan > 0 else None
        self.players = ("model", "discriminator") if gan > 0 else ("model",)
        # no buffer: each process counts its own until they are summed
        self.hits = torch.zeros(model.config.vocabulary, device=model.device)
        self.seen: Tensor | None = None
        self.decoded: Tensor | None = None

    def forward(self, batch: Batch, player: str = "model", detail: bool = False) -> Losses:
        if player == "discriminator":
            return self.judged(batch.truth)
        vqvae, grids = self.model.vqvae, self.model.config.scales.grids
        images = batch.truth
        with self.autocast():
            lowest = vqvae.encoder(images)
        latent = vqvae.quant_conv(exact(lowest))
        quantized = vqvae.quantizer.quantize(latent, grids)
        coin = Draws(batch.seeds, images.device).uniform(1, 1, 1) < self.continuous
        f_hat = torch.where(coin, latent, quantized.f_hat)
        with self.autocast():
            decoded = vqvae.decode(f_hat).float()
        losses = self.objective[0](decoded, images)
        loss = losses["loss"] + quantized.codebook_loss
        loss = loss + self.commitment * quantized.commitment_loss
        losses["codebook"] = quantized.codebook_loss.detach()
        if self.discriminator is not None and batch.step >= self.gan_from:
            self.discriminator.requires_grad_(False)
            with self.autocast():
                adversarial = -self.discriminator(decoded).float().mean()
            self.discriminator.requires_grad_(True)
            loss = loss + self.gan * adversarial
            losses["adversarial"] = adversarial.detach()
            self.decoded = decoded.detach()
        indices = torch.cat([i.flatten() for i in quantized.indices])
        self.hits += indices.bincount(minlength=len(self.hits)).to(self.hits)
        self.seen = quantized.vectors.detach()
        return losses | {"loss": loss}

    def judged(self, images: Tensor) -> Losses:
        """The discriminator's turn, on the pictures decoded a moment ago."""
        with self.autocast():
            real, fake = self.discriminator(images).float(), self.discriminator(self.decoded)
        loss = hinge(real, fake.float())
        return {"loss": loss, "discriminator": loss.detach()}

    def playing(self, player: str, step: int) -> bool:
        return player == "model" or step >= self.gan_from

    def parameters_of(self, player: str) -> list[tuple[str, nn.Parameter]]:
        part = self.model if player == "model" else self.discriminator
        return [(n, p) for n, p in part.named_parameters() if p.requires_grad]

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, float]:
        """Revives dead codes when it is time, and tells which share of the codes is in use."""
        done = step + 1
        if done not in self.early and done % (self.revive_every or REPORTED):
            return {}
        if world() > 1:
            dist.all_reduce(self.hits)
        dead = (self.hits == 0).nonzero().flatten().cpu()
        told = {"codes_used": 1 - len(dead) / len(self.hits)}
        self.hits.zero_()
        if not self.revive_every or done > SETTLED * self.total:
            return told
        codes, seen = self.model.vqvae.quantizer.codebook.weight, self.seen
        if world() > 1:
            parts = [torch.empty_like(seen) for _ in range(world())]
            dist.all_gather(parts, seen)
            seen = torch.cat(parts)
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, 4, step))
        chosen = torch.randperm(len(seen), generator=generator)[: len(dead)]
        codes[dead[: len(chosen)]] = seen[chosen.to(seen.device)].to(codes.dtype)
        return told

    def kept(self) -> dict[str, object]:
        judge, hits = self.discriminator, self.hits.clone()
        if world() > 1:
            dist.all_reduce(hits)
        return {
            "hits": hits.cpu(),
            "discriminator": None if judge is None else judge.state_dict(),
        }

    def restore(self, kept: dict) -> None:
        self.hits.copy_(kept["hits"] if rank() == 0 else torch.zeros_like(kept["hits"]))
        if self.discriminator is not None and kept["discriminator"] is not None:
            self.discriminator.load_state_dict(kept["discriminator"])
