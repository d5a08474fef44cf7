# A prior over codes from the render's own latent: the transformer starts from the render's tokens
# and learns where to deviate from them.
import torch
from torch import Tensor, nn

# first values of `log_trust` at the first and at the last scale: where the cross-entropy was least
# on procedural scenes
TRUST = 1.6, -0.2


class RenderPrior(nn.Module):
    """Codes are the likelier the nearer they are to the render's residual at their place.

    The residual (`rest`) is the render's latent less the sum of the scales so far, averaged down
    to the next scale: the ground truth's own code where both agree. The transformer reads it with
    each token and shifts it (`aim`); a learned precision for each scale (`log_trust`) says how far
    it is trusted. Not in the original, whose transformer sees the render in its prefix only.
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
