import math

import pytest
import torch
from scipy.integrate import quad

from pipeline.flow_matching.paths import LINEAR, OptimalTransport, VarianceExploding, VariancePreserving
from tests.pipeline.flow_matching.paths.every import PATHS, inner, pair

every_path = pytest.mark.parametrize("path", PATHS, ids=repr)


def slope(function, t):
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))


@every_path
def test_slopes_are_derivatives(path):
    t = torch.cat([torch.tensor([path.t_end], dtype=torch.float64), inner(path)])
    at = path.coefficients(t)
    for k, name in enumerate("as"):
        value, derivative = slope(lambda t, k=k: path.coefficients(t)[k], t)
        assert torch.equal(getattr(at, name), value)
        torch.testing.assert_close(getattr(at, f"{name}_slope"), derivative, rtol=1e-9, atol=1e-12)


@every_path
def test_target_is_the_derivative_of_the_path(path):
    x, z, t = pair()
    _, derivative = slope(lambda t: path.interpolate(x, z, t), t)
    torch.testing.assert_close(path.target_velocity(x, z, t), derivative)


def reversed_time(field):
    """The paper's field at its time 1 - t, as a field in our time."""
    return lambda y, x, t: -field(y, x, 1 - t)


@pytest.mark.parametrize(
    "path, theirs",
    [
        (VarianceExploding(0.01, 20.0), lambda y, x, t: -math.log(20 / 0.01) * (y - x)),  # eq. 17
        (
            VariancePreserving(),
            lambda y, x, t: (
                -(0.1 + 19.9 * (1 - t))
                / 2  # eq. 19, with T(1 - t) in both exponents
                * (math.exp(-vp_area(1 - t)) * y - math.exp(-vp_area(1 - t) / 2) * x)
                / (1 - math.exp(-vp_area(1 - t)))
            ),
        ),
        (OptimalTransport(0.01), lambda y, x, t: (x - 0.99 * y) / (1 - 0.99 * t)),  # eq. 21
    ],
    ids=["ve", "vp", "ot"],
)
def test_velocity_as_the_paper_has_it(path, theirs):
    """The paper's field is given x_t, of which x and z make one."""
    x, z, _ = pair()
    for t in (0.01, 0.3, 0.9, 1.0):
        field = reversed_time(theirs)(path.interpolate(x, z, t), x, t)
        torch.testing.assert_close(path.target_velocity(x, z, t), field)


def vp_area(t):
    return 0.1 * t + t * t / 2 * 19.9


def test_data_end():
    for path, left in [
        (LINEAR, 0),
        (OptimalTransport(0.01), 0.01),
        (VarianceExploding(0.02, 20.0), 0.02),
        (VariancePreserving(), 1e-3),
    ]:
        a, s, *slopes = path.coefficients(torch.tensor(path.t_end, dtype=torch.float64))
        assert a == pytest.approx(1, abs=1e-6) and s == pytest.approx(left, rel=1e-3)
        assert all(torch.isfinite(slope) for slope in slopes)


def test_noise_end():
    for path, data, noise in [
        (LINEAR, 0, 1),
        (OptimalTransport(0.01), 0, 1),
        (VarianceExploding(0.02, 20.0), 1, 20),
        (VariancePreserving(), math.exp(-5.025), 1),
    ]:
        a, s, _, _ = path.coefficients(torch.ones((), dtype=torch.float64))
        assert a == pytest.approx(data, rel=1e-9) and s == pytest.approx(noise, rel=1e-4)
        z = pair()[1]
        torch.testing.assert_close(path.start(z), s * z)
    assert LINEAR.start(z) is z and torch.equal(OptimalTransport(1e-5).start(z), z)


@every_path
def test_noise_grows_and_data_do_not(path):
    a, s, _, _ = path.coefficients(inner(path))
    assert (s.diff() > 0).all() and (a.diff() <= 0).all()


def test_variance_is_preserved_at_the_rate_of_the_schedule():
    path, t = VariancePreserving(0.3, 9.0), inner(VariancePreserving())
    a, s, _, _ = path.coefficients(t)
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(t))
    areas = [quad(lambda r: 0.3 + r * 8.7, 0, float(end))[0] for end in t]
    torch.testing.assert_close(-2 * a.log(), torch.tensor(areas, dtype=torch.float64))


def test_exploding_noise_is_geometric():
    s = VarianceExploding(0.01, 100.0).coefficients(torch.linspace(0, 1, 5, dtype=torch.float64)).s
    torch.testing.assert_close(s, torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0], dtype=torch.float64))


def test_optimal_transport_tends_to_the_line():
    x, z, t = pair()
    torch.testing.assert_close(OptimalTransport(1e-9).interpolate(x, z, t), LINEAR.interpolate(x, z, t))
    assert not torch.allclose(OptimalTransport(0.1).interpolate(x, z, t), LINEAR.interpolate(x, z, t))


@every_path
def test_each_row_has_its_own_time(path):
    x, z, t = pair()
    for method in (path.interpolate, path.target_velocity):
        together = method(x, z, t)
        for i in range(5):
            torch.testing.assert_close(together[i], method(x[i], z[i], float(t[i])))


@every_path
def test_single_precision(path):
    x, z, t = pair(torch.float32)
    t[0] = max(path.t_end, 1e-5)
    exact = path.coefficients(t.double())
    for value, truth in zip(path.coefficients(t), exact, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), truth, rtol=1e-5, atol=1e-7)
    assert path.interpolate(x, z, 0.3).dtype == path.target_velocity(x, z, 0.3).dtype == torch.float32


@pytest.mark.parametrize("t", [0.0, 0.37, 1.0, pair(torch.float32)[2]], ids=["0", "0.37", "1", "rows"])
def test_linear_is_the_plain_formula_to_the_bit(t):
    x, z, _ = pair(torch.float32)
    beside = t.reshape(-1, 1, 1, 1) if isinstance(t, torch.Tensor) else t
    assert torch.equal(LINEAR.interpolate(x, z, t), (1 - beside) * x + beside * z)
    assert torch.equal(LINEAR.target_velocity(x, z, t), z - x)


def test_linear_ends_are_data_and_noise():
    x, z, _ = pair(torch.float32)
    assert torch.equal(LINEAR.interpolate(x, z, 0.0), x)
    assert torch.equal(LINEAR.interpolate(x, z, torch.ones(5)), z)


def test_times_end_where_the_velocity_does():
    t = torch.tensor([0.0, 1e-30, 0.5, 1.0])
    assert LINEAR.times(t) is t
    path = VariancePreserving()
    for dtype in (torch.float32, torch.float64):
        mapped = path.times(t.to(dtype))
        assert mapped.dtype == dtype and mapped[-1] == 1 and (mapped.diff() >= 0).all()
        assert mapped[:2].tolist() == pytest.approx([path.t_end] * 2, rel=1e-6)
        assert mapped[2] == pytest.approx(0.500005)
