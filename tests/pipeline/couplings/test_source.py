"""Images in the place of noise are rows of the source, exactly, and transport exchanges those very rows."""

import numpy as np
import pytest
import torch

from pipeline.couplings import Independent, MinibatchOT, Source
from pipeline.data.examples import Examples
from storage.errors import InputError

SHAPE = (1, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def source(count=50, flips=False) -> Examples:
    rows = np.random.default_rng(1).integers(0, 17, (count, *SHAPE), dtype=np.uint8)
    return Examples(rows, np.arange(count) % 3, 17, flips)


def images(count=40):
    return torch.rand(count, *SHAPE, generator=generator(3)) * 2 - 1, torch.arange(count) % 4, torch.arange(count)


def places(z, examples) -> list[int]:
    """Which row of the source each z is; fails unless it is one, to the last bit."""
    rows = examples.pixels(torch.arange(len(examples)))
    same = (z[:, None] == rows[None]).flatten(2).all(2)
    assert same.any(1).all()
    return same.long().argmax(1).tolist()


@pytest.mark.parametrize("flips", [False, True])
def test_every_z_is_a_row_of_the_source(flips):
    examples = source(flips=flips)
    x, labels, rows = images()
    z = Independent(Source(examples)).noise_for(x, labels, rows, generator())
    assert len(set(places(z, examples))) > 20
    assert torch.equal(z, Independent(Source(examples)).noise_for(x, labels, rows, generator()))
    assert not torch.equal(z, Independent(Source(examples)).noise_for(x, labels, rows, generator(1)))


def test_all_rows_are_equally_likely():
    examples = source(20)
    x = torch.zeros(8000, *SHAPE)
    counts = np.bincount(places(Source(examples)(x, generator()), examples), minlength=20)
    chi2 = ((counts - 400) ** 2 / 400).sum()
    assert chi2 < 43.8  # 0.1 % of chi^2 with 19 degrees of freedom


@pytest.mark.parametrize("with_labels", [False, True])
def test_transport_exchanges_the_independent_draws_at_lower_cost(with_labels):
    examples = source(500)
    x, labels, rows = images()
    labels = labels if with_labels else None
    apart = Independent(Source(examples)).noise_for(x, labels, rows, generator())
    near = MinibatchOT(Source(examples)).noise_for(x, labels, rows, generator())
    before, after = places(apart, examples), places(near, examples)
    assert sorted(before) == sorted(after)
    assert (x - near).square().sum() < 0.95 * (x - apart).square().sum()
    if with_labels:  # within the classes of x, whatever the classes of the source
        for label in range(4):
            own = (labels == label).numpy()
            assert sorted(np.array(before)[own]) == sorted(np.array(after)[own])


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError):
        Source(source())(torch.zeros(2, 3, 4, 4), generator())
