# ArchonView: the source picture's tokens come before the target's, which are predicted scale by
# scale; the source's embedding and the relative pose modulate every block.
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from models.archonview.config import ArchonViewConfig
from models.layers.slot_cache import SlotCache
from models.var.sampler import GREEDY, Sampling, State, Uniforms, decode
from models.var.transformer import ByScale, Transformer
from models.vqvae.model import VQVAE

# B batch, L tokens of one picture, C channels, Cz latent channels, E embedding's channels


class ArchonView(nn.Module):
    """New views of an object: a picture, its embedding and a relative pose -> another picture.

    Pictures are [B,3,H,W] in [-1,1]. `null_embedding` [E] stands for no embedding in guidance; the
    original's checkpoints do not hold it.
    """

    def __init__(self, config: ArchonViewConfig):
        super().__init__()
        self.config = config
        width, scales = config.width, config.scales
        self.vqvae = VQVAE(config.vqvae)
        self.pose = nn.Linear(config.embedding + 4, config.embedding)
        self.condition = nn.Linear(config.embedding, width)
        self.register_buffer("null_embedding", torch.zeros(config.embedding))
        self.word = nn.Linear(config.vqvae.latent_channels, width)
        self.start_position = nn.Parameter(torch.empty(1, 1, width))
        self.position = nn.Parameter(torch.empty(1, scales.length, width))
        self.source_position = nn.Parameter(torch.empty(1, scales.length, width))
        self.scale_embedding = nn.Embedding(len(scales), width)
        self.source_scale_embedding = nn.Embedding(len(scales), width)
        self.null_token = nn.Parameter(torch.empty(width))
        self.transformer = Transformer(
            config.depth, width, config.heads, drop_path=config.drop_path
        )
        self.head = nn.Linear(width, config.vqvae.vocabulary)

    # what goes in ------------------------------------------------------------------------------

    def codes(self, pictures: Tensor) -> list[Tensor]:
        """Codes [B,l] of each scale of pictures [B,3,H,W]."""
        return self.vqvae.tokens(pictures, self.config.scales.grids).indices

    def conditions(self, embeddings: Tensor, poses: Tensor) -> Tensor:
        """[B,C] of embeddings [B,E] and relative poses [B,4]."""
        return self.condition(self.pose(torch.cat((embeddings, poses), -1)))

    def null_condition(self) -> Tensor:
        """[1,C]: no embedding, no pose."""
        return self.condition(self.null_embedding[None])

    def scale_ids(self) -> Tensor:
        """The scale of each token, [L]."""
        lengths = torch.tensor(self.config.scales.lengths, device=self.head.weight.device)
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    def source_tokens(self, codes: Sequence[Tensor], dropped: Tensor | None = None) -> Tensor:
        """[B,L,C] of a picture's codes; where `dropped` [B,L] the null token, bare."""
        vectors = self.vqvae.quantizer.codebook(torch.cat(list(codes), 1))
        tokens = self.word(vectors) + self.source_scale_embedding(self.scale_ids())
        tokens = tokens + self.source_position
        return (
            tokens if dropped is None else torch.where(dropped[..., None], self.null_token, tokens)
        )

    def null_tokens(self) -> Tensor:
        """[1,L,C]: no source."""
        return self.null_token.expand(1, self.config.scales.length, -1)

    def target_tokens(self, conditions: Tensor, maps: Tensor | None, scale: int | None) -> Tensor:
        """Tokens of one scale (None: of all): the condition [B,C] for the first, maps [B,l,Cz] of
        what is there so far for the others (all but the first scale)."""
        lengths = self.config.scales.lengths
        places = slice(0, sum(lengths))
        if scale is not None:
            places = slice(sum(lengths[:scale]), sum(lengths[: scale + 1]))
        parts = []
        if scale in (None, 0):
            parts.append(conditions[:, None] + self.start_position)
        if maps is not None:
            parts.append(self.word(maps))
        own = self.scale_embedding(self.scale_ids()[places]) + self.position[:, places]
        return torch.cat(parts, 1) + own

    # training ----------------------------------------------------------------------------------

    def forward(
        self,
        source: Tensor,
        conditions: Tensor,
        maps: Tensor,
        drop_path_noise: Tensor | None = None,
        hidden: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits [B,L,vocabulary] of all scales at once, given tokens of the source [B,L,C],
        conditions [B,C] and maps [B,L-1,Cz] of the true scales (`Quantizer.inputs`). After each
        block [B,2L,C] is appended to `hidden`."""
        x = torch.cat((source, self.target_tokens(conditions, maps, None)), 1)[:, None]
        lengths = self.config.scales.lengths
        attend = ByScale((sum(lengths), *lengths), "all", mixing=False)
        modulations = self.transformer.modulations(conditions[:, None])
        handles = []
        if hidden is not None:
            handles = [
                block.register_forward_hook(lambda _, __, out: hidden.append(out[:, 0]))
                for block in self.transformer.blocks
            ]
        attends = [attend] * self.config.depth
        x = self.transformer(x, modulations, None, attends, drop_path_noise)
        for handle in handles:
            handle.remove()
        return self.head(x[:, 0, sum(lengths) :])

    # inference ---------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        codes: Sequence[Tensor],
        embeddings: Tensor,
        poses: Tensor,
        *,
        sampling: Sampling = GREEDY,
        generator: torch.Generator | None = None,
        uniforms: Uniforms | None = None,
        source_sees_start: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """f_hat [B,Cz,h,w] and codes [B,l] of each scale, of sources' codes [B,l], their embeddings
        [B,E] and relative poses [B,4].

        source_sees_start: in the first step the source's tokens see the start token too, as in the
        original's demo; in training they do not."""
        conditions, source = self.conditions(embeddings, poses), self.source_tokens(codes)
        if sampling.guidance:
            count = len(conditions)
            conditions = torch.cat((conditions, self.null_condition().expand(count, -1)))
            source = torch.cat((source, self.null_tokens().expand(count, -1, -1)))
        decoder = Decoder(self, source, conditions, source_sees_start)
        return decode(
            self.config.scales,
            self.vqvae.quantizer,
            decoder,
            sampling=sampling,
            generator=generator,
            uniforms=uniforms,
        )


class Decoder:
    """Logits scale by scale, from a cache of what came before: the plain way.

    hidden: the last block's output of the first step, [B,L+1,C]."""

    def __init__(
        self, model: ArchonView, source: Tensor, conditions: Tensor, source_sees_start: bool
    ):
        self.model, self.source, self.conditions = model, source, conditions
        self.joint = source_sees_start
        self.modulations = model.transformer.modulations(conditions[:, None])
        lengths = model.config.scales.lengths
        self.caches = [
            SlotCache.empty(
                len(source),
                model.config.heads,
                2 * sum(lengths),
                model.config.width // model.config.heads,
                source.device,
                source.dtype,
            )
            for _ in range(model.config.depth)
        ]

    def __call__(self, state: State) -> Tensor:
        """The next scale's logits [B,l,vocabulary]."""
        tokens = self.model.target_tokens(self.conditions, state.map, state.scale)
        if state.scale:
            return self.model.head(self.advance(tokens))
        if self.joint:
            self.hidden = self.advance(torch.cat((self.source, tokens), 1))
        else:
            self.hidden = torch.cat((self.advance(self.source), self.advance(tokens)), 1)
        return self.model.head(self.hidden[:, -1:])

    def advance(self, tokens: Tensor) -> Tensor:
        """Tokens [B,l,C] through all blocks; they see each other and what was there before."""
        attends = [Appending(cache) for cache in self.caches]
        return self.model.transformer(tokens[:, None], self.modulations, None, attends)[:, 0]


class Appending:
    """Attends to all that a cache holds and to the tokens themselves, which it then holds too."""

    def __init__(self, cache: SlotCache):
        self.cache = cache

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (rearrange(t, "b 1 l h d -> b h l d") for t in (q, k, v))
        self.cache.add(len(self.cache.slots), k, v)
        return rearrange(self.cache.attend(q), "b h l d -> b 1 l h d")
