import json

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.metrics.gaussianity import diagnose, per_dimension


def normal(n=800, seed=0, shape=(1, 6, 6)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def images(n=800):
    return (normal(n, seed=9) / 3).clamp(-1, 1)


def test_per_dimension_against_scipy():
    z = normal().pow(3)
    found = per_dimension(z)
    np.testing.assert_allclose(found["mean"], z.double().mean(0))
    np.testing.assert_allclose(found["std"], z.double().std(0, correction=0))
    np.testing.assert_allclose(found["kurtosis"], stats.kurtosis(z.double().numpy(), axis=0))
    assert per_dimension(torch.ones(5, 2))["kurtosis"].tolist() == [0, 0]


def test_true_noise_is_at_the_floor():
    found = diagnose(normal(), normal(200, seed=1), images())
    for part in (found["train"], found["held_out"]):
        assert part["sliced_w2"] == pytest.approx(part["floor"], rel=0.15)
    assert found["held_out"]["floor"] > found["train"]["floor"]  # fewer samples


def test_transport_cost():
    x = images()
    found = diagnose(x + 2, None, x)["transport_cost"]
    assert found["per_dimension"] == pytest.approx(4, rel=1e-5) and found["total"] == pytest.approx(4 * 36, rel=1e-5)
    independent = diagnose(normal(), None, x)["transport_cost"]
    assert independent["per_dimension"] == pytest.approx(independent["independent"], rel=0.02)


def test_figures_are_plain_data_and_repeat():
    found = diagnose(normal(), normal(200, 1), images())
    assert json.loads(json.dumps(found, allow_nan=False)) == found == diagnose(normal(), normal(200, 1), images())
