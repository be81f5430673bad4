"""The part that an ablation removes, against the products in float64."""

import pytest
import torch

from refusal_utils.steering.removed_part import MOST_SUMMED, removed_part


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("n_tokens", [1, 3])
@pytest.mark.parametrize("rank", [1, MOST_SUMMED, MOST_SUMMED + 1])
def test_what_an_ablation_removes_is_the_product_rounded_twice(dtype, n_tokens, rank):
    draw = torch.Generator().manual_seed(7)
    value = torch.randn(9, n_tokens, 96, generator=draw).to(dtype)
    read, removed = torch.randn(2, 9, rank, 96, generator=draw).to(dtype) / 96**0.5
    shares = torch.einsum("bpd,brd->bpr", value.double(), read.double()).to(dtype).double()
    wanted = torch.einsum("bpr,brd->bpd", shares, removed.double())
    found = removed_part(value, read, removed)
    assert found.dtype == dtype
    assert found.shape == value.shape
    roundings = 8 if dtype == torch.float32 else 1  # sums are in float32, too
    atol = roundings * torch.finfo(dtype).eps * float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, atol=atol, rtol=0)
