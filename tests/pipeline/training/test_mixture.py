"""Generated and forward pairs in an exact ratio, each in its own order, whatever the batch."""

import numpy as np
import pytest
import torch

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import Uniform
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.mixture import Mixture

SHAPE = (1, 2, 2)
GENERATED, FORWARD = 40, 12


def kind(count: int, draws: int, value: float, dtype=np.float32) -> tuple[Examples, Banked]:
    """Image i is all value + i, its noise in draw d all value + i + (d + 1) / 16."""
    rows = np.arange(count, dtype=dtype)[:, None, None, None]
    images = value + rows + np.zeros((count, *SHAPE), dtype)
    noises = np.stack([images + (draw + 1) / 16 for draw in range(draws)]).astype(dtype)
    return Examples(images, np.arange(count) % 3), Banked(noises)


def mixture(share: float, dtype=np.float32) -> Mixture:
    return Mixture(kind(GENERATED, 1, 0.0, dtype), kind(FORWARD, 4, 100.0), share)


def couples(share: float, batch: int, images: int = 240):
    """x, z and labels of so many images in a row."""
    mixed = mixture(share)
    stream = FlowBatches(mixed, mixed, Uniform(), LINEAR, 0.0, 7, batch)
    made = [stream(step) for step in range(images // batch)]
    return (torch.cat([getattr(part, name) for part in made]) for name in ("x", "z", "labels"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1 / 3, 0.9, 1.0])
@pytest.mark.parametrize("batch", [8, 24])
def test_the_ratio_is_exact_at_every_moment(share, batch):
    x, _, _ = couples(share, batch)
    forward = (x.flatten(1)[:, 0] >= 100).cumsum(0).double()
    images = torch.arange(1, len(x) + 1)
    assert (forward - share * images).abs().max() < 1
    assert forward[-1] == round(share * len(x))


def test_pairs_belong_together_whatever_they_are():
    x, z, labels = couples(0.4, 24)
    image = x.flatten(1)[:, 0]
    assert torch.equal(labels, (image % 100).long() % 3)
    apart = (z - x).flatten(1)
    assert torch.equal(apart[image < 100], torch.full_like(apart[image < 100], 1 / 16))
    assert set(apart[image >= 100].flatten().tolist()) == {1 / 16, 2 / 16, 3 / 16, 4 / 16}  # any draw of the bank


def test_each_kind_comes_once_in_each_of_its_epochs():
    x, _, _ = couples(0.25, 8)
    image = x.flatten(1)[:, 0]
    for made, count in ((image[image < 100], GENERATED), (image[image >= 100] - 100, FORWARD)):
        assert len(made) >= 3 * count
        epochs = [made[first : first + count] for first in range(0, len(made) - count + 1, count)]
        assert all(epoch.sort().values.tolist() == list(range(count)) for epoch in epochs)
        assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_images_do_not_depend_on_the_batch(share):
    one, other = (next(couples(share, batch)) for batch in (8, 48))
    assert torch.equal(one, other)


def test_half_precision_becomes_float32():
    mixed = mixture(0.25, np.float16)
    rows = mixed.rows(0, 0, 16)
    x = mixed.pixels(rows)
    assert x.dtype == mixed.noise_for(x, None, rows, torch.Generator()).dtype == torch.float32


def test_without_classes():
    images, bank = kind(GENERATED, 1, 0.0)
    assert Mixture((Examples(images.images, None), bank)).classes(torch.arange(4)) is None
