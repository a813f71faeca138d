import math

import numpy as np
import pytest
import torch

from pipeline.metrics import psnr, ssim, ssim_window
from storage.errors import InputError


def images(count=2, channels=3, height=16, width=13, seed=0):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def ssim_by_loops(x, y, size):
    """One channel (H, W) in 0..255, from the definition: a window of weights at each place, weighted moments in it."""
    at = np.arange(size) - size // 2
    weights = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            p, q = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            variance_p, variance_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            values.append(
                (2 * mean_p * mean_q + c1)
                * (2 * covariance + c2)
                / ((mean_p**2 + mean_q**2 + c1) * (variance_p + variance_q + c2))
            )
    return np.mean(values)


def test_psnr_of_a_known_error():
    x = images()
    noisy = x.double() + torch.tensor([0.1, 0.02], dtype=torch.float64)[:, None, None, None]
    expected = [20 * math.log10(2 / 0.1), 20 * math.log10(2 / 0.02)]  # 26.02 and 40 dB
    assert psnr(noisy, x).tolist() == pytest.approx(expected, rel=1e-6)
    assert expected[1] == pytest.approx(40)
    assert psnr(x, x).tolist() == [math.inf, math.inf]


def test_psnr_is_that_of_8_bits():
    # Of grey levels with MSE 1 in 0..255: 10 log10(255^2) = 48.13 dB, the number every textbook has.
    levels = torch.randint(1, 255, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    wrong = levels + torch.where(levels % 2 == 0, 1.0, -1.0)
    assert psnr(levels / 127.5 - 1, wrong / 127.5 - 1).item() == pytest.approx(48.1308, abs=1e-3)


@pytest.mark.parametrize(("height", "width", "size"), [(16, 13, 11), (11, 11, 11), (8, 8, 7), (9, 30, 9), (1, 5, 1)])
def test_ssim_against_loops(height, width, size):
    x, y = images(height=height, width=width), images(height=height, width=width, seed=1)
    y = 0.6 * x + 0.4 * y
    assert ssim_window(min(height, width)) == size
    a, b = ((side.double().numpy() + 1) * 127.5 for side in (x, y))
    expected = [np.mean([ssim_by_loops(a[i, c], b[i, c], size) for c in range(3)]) for i in range(2)]
    assert ssim(x, y).tolist() == pytest.approx(expected, rel=1e-9)


def test_ssim_of_equal_and_of_constant_images():
    x = images()
    assert ssim(x, x).tolist() == pytest.approx([1, 1], rel=1e-12)
    assert ssim(x, images(seed=1)).max() < 0.3
    assert ssim(x, -x).max() < 0  # the structure turned round
    # Constant images differ in luminance alone: (2 a b + C1) / (a^2 + b^2 + C1), of intensities from 0 on.
    a, b, c1 = 0.75, 0.25, 0.01**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    found = ssim(torch.full((1, 1, 12, 12), 2 * a - 1), torch.full((1, 1, 12, 12), 2 * b - 1))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_both_are_symmetric_and_see_one_image_at_a_time():
    x, y = images(), images(seed=1)
    for measure in (psnr, ssim):
        torch.testing.assert_close(measure(x, y), measure(y, x), rtol=1e-12, atol=0)
        torch.testing.assert_close(measure(x, y)[1:], measure(x[1:], y[1:]), rtol=1e-12, atol=0)
        assert measure(x, y).shape == (2,) and measure(x, y).dtype == torch.float64


def test_bad_input():
    for measure in (psnr, ssim):
        with pytest.raises(InputError, match="got"):
            measure(images(), images(channels=1))
        with pytest.raises(InputError, match="got"):
            measure(images()[0], images()[0])
