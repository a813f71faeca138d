import numpy as np
import pytest
import torch

from pipeline.reporting.pictures import bank_picture, png


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_below_its_histogram_and_images_below_that(channels):
    z = torch.randn(200, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    alone, both = bank_picture(z), bank_picture(z, z.tanh())
    assert alone.mode == "RGB" and both.height > alone.height > 300
    assert png(both) == png(bank_picture(z, z.tanh()))
    assert np.array_equal(np.asarray(both)[:300, : alone.width], np.asarray(alone)[:300])


def test_latents_are_no_pictures():
    z = torch.randn(50, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert bank_picture(z, z).height < bank_picture(z[:, :3], z[:, :3]).height
