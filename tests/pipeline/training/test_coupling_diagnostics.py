"""What is measured of a student's couples after training: against closed forms, and of the right couples."""

import copy

import numpy as np
import pytest
import torch

from pipeline.couplings import Banked, Independent, Loom, MinibatchOT, Mixed, Online, SeededNoises, Standard
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR, VarianceExploding, VariancePreserving
from pipeline.flow_matching.times import Uniform
from pipeline.training import coupling_diagnostics
from pipeline.training.coupling_diagnostics import NEIGHBOURS, TIMES, _variance, diagnose, straight_time
from pipeline.training.flow_batches import FlowBatches, blocks_ahead
from pipeline.training.truncated import Truncated
from tests.pipeline.stages.test_coupling import ALONE
from tests.pipeline.stages.test_stages import run
from tests.shared import figures  # noqa: F401 - a fixture

CPU = torch.device("cpu")
SHAPE = (1, 2, 4)


def examples(count=2000, classes=None):
    """Standard normal data, so that everything is known of them."""
    images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0)).numpy()
    return Examples(images, None if classes is None else np.arange(count) % classes, None)


def stream(coupling, data=None, path=LINEAR, label_drop=0.0, batch=96):
    return FlowBatches(data or examples(), coupling, Uniform(), path, label_drop, 7, batch)


def loom(count, batch=96):
    return Loom(SeededNoises(3, count, SHAPE), journal=blocks_ahead(batch, batch))


def trained(couples, steps):
    for step in range(steps):
        couples(step)
    return couples


# -- the figures ---------------------------------------------------------------------------------------------------


def test_independent_gaussians_on_the_straight_path():
    """LOOM-CFM, arXiv 2603.15279, Appendix A: Var(v | x_t) = 1 / (t^2 + (1 - t)^2)."""
    found = diagnose(stream(Independent()), 5, CPU)
    variance = found["velocity_variance"]
    expected = [1 / (t**2 + (1 - t) ** 2) for t in TIMES]
    assert variance.values == pytest.approx(expected, rel=0.08)
    assert variance.mean == pytest.approx(np.pi / 2, rel=0.05)  # the integral of that over t
    assert (variance.times, variance.pairs, variance.within_classes) == (TIMES, 2000, False)
    noise = found["noise_gaussianity"]
    assert noise["n"] == 2000 and noise["sliced_w2"] == pytest.approx(noise["floor"], rel=0.3)


@pytest.mark.parametrize("path", [VariancePreserving(), VarianceExploding(0.1, 5.0)])
def test_independent_gaussians_on_other_paths(path):
    """v and x_t are jointly Gaussian: Var(v | x_t) = Var v - Cov(v, x_t)^2 / Var x_t."""
    at = path.coefficients(path.times(torch.tensor(TIMES, dtype=torch.float64)))
    var_v, var_x = at.a_slope**2 + at.s_slope**2, at.a**2 + at.s**2
    expected = var_v - (at.a * at.a_slope + at.s * at.s_slope) ** 2 / var_x
    found = diagnose(stream(Independent(), path=path), 0, CPU)["velocity_variance"]
    assert found.values == pytest.approx(expected.tolist(), rel=0.08)


@pytest.mark.parametrize("path", [LINEAR, VariancePreserving(), VarianceExploding(0.1, 5.0)])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_velocities_of_one_point_differ_as_on_the_straight_path(path, t):
    """Two couples through one x_t: their velocities' distances have the ratio that `straight_time` tells."""
    moment, scale = straight_time(path, t)
    at = path.coefficients(torch.tensor(t, dtype=torch.float64))
    x, other = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    z = torch.tensor([0.7], dtype=torch.float64)
    its = z + at.a / at.s * (x - other)  # so that both pass through the same x_t
    ours = path.target_velocity(x, z, t) - path.target_velocity(other, its, t)
    straight = LINEAR.target_velocity(x, z, moment) - LINEAR.target_velocity(other, its, moment)
    assert (LINEAR.interpolate(x, z, moment) - LINEAR.interpolate(other, its, moment)).abs().item() < 1e-9
    assert (ours**2).item() == pytest.approx(scale * (straight**2).item(), rel=1e-9)


def test_better_couplings_leave_less_and_the_class_is_known_where_there_are_pairs_enough():
    data = examples(1200, classes=3)
    found = {
        coupling: diagnose(stream(maker(), data), 0, CPU)["velocity_variance"]
        for coupling, maker in {"independent": Independent, "ot": MinibatchOT}.items()
    }
    assert all(variance.within_classes for variance in found.values())
    assert found["ot"].mean < 0.8 * found["independent"].mean
    few = diagnose(stream(Independent(), examples(60, classes=10), batch=20), 0, CPU)["velocity_variance"]
    assert few is not None and not few.within_classes  # six pairs of a class in eight dimensions


def test_dropped_labels_are_no_class():
    data = examples(600, classes=3)
    dropped = diagnose(stream(Independent(), data, label_drop=0.5), 0, CPU)
    assert dropped == diagnose(stream(Independent(), data), 0, CPU)


def test_fewer_pairs_than_dimensions_are_not_measured():
    found = diagnose(stream(Independent(), examples(8), batch=4), 0, CPU)
    assert found["velocity_variance"] is None and found["noise_gaussianity"]["n"] == 8
    assert diagnose(stream(Independent(), examples(1), batch=1), 0, CPU) == {}


def test_pairs_without_enough_neighbours_are_not_measured_in_any_dimension():
    x, z = torch.randn(2, NEIGHBOURS, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert _variance(x, z, None, LINEAR) is None
    x, z = torch.randn(2, NEIGHBOURS + 1, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert _variance(x, z, None, LINEAR) is not None


# -- of which couples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 3, 5, 6, 11])  # 500 images in steps of 96
@pytest.mark.parametrize("pairs", [500, 120, 9000])
def test_each_image_once(step, pairs, monkeypatch):
    monkeypatch.setattr(coupling_diagnostics, "MOST_PAIRS", pairs)
    data = examples(500)
    x, z, labels, told_more = coupling_diagnostics._each_once(stream(Independent(), data), step)
    assert len(x) == len(z) == len(x.flatten(1).unique(dim=0)) == min(pairs, 500)
    assert labels is None and not told_more


def test_of_several_draws_of_an_image_one_counts():
    """Another would tell the class of the first, whatever the noise."""
    data = examples(60, classes=3)
    z = np.random.default_rng(1).standard_normal((8, 60, *SHAPE)).astype(np.float32)
    pairs = Truncated(data, Banked(z), np.delete(np.arange(480), [5, 100]))
    x, z, labels, _ = coupling_diagnostics._each_once(stream(pairs, pairs), 2)
    assert len(x) == len(z) == len(labels) == len(x.flatten(1).unique(dim=0)) == 60
    numbers = [int((data.pixels(torch.arange(60)) == image).flatten(1).all(1).nonzero()) for image in x]
    assert labels.tolist() == [number % 3 for number in numbers]


def test_loom_is_measured_as_training_has_left_it():
    data = examples(480)
    late = diagnose(trained(stream(loom(480), data), 100), 100, CPU)["velocity_variance"]
    early = diagnose(stream(loom(480), data), 0, CPU)["velocity_variance"]
    assert late.mean < 0.8 * early.mean


def test_a_run_that_was_taken_up_again_measures_the_same():
    data = examples(500)
    whole = trained(stream(loom(500), data), 40)
    again = stream(loom(500), data)
    again.load_state(whole.state(40))
    assert diagnose(again, 40, CPU) == diagnose(whole, 40, CPU)


def test_what_training_uses_stays_as_it_is():
    couples = stream(Independent(), examples(200, classes=2), label_drop=0.5)
    before = copy.copy(couples.__dict__)
    diagnose(couples, 2, CPU)
    assert couples.__dict__ == before


class Flow(torch.nn.Linear):
    """Stands for a teacher: z = y."""

    def encode(self, y, labels):
        return y


def test_one_rank_of_several_asks_the_teacher_for_all_of_a_batch():
    online = Online(Flow(1, 1), 0.1, Standard(1.0), rank=1, world=2)
    for coupling in (online, Mixed(online, 0.0)):
        x, z, *_ = coupling_diagnostics._each_once(stream(coupling), 0)
        assert (z - x).abs().max() < 1  # noise of 0.1, and no row left at zero


def test_the_stage_reports_it(tmp_path):
    metrics = run(tmp_path, *ALONE, "student.coupling=ot", "student.training.images=128", until="student")[
        "student"
    ].metrics
    assert 0 < metrics["velocity_variance"]["mean"] < 2 and len(metrics["velocity_variance"]["values"]) == len(TIMES)
    assert metrics["noise_gaussianity"]["sliced_w2"] == pytest.approx(metrics["noise_gaussianity"]["floor"], abs=0.1)
