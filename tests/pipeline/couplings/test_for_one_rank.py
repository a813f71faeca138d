"""A coupling that gives a rank its part of a batch can give the whole batch, as the only rank would get it."""

import numpy as np
import pytest
import torch

from models.tarflow import TarFlow, TarFlowConfig
from pipeline.couplings import Banked, Entropic, Independent, MinibatchOT, Mixed, Online, Softened, Standard
from pipeline.data.examples import Examples
from pipeline.training.mixture import Mixture
from pipeline.training.truncated import Truncated

SHAPE, ROWS, DRAWS = (1, 4, 4), 8, 2
Z = torch.randn(DRAWS, ROWS, *SHAPE, generator=torch.Generator().manual_seed(0))
X = torch.rand(ROWS, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
EXAMPLES = Examples(np.zeros((ROWS, *SHAPE), dtype=np.uint8), None)


def flow():
    torch.manual_seed(0)
    return TarFlow(TarFlowConfig(channels=1, size=4, patch=2, width=8, blocks=1, layers=1, head_dim=4)).eval()


MADE = {
    "bank": lambda rank, world: Banked(Z, rank, world),
    "teacher": lambda rank, world: Online(flow(), 0.1, Standard(1.0), rank, world),
    "mixed": lambda rank, world: Mixed(Banked(Z, rank, world), 0.5),
    "softened": lambda rank, world: Softened(Mixed(Banked(Z, rank, world), 0.5), 0.3),
    "truncated": lambda rank, world: Truncated(EXAMPLES, Banked(Z, rank, world), np.arange(3, 3 + ROWS)),
    "mixture": lambda rank, world: Mixture((EXAMPLES, Banked(Z)), (EXAMPLES, Banked(Z)), 0.5, rank, world),
    "independent": lambda rank, world: Independent(),
    "ot": lambda rank, world: MinibatchOT(),
    "entropic": lambda rank, world: Entropic(0.3),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_rank_can_have_the_noise_of_the_whole_batch(make):
    def noise(coupling):
        return coupling.noise_for(X, None, torch.arange(ROWS), torch.Generator().manual_seed(2))

    part, whole = make(1, 2), noise(make(0, 1))
    assert torch.equal(noise(part.for_one_rank()), whole)
    assert torch.equal(noise(part)[ROWS // 2 :], whole[ROWS // 2 :])  # and it kept its part
