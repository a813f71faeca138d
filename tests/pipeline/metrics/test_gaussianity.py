import json

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.metrics.gaussianity import diagnose, per_dimension, verdict


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


def test_true_noise_is_at_the_floor_and_passes():
    found = diagnose(normal(), normal(200, seed=1), images())
    for part in (found["train"], found["held_out"]):
        assert part["sliced_w2"] == pytest.approx(part["floor"], rel=0.15)
    assert found["held_out"]["floor"] > found["train"]["floor"]  # fewer samples
    assert verdict(found) == []
    assert verdict(diagnose(normal(), None, images())) == []


def test_transport_cost():
    x = images()
    found = diagnose(x + 2, None, x)["transport_cost"]
    assert found["per_dimension"] == pytest.approx(4, rel=1e-5) and found["total"] == pytest.approx(4 * 36, rel=1e-5)
    independent = diagnose(normal(), None, x)["transport_cost"]
    assert independent["per_dimension"] == pytest.approx(independent["independent"], rel=0.02)


def test_figures_are_plain_data_and_repeat():
    found = diagnose(normal(), normal(200, 1), images())
    assert json.loads(json.dumps(found, allow_nan=False)) == found == diagnose(normal(), normal(200, 1), images())


def uneven(n, seed):
    # sigma_f makes the overall deviation 1, whatever the dimensions are.
    z = normal(n, seed) * torch.linspace(0.2, 1.8, 36).reshape(1, 6, 6)
    return z / z.std()


FAULTS = {
    "sigma_f": lambda n, seed: normal(n, seed) * 1.3,
    "too weak; train": uneven,
    "outliers": lambda n, seed: normal(n, seed) * torch.where(normal(n, seed + 50, (1, 1, 1)) > 1.3, 2.5, 0.6),
    "worth distilling": lambda n, seed: normal(n, seed, (1, 1, 1)) * 0.8 + normal(n, seed) * 0.6,
}


@pytest.mark.parametrize("said", FAULTS)
def test_faults_are_named(said):
    z = FAULTS[said](800, 3)
    assert any(said in warning for warning in verdict(diagnose(z, None, images())))


def test_overfitted_teacher():
    found = diagnose(normal(), normal(200, 1) * 1.5, images())
    assert [warning for warning in verdict(found) if "overfitted" in warning] == verdict(found) != []
