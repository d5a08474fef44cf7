# The ways to attend in training agree.
import pytest
import torch

from models.var.segments import views_by_scale
from models.var.transformer import ByScale, Masked

LENGTHS = (5, 4, 9, 12)


@pytest.mark.parametrize("views", [1, 2, 4])
@pytest.mark.parametrize("ref_attends", ["all", "self"])
@pytest.mark.parametrize("mixing", [True, False])
def test_by_scale_is_the_masked_one(views, ref_attends, mixing):
    generator = torch.Generator().manual_seed(views)
    q, k, v = (
        torch.randn(2, views, sum(LENGTHS), 3, 8, generator=generator, dtype=torch.float64)
        for _ in range(3)
    )
    for tensor in (q, k, v):
        tensor.requires_grad_()
    mask = views_by_scale(LENGTHS, views if mixing else 1, ref_attends).dense_mask()
    weight = torch.randn(q.shape, generator=generator, dtype=torch.float64)
    results = []
    for attend in (Masked(mask, mixing), ByScale(LENGTHS, ref_attends, mixing)):
        out = attend(q, k, v)
        results.append((out, *torch.autograd.grad((out * weight).sum(), (q, k, v))))
    for masked, by_scale in zip(*results, strict=True):
        torch.testing.assert_close(by_scale, masked, rtol=1e-12, atol=1e-12)
