"""Seeds: those of other words differ, and what torch makes of them."""

import torch

from pipeline.runtime.seeds import derive, generator


def test_seeds_have_63_bits_and_tell_numbers_from_words():
    seeds = {derive(7, "teacher", step) for step in range(1000)} | {
        derive(7, "teacher", "1"),
        derive("7", "teacher", 1),
    }
    assert len(seeds) == 1002 and 2**62 < max(seeds) < 2**63


def test_torch_takes_the_low_32_bits():
    """If this fails, torch draws other numbers from the same seeds, and no result can be made again."""
    low = torch.Generator().manual_seed(derive(7, "teacher", 1) % 2**32)
    assert torch.equal(torch.randn(9, generator=generator(7, "teacher", 1)), torch.randn(9, generator=low))
