"""Semidiscrete optimal transport: the potentials are optimal, every image has its share, and a stop leaves no trace."""

import math

import ot
import pytest
import torch
from safetensors.torch import load, save

from pipeline.couplings import Ascent, MinibatchOT, Potentials, Semidiscrete, _cells, class_order, fit_potentials
from pipeline.couplings._cells import Cells
from pipeline.couplings._potentials import _CHECK, _Problem
from storage.errors import InputError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n, dimension, seed=0):
    return torch.randn(n, dimension, generator=generator(seed))


def images(n=120, seed=3):
    """8x8 images in two heaps, of differing contrast."""
    x = 0.4 * torch.randn(n, 1, 8, 8, generator=generator(seed)) * torch.linspace(0.3, 2, n).view(-1, 1, 1, 1)
    return (x + torch.where(torch.arange(n) % 3 == 0, 0.5, -0.3).view(-1, 1, 1, 1)).clamp(-1, 1)


def chi_square(cells, values, count=100_000, seed=11):
    """The unbiased estimate, with torch's noise and the definition of a cell: nearest less the potential."""
    z, points = noise(count, cells.dimension, seed), cells.points(0)
    fallen = torch.cat([(torch.cdist(part, points).square() - values).argmin(1) for part in z.split(10_000)])
    counts = fallen.bincount(minlength=len(points)).double()
    return float((counts * (counts - 1)).sum()) * len(points) / (count * (count - 1)) - 1


def test_on_a_line_cells_are_quantile_intervals_of_equal_mass():
    points = torch.tensor([[-2.0], [-0.5], [0.7], [0.9], [1.0], [3.0]])
    g = fit_potentials(points, seed=1, passes=1500, tolerance=3e-4).values
    x = points[:, 0].double()
    # |z - x_i|^2 - g_i of two neighbours is the same at
    boundaries = (x[1:] + x[:-1]) / 2 - (g[1:] - g[:-1]) / (2 * (x[1:] - x[:-1]))
    quantiles = torch.special.ndtri(torch.arange(1, 6, dtype=torch.float64) / 6)
    torch.testing.assert_close(boundaries, quantiles, atol=0.03, rtol=0)
    rows, z = Semidiscrete(points[:, :, None, None], None, fit(g)).draw(2000, generator())
    assert (rows[z.flatten().argsort()].diff() >= 0).all() and len(rows.unique()) == 6  # and the map is monotone


def fit(values, classes=(0,)):
    """Potentials as if they had been fitted."""
    count = len(classes)
    return Potentials(values.double(), torch.tensor(classes), torch.zeros(count), torch.zeros(count, dtype=torch.long))


def test_two_points_by_symmetry_and_by_hand():
    """The boundary of two points goes through the mean of the noise, so g_1 - g_2 = |x_1|^2 - |x_2|^2."""
    points = torch.tensor([[2.0, 0.5], [0.1, -1.0]])
    g = fit_potentials(points, seed=0, passes=2000, tolerance=1e-4).values
    squares = points.square().sum(1)
    assert float(g[0] - g[1]) == pytest.approx(float(squares[0] - squares[1]), abs=0.05)


def test_optimal_against_the_linear_program():
    """On any sample of noise the dual value is at most the cost of the linear program (weak duality), and equal at the
    optimal potentials but for the sample's own cells."""
    points, z = torch.randn(15, 3, generator=generator(5)) * 1.5 + 0.4, noise(4000, 3, 6)
    potentials = fit_potentials(points, seed=2, passes=2000, tolerance=1e-3)
    cost = torch.cdist(z, points).square().double()
    program = ot.emd2([], [], cost.numpy())
    dual = float((cost - potentials.values).min(1).values.mean() + potentials.values.mean())
    assert 0.995 * program < dual <= program * (1 + 1e-9)
    rows = (cost - potentials.values).argmin(1)
    assert float(cost[range(4000), rows].mean()) == pytest.approx(program, rel=0.02)
    untrained = float((cost - points.square().sum(1)).min(1).values.mean() + points.square().sum(1).mean())
    assert untrained < 0.95 * program  # so the bound is not met by just any potentials


@pytest.mark.slow
def test_divergence_falls_and_is_what_it_says():
    points = images().flatten(1)
    cells = Cells(points, None)
    short, long = (fit_potentials(points, seed=0, batch=32, passes=passes, tolerance=0.01) for passes in (1, 60))
    before, after = (chi_square(cells, potentials.values) for potentials in (short, long))
    assert after < 0.03 < 0.1 < before
    assert float(short.divergence) == pytest.approx(before, abs=0.02)
    assert float(long.divergence) == pytest.approx(after, abs=0.01) and short.steps.tolist() == [math.ceil(120 / 32)]


def test_estimate_of_the_divergence_is_unbiased():
    """Two points on a line: the masses are those on both sides of a boundary that can be put anywhere."""
    problem = _Problem(Cells(torch.tensor([[-1.0], [1.0]]), None), 0, seed=4, batch=7, tolerance=0.2)
    boundary = 0.3
    g = torch.tensor([4 * boundary, 0.0], dtype=torch.float64)
    mass = float(torch.special.ndtr(torch.tensor(boundary, dtype=torch.float64)))
    truth = 2 * ((mass - 0.5) ** 2 + (0.5 - mass) ** 2)
    estimates = torch.tensor([problem.check(g, step) for step in range(1, 1500, problem.period)])
    error = estimates.std() / len(estimates) ** 0.5
    assert problem.checked == 50 and error < 0.01 and abs(estimates.mean() - truth) < 4 * error
    assert float(problem.masses(g, _CHECK, 0, 20).sum()) == 20


def test_the_answer_is_an_average_of_the_iterates_that_forgets_the_first_ones():
    """Of step k with the weight k (k + 1) (k + 2), so about k^3."""
    iterates = []
    potentials = fit_potentials(
        images().flatten(1),
        seed=0,
        batch=16,
        passes=3,
        tolerance=0.1,
        on_step=lambda ascent: iterates.append(ascent.iterate.clone()),
    )
    weights = torch.tensor([k * (k + 1.0) * (k + 2) for k in range(1, len(iterates) + 1)], dtype=torch.float64)
    average = (weights[:, None] * torch.stack(iterates)).sum(0) / weights.sum()
    assert len(iterates) == 23 and (average - iterates[-1]).abs().max() > 0.1
    torch.testing.assert_close(potentials.values, average - average.mean())


def test_stops_when_the_tolerance_is_reached():
    points = images().flatten(1)
    loose, tight = (fit_potentials(points, seed=0, batch=64, passes=1000, tolerance=t) for t in (0.1, 0.01))
    assert loose.divergence <= 0.15 and tight.divergence <= 0.015 and loose.steps < tight.steps < 1000 * 120 / 64


@pytest.mark.slow
def test_the_reported_divergence_is_measured_after_the_fit_and_better_than_by_a_check():
    """The check that ends a fit is the first low one; the report errs less and has no bias."""
    points, last = images(40).flatten(1), {}
    cells, errors, checks = Cells(points, None), [], []
    for seed in range(8):
        fit = fit_potentials(
            points, seed=seed, batch=8, passes=400, tolerance=0.1, on_step=lambda state: last.update(state.tensors())
        )
        truth = chi_square(cells, fit.values, 40_000, seed=seed)
        errors.append(float(fit.divergence) - truth)
        checks.append(float(last["divergence"]) - truth)
    spread, by_check = (torch.tensor(values).std().item() for values in (errors, checks))
    assert spread < 0.75 * by_check and abs(sum(errors) / 8) < 4 * spread / 8**0.5


def test_images_come_equally_often_and_noise_is_gaussian():
    x = images()
    coupling = Semidiscrete(x, None, fit_potentials(x, seed=0, batch=128, passes=400, tolerance=0.005))
    rows, z = coupling.draw(60_000, generator(8))
    counts = rows.bincount(minlength=120).double()
    assert z.shape == (60_000, 1, 8, 8) and z.dtype == torch.float32
    assert abs(counts / 500 - 1).max() < 0.35 and abs(counts / 500 - 1).mean() < 0.1
    torch.testing.assert_close(z.flatten(1).T.cov(), torch.eye(64), atol=0.05, rtol=0)


def test_cheaper_than_any_minibatch():
    x = images()
    coupling = Semidiscrete(x, None, fit_potentials(x, seed=0, batch=128, passes=200, tolerance=0.01))
    rows, z = coupling.draw(20_000, generator(8))
    cost = (z - x[rows]).square().mean()
    batches = [torch.randint(120, (64,), generator=generator(seed)) for seed in range(100)]
    costs = [
        (MinibatchOT().noise_for(x[b], None, b, generator(b.sum().item())) - x[b]).square().mean() for b in batches
    ]
    assert cost < torch.stack(costs).mean() - 0.005


def test_draws_the_best_match_of_each_noise_within_its_class():
    x, labels = images(), torch.arange(120) % 4 * 5  # classes 0, 5, 10, 15
    potentials = fit_potentials(x, labels, seed=0, batch=64, passes=30)
    coupling = Semidiscrete(x, labels, potentials)
    rows, z = coupling.draw(200, generator())
    score = torch.cdist(z.flatten(1), x.flatten(1)).square().double() - potentials.values  # (200, 120)
    score[labels[rows][:, None] != labels] = torch.inf
    assert torch.equal(rows, score.argmin(1)) and set(labels[rows].tolist()) == {0, 5, 10, 15}
    order = class_order(labels)
    fitted = fit_potentials(x[order], labels, seed=0, batch=64, passes=30, by_class=True)
    assert torch.equal(fitted.values, potentials.values)
    sorted_rows, sorted_z = Semidiscrete(x[order], labels, fitted, by_class=True).draw(200, generator())
    assert torch.equal(sorted_rows, rows) and torch.equal(sorted_z, z)
    again = coupling.draw(200, generator())
    assert torch.equal(again[0], rows) and torch.equal(again[1], z)


def test_classes_come_as_often_as_they_are_and_images_equally():
    x = images()
    labels = (torch.arange(120) < 30).long()
    coupling = Semidiscrete(x, labels, fit_potentials(x, labels, seed=0, batch=64, passes=400, tolerance=0.01))
    rows, z = coupling.draw(40_000, generator(1))
    assert abs(labels[rows].double().mean() - 0.25) < 0.01
    assert abs(rows.bincount(minlength=120) / (40_000 / 120) - 1).max() < 0.4
    for label in (0, 1):
        assert abs(z[labels[rows] == label].mean()) < 0.005  # no class keeps to a side of the noise


def test_a_class_does_not_depend_on_the_others():
    x, labels = images().flatten(1), torch.arange(120) % 3
    together = fit_potentials(x, labels, seed=7, batch=32, passes=5)
    for label in range(3):
        own = labels == label
        alone = fit_potentials(x[own], labels[own], seed=7, batch=32, passes=5)
        assert torch.equal(together.values[own], alone.values) and alone.classes.tolist() == [label]
        assert together.divergence[label] == alone.divergence
    assert together.values.abs().max() > 0.1


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [1, 6, 17, 30])
def test_a_stop_leaves_no_trace(at):
    x, labels = images().flatten(1), torch.arange(120) % 3
    settings = {"seed": 7, "batch": 32, "passes": 10, "tolerance": 0.3}
    seen, saved = [], {}
    whole = fit_potentials(x, labels, **settings, on_step=lambda state: seen.append(int(state.steps.sum())))
    assert seen == list(range(1, len(seen) + 1)) and len(seen) > 30

    def stop(state):
        if state.steps.sum() == at:
            saved.update(load(save(state.tensors())))
            raise Stopped

    with pytest.raises(Stopped):
        fit_potentials(x, labels, **settings, on_step=stop)
    resumed = fit_potentials(x, labels, **settings, state=saved)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name])
    finished = Ascent(**saved)
    assert len(finished.iterate) == 120


def test_a_finished_state_is_the_answer_at_once():
    x, last = images().flatten(1), {}
    done = fit_potentials(x, seed=0, batch=64, passes=3, on_step=lambda state: last.update(state.tensors()))

    def never(state):
        raise AssertionError("a step was made")

    assert torch.equal(fit_potentials(x, seed=0, batch=64, passes=3, state=last, on_step=never).values, done.values)
    assert torch.equal(Potentials(**load(save(done.tensors()))).values, done.values)


def test_fall_by_brute_force_whatever_is_in_memory(monkeypatch):
    points, z, g = images().flatten(1), noise(50, 64), torch.rand(120, generator=generator(1), dtype=torch.float64)
    expected = (torch.cdist(z, points).square().double() - g).argmin(1)
    for at_once in (2**24, 500, 1):
        monkeypatch.setattr(_cells, "SCORES_IN_MEMORY", at_once)
        cells = Cells(points, None)
        assert torch.equal(cells.fall(z, 0, g / 2 - cells.half_squares(0)), expected)


def test_scale_and_place_of_the_points_are_no_matter():
    """Shifted points have the same cells, and scaled ones of a line too."""
    points = images().flatten(1)
    here = fit_potentials(points, seed=0, batch=64, passes=20)
    there = fit_potentials(points + 3, seed=0, batch=64, passes=20)
    cells = Cells(points, None), Cells(points + 3, None)
    z = noise(500, 64)
    places = [c.fall(z, 0, p.values / 2 - c.half_squares(0)) for c, p in zip(cells, (here, there), strict=True)]
    assert (places[0] == places[1]).float().mean() > 0.97


def test_a_class_of_one():
    x, labels = images(5), torch.tensor([0, 0, 0, 0, 9])
    potentials = fit_potentials(x, labels, seed=0, batch=16, passes=2)
    assert potentials.values[4] == 0 and abs(potentials.divergence[1]) < 1e-9
    rows, _ = Semidiscrete(x, labels, potentials).draw(100, generator())
    assert 4 in rows and set(rows.tolist()) <= set(range(5))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"points": images().double()}, "float32"),
        ({"points": images() * math.nan}, "finite"),
        ({"points": images()[:0]}, "points"),
        ({"labels": torch.zeros(7, dtype=torch.long)}, "class"),
        ({"labels": torch.full((120,), -1)}, "class"),
        ({"state": Ascent(*torch.zeros(2, 5), *torch.zeros(4, 1, dtype=torch.long)).tensors()}, "120 points"),
    ],
)
def test_refuses(change, rule):
    with pytest.raises(InputError):
        fit_potentials(**{"points": images(), "seed": 0, **change})


def test_refuses_other_points():
    x, labels = images(), torch.arange(120) % 2
    with pytest.raises(InputError):
        Semidiscrete(x, None, fit(torch.zeros(7)))
    with pytest.raises(InputError):
        Semidiscrete(x, labels, fit(torch.zeros(120)))
