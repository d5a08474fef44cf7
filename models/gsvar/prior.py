# The render's own latent as the transformer's first guess: what it says of each token unless
# training has found better.
import torch
from torch import Tensor, nn

# the log of a truth's precision around its render, at the first and at the last scale, at the
# start: as measured on procedural scenes, where the cross-entropy was least
TRUST = 1.6, -0.2


class RenderPrior(nn.Module):
    """Codes are likely as they lie near what the render still has to say at their place.

    What a render still says (`rest`) is its latent less the sum of the scales so far, averaged
    down to the next scale: where render and truth agree, the truth's own code. The transformer
    reads it with each token, moves it (`aim`), and tells how far it is to be trusted. Not in the
    original, whose transformer knows the render by its prefix alone.
    """

    def __init__(self, width: int, latent: int, scales: int):
        super().__init__()
        self.word = nn.Linear(latent, width)
        self.aim = nn.Linear(width, latent)
        self.log_trust = nn.Parameter(torch.linspace(*TRUST, scales))

    def logits(self, hidden: Tensor, rest: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
        """Log-probabilities [...,L,vocabulary], less a constant, of the codes [vocabulary,Cz];
        normalised hidden [...,L,C], rest [...,L,Cz], scales [L] of the tokens."""
        aim = self.aim(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            aim = aim.to(rest.dtype) + rest
            codes = codes.to(rest.dtype)
            nearness = 2 * aim @ codes.T - codes.square().sum(1)
            return nearness * self.log_trust.to(rest.dtype).exp()[scales][:, None]
