"""Attention in forward mode: the bits of torch's plain form, and the derivative of finite differences."""

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.attention import attend


def test_in_forward_mode_it_is_the_plain_form_and_its_derivative():
    draws = torch.Generator().manual_seed(0)
    values, tangents = (torch.randn(2, 3, 4, 2, 9, 8, generator=draws, dtype=torch.float64)[0] for _ in range(2))
    q, k, v = values
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(attend(*map(forward_ad.make_dual, values, tangents)))
    with sdpa_kernel(SDPBackend.MATH):
        plain = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(found.primal, plain)
    step = 1e-6
    ahead, behind = (attend(*(values + sign * step * tangents)) for sign in (1, -1))
    torch.testing.assert_close(found.tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(attend(q, k, v), plain, rtol=1e-12, atol=1e-12)
