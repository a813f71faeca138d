"""What a sampler of the evaluation makes of its start: T z, for its images and for its paths."""

import torch

from pipeline.evaluation.samplers import sampled
from pipeline.flow_matching.paths import LINEAR
from pipeline.recipe.sections import Sweep


def test_images_and_paths_start_from_the_noise_times_the_temperature():
    """v = x: one step from t = 1 to 0 gives 0, two give T z / 4."""
    z = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    start = lambda rows: z[rows]  # noqa: E731
    rows, labels = torch.tensor([1, 3]), torch.zeros(2, dtype=torch.int64)
    how = Sweep(nfe=(2,), temperature=1.5)
    make, walk = sampled(lambda x, t, labels: x, LINEAR, how, 2, start, None, torch.device("cpu"))
    torch.testing.assert_close(make(rows, labels)[0], 1.5 * z[rows] / 4)
    for given in (None, z[rows]):
        states = walk(rows, labels, given)[1]
        torch.testing.assert_close(states[0], 1.5 * z[rows])
        torch.testing.assert_close(states[-1], 1.5 * z[rows] / 4)
