import pytest

from pipeline.flow_matching.paths import (
    PATHS,
    Linear,
    OptimalTransport,
    VarianceExploding,
    VariancePreserving,
    gaussian_path,
)
from storage.errors import InputError


def test_from_plain_data():
    assert gaussian_path({"kind": "linear"}) == Linear()
    assert gaussian_path({"kind": "ot", "sigma_min": 1e-4}) == OptimalTransport(1e-4)
    assert gaussian_path({"kind": "vp"}) == VariancePreserving(0.1, 20.0)
    assert gaussian_path({"kind": "vp", "beta_max": 10}) == VariancePreserving(0.1, 10)
    assert gaussian_path({"kind": "ve", "sigma_min": 0.01, "sigma_max": 50}) == VarianceExploding(0.01, 50)
    assert PATHS == ("linear", "ot", "vp", "ve")


@pytest.mark.parametrize(
    "spec, told",
    [
        ({}, r"Choose among linear, ot, vp, ve"),
        ({"kind": "cosine"}, r"Choose among"),
        ({"kind": "linear", "sigma_min": 0.1}, r"settings none, got \['sigma_min'\]"),
        ({"kind": "vp", "beta": 1}, r"settings beta_min, beta_max, got \['beta'\]"),
        ({"kind": "ve", "sigma_min": 0.01}, r"Give sigma_max too"),
        ({"kind": "ot"}, r"Give sigma_min too"),
        ({"kind": "ve", "sigma_min": 5, "sigma_max": 1}, r"0 < sigma_min < sigma_max"),
        ({"kind": "ot", "sigma_min": None}, r"0 < sigma_min < 1"),
    ],
)
def test_bad_plain_data(spec, told):
    with pytest.raises(InputError, match=told):
        gaussian_path(spec)
