"""LOOM-CFM: noises change hands but are never made or lost, the cost never rises, and it can be taken up again."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from pipeline.couplings import BankNoises, Independent, Loom, MinibatchOT, SeededNoises, refine_to_convergence
from pipeline.couplings._loom_exchange import distances, exchange
from pipeline.data.examples import Examples
from pipeline.runtime.noise import noise
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from storage.errors import InputError

CPU = torch.device("cpu")
SHAPE = (1, 2, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, shape=SHAPE, seed=9):
    return torch.rand(count, *shape, generator=generator(seed)) * 2 - 1


def held(loom):
    """The noises that the images have now, (noises_per_image, rows, C, H, W)."""
    return loom.noises.take(loom.tau.flatten(), CPU).unflatten(0, loom.tau.shape)


def total_cost(loom, x):
    """Over every image and cache, per dimension."""
    return (held(loom).double() - x.double()).square().flatten(2).mean(2).sum().item()


def optimal_cost(x, z):
    """Of full optimal transport, computed another way: the sum over images per dimension."""
    cost = torch.cdist(x.flatten(1).double(), z.flatten(1).double()).square().numpy()
    return cost[linear_sum_assignment(cost)].sum() / x[0].numel()


def train(loom, x, batch, steps, labels=None, seed=5):
    """Batches that straddle epochs, as a trainer draws them; the z of each step."""
    examples = Examples(x.numpy(), None if labels is None else labels.numpy())
    for step in steps:
        rows = examples.rows(seed, step, batch)
        yield loom.noise_for(examples.pixels(rows), examples.classes(rows), rows, generator(step))


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


# -- invariants ------------------------------------------------------------------------------------------------------


@given(st.data())
def test_whatever_the_batches_noises_are_conserved_and_the_cost_never_rises(data):
    count, noises_per_image = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    classes = data.draw(st.none() | st.lists(st.integers(0, 2), min_size=count, max_size=count))
    labels = None if classes is None else torch.tensor(classes)
    x = images(count)
    loom = Loom(SeededNoises(3, count, SHAPE, noises_per_image))
    before = loom.state()
    cost = total_cost(loom, x)
    for call in range(data.draw(st.integers(1, 4))):
        rows = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12)))  # and repeated
        z = loom.noise_for(x[rows], None if labels is None else labels[rows], rows, generator(call))
        # Every number once, as at first; with labels, in the class where it began.
        assert loom.tau.dtype == torch.int32 and sorted(loom.tau.flatten().tolist()) == list(
            range(noises_per_image * count)
        )
        if labels is not None:
            assert torch.equal(labels[loom.tau.long() % count], labels.expand(noises_per_image, count))
        cost_now = total_cost(loom, x)
        assert cost_now <= cost * (1 + 1e-12)
        # Each image is trained against a noise that it now has, and no noise serves two images.
        noises = held(loom)
        assert all((noises[:, row] == z[i]).flatten(1).all(1).any() for i, row in enumerate(rows))
        assert len(z.flatten(1).unique(dim=0)) >= len(rows.unique())
        # Undoing the call gives the state before it.
        assert same(loom.state(behind=1), before)
        before, cost = loom.state(), cost_now


def test_a_row_that_stands_twice_in_a_batch_has_one_noise():
    # Images 0 and 1 each have the other's best noise, so they exchange, and image 0 is there twice.
    x = torch.tensor([0.0, 1.0, 5.0]).view(3, 1, 1, 1)
    loom = Loom(BankNoises(torch.tensor([1.0, 0.0, 5.0]).view(1, 3, 1, 1, 1)))
    rows = torch.tensor([0, 2, 1, 0])
    z = loom.noise_for(x[rows], None, rows, generator())
    assert z.flatten().tolist() == [0, 5, 1, 0] and loom.tau.tolist() == [[1, 0, 2]]
    assert loom.statistics() == {"visited": 3, "reassigned": 2, "cost_before": 2, "cost_after": 0}


def test_batches_longer_than_an_epoch():
    x = images(10)
    loom = Loom(SeededNoises(0, 10, SHAPE))
    (z,) = train(loom, x, 25, range(1))
    assert len(z.flatten(1).unique(dim=0)) == 10
    assert total_cost(loom, x) == pytest.approx(optimal_cost(x, loom.noises.take(torch.arange(10), CPU)), rel=1e-6)


@pytest.mark.parametrize("with_labels", [False, True])
def test_one_batch_of_all_is_full_transport(with_labels):
    x, labels = images(40), torch.arange(40) % 3
    loom = Loom(SeededNoises(1, 40, SHAPE))
    z0 = held(loom)[0]
    loom.noise_for(x, labels if with_labels else None, torch.arange(40), generator())
    groups = [labels == c for c in range(3)] if with_labels else [labels >= 0]
    assert total_cost(loom, x) == pytest.approx(sum(optimal_cost(x[own], z0[own]) for own in groups), rel=1e-6)
    assert all(own[loom.tau[0].long()][own].all() for own in groups)


def test_classes_keep_their_noises_even_where_an_exchange_would_pay():
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    bank = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
    for labels, tau in ((torch.tensor([0, 1]), [[0, 1]]), (torch.tensor([4, 4]), [[1, 0]]), (None, [[1, 0]])):
        loom = Loom(BankNoises(bank))
        loom.noise_for(x, labels, torch.arange(2), generator())
        assert loom.tau.tolist() == tau


def test_equal_images_do_not_pass_their_noises_around():
    x = torch.full((30, 3, 8, 8), 0.3)
    loom = Loom(SeededNoises(0, 30, (3, 8, 8)))
    for step in range(5):
        loom.noise_for(x, None, torch.randperm(30, generator=generator(step)), generator(step))
    assert loom.statistics()["reassigned"] == 0


def test_only_cycles_that_gain_are_followed(monkeypatch):
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).view(5, 1, 1, 1)
    z = torch.tensor([1.0, 2.0, 0.0, 3.0, 4.0]).view(5, 1, 1, 1)
    bad = torch.tensor([2, 0, 1, 4, 3])  # the first three find their own; the last two lose theirs
    monkeypatch.setattr("pipeline.couplings._loom_exchange.assignment", lambda x, z, labels: bad)
    order, before, after = exchange(x, z, None)
    assert order.tolist() == [2, 0, 1, 3, 4]
    assert before.tolist() == [1, 1, 4, 0, 0] and after.tolist() == [0] * 5


# -- toy truths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_near_full_transport_though_only_batches_meet(seed):
    x = images(256, (2, 1, 1), seed)
    loom = Loom(SeededNoises(seed, 256, (2, 1, 1)))
    best, first = optimal_cost(x, held(loom)[0]), total_cost(loom, x)
    *_, history = refine_to_convergence(Examples(x.numpy(), None), loom, 32, seed, 30, 0.0)
    assert best <= total_cost(loom, x) < 1.01 * best and first > 2 * best
    # The sweeps' own account agrees: each epoch begins where the one before ended.
    assert history[0]["cost_before"] * 256 == pytest.approx(first) and history[0]["reassigned"] > 0.5
    assert history[-1]["cost_after"] * 256 == pytest.approx(total_cost(loom, x)) and history[-1]["reassigned"] < 0.1
    for earlier, later in pairwise(history):
        assert later["cost_after"] <= later["cost_before"] == pytest.approx(earlier["cost_after"])


def test_gaussians_are_joined_by_the_monotone_map():
    u = torch.randn(512, 1, 1, 1, generator=generator(), dtype=torch.float64)  # the optimal map of x = 0.4 + 0.3 u
    x = (0.4 + 0.3 * u).float()
    loom = Loom(SeededNoises(0, 512, (1, 1, 1)))
    for _ in refine_to_convergence(Examples(x.numpy(), None), loom, 64, 0, 20, 0.0):
        pass
    assert spearmanr(x.flatten(), held(loom)[0].flatten()).statistic > 0.9999
    assert (held(loom)[0] - u).square().mean().sqrt() < 0.15  # two samples of 512 are not the same sample


def test_gaussians_of_the_plane_are_joined_by_the_optimal_map():
    # x = m + A u with A symmetric and positive: x -> u is the gradient of a convex function, so it is optimal.
    a = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    u = torch.randn(512, 2, generator=generator(), dtype=torch.float64)
    x = (0.4 + u @ a).float().view(512, 2, 1, 1)
    loom = Loom(SeededNoises(0, 512, (2, 1, 1)))
    for _ in refine_to_convergence(Examples(x.numpy(), None), loom, 64, 0, 20, 0.0):
        pass

    def error(z):
        return (z.view(512, 2) - u).square().mean().sqrt()

    batches = torch.randperm(512, generator=generator()).split(64)
    minibatch = torch.empty_like(x)
    for rows in batches:
        minibatch[rows] = MinibatchOT().noise_for(x[rows], None, rows, generator(int(rows[0])))
    assert error(held(loom)[0]) < 0.25 < 0.6 * error(minibatch)


def test_the_polygon_is_a_trap():
    """Appendix B, Figure 8: every image could have a nearer noise, but only if all pass theirs on at once."""
    count = 12
    corner = 2 * math.pi / count
    angle = torch.arange(count, dtype=torch.float64) * corner

    def points(angles):
        return torch.stack([angles.cos(), angles.sin()], 1).float().view(count, 2, 1, 1)

    x, z = points(angle), points(angle + 0.55 * corner)  # 0.45 of a corner from the next image
    loom = Loom(BankNoises(z[None]))
    for left_out in range(count):  # every batch but the whole: those of fewer images have fewer permutations yet
        rows = torch.tensor([row for row in range(count) if row != left_out])
        loom.noise_for(x[rows], None, rows, generator())
    assert loom.statistics()["reassigned"] == 0 and total_cost(loom, x) > 1.2 * optimal_cost(x, z)
    loom.noise_for(x, None, torch.arange(count), generator())
    assert loom.tau[0].tolist() == [11, *range(11)]
    assert total_cost(loom, x) == pytest.approx(optimal_cost(x, z), rel=1e-6)


def test_caches_are_chosen_evenly_and_independently():
    loom = Loom(SeededNoises(0, 4, SHAPE, noises_per_image=3), refine=False)
    rows = torch.arange(4)
    noises, chosen = held(loom), []
    for step in range(600):
        z = loom.noise_for(torch.zeros(4, *SHAPE), None, rows, generator(step))
        chosen.append((noises == z).flatten(2).all(2).float().argmax(0))
    chosen = torch.stack(chosen)  # (600, 4)
    for pair in (chosen[:, 0] * 3 + chosen[:, 1], chosen[:, 2] * 3 + chosen[:, 3]):
        counts = torch.bincount(pair, minlength=9)
        assert ((counts - 600 / 9) ** 2 / (600 / 9)).sum() < 26.1  # chi squared of 8, 0.1 %


# -- options ---------------------------------------------------------------------------------------------------------


def test_without_refinement_the_assignment_is_fixed():
    x = images(20)
    loom = Loom(SeededNoises(2, 20, SHAPE), refine=False)
    first = held(loom)[0]
    rows = torch.randperm(20, generator=generator())
    assert torch.equal(loom.noise_for(x[rows], None, rows, generator()), first[rows])
    assert loom.tau.tolist() == [list(range(20))]
    sums = loom.statistics()
    assert (sums["visited"], sums["reassigned"]) == (20, 0)
    assert sums["cost_before"] == sums["cost_after"] == pytest.approx(total_cost(loom, x))


def test_interpolation_ends_in_the_two_pure_couplings():
    x, rows = images(20), torch.arange(20)
    source = SeededNoises(2, 20, SHAPE)
    assert torch.equal(
        Loom(source, interpolate=1.0).noise_for(x, None, rows, generator()),
        Loom(source).noise_for(x, None, rows, generator()),
    )
    for step in range(3):
        free = Loom(source, interpolate=0.0).noise_for(x, None, rows, generator(step))
        assert torch.equal(free, Independent().noise_for(x, None, rows, generator(step)))


def test_interpolation_takes_the_own_noise_with_its_probability_and_keeps_no_other():
    x, rows = images(400), torch.arange(400)
    loom = Loom(SeededNoises(2, 400, SHAPE), interpolate=0.25)
    z = loom.noise_for(x, None, rows, generator())
    own = (z == held(loom)[0]).flatten(1).all(1)
    assert 70 <= own.sum() <= 130  # 100, standard deviation 8.7
    assert torch.equal(z[~own], Independent().noise_for(x, None, rows, generator())[~own])
    alone = Loom(SeededNoises(2, 400, SHAPE))
    alone.noise_for(x, None, rows, generator())
    assert torch.equal(loom.tau, alone.tau)  # refined for all of them


# -- noises ----------------------------------------------------------------------------------------------------------


def test_noises_follow_from_their_numbers_alone():
    source = SeededNoises(2**63 + 1, 50, (3, 4, 4), noises_per_image=2)
    numbers = torch.tensor([99, 3, 0, 50, 3], dtype=torch.int32)
    z = source.take(numbers, CPU)
    assert torch.equal(z, noise(2**63 + 1, numbers, 0, (3, 4, 4)))
    for size in (1, 2, 3):
        assert torch.equal(torch.cat([source.take(part, CPU) for part in numbers.split(size)]), z)
    assert torch.equal(z[1], z[4]) and not torch.equal(z[0], z[1])


@pytest.mark.parametrize("keep", [lambda noises: noises, lambda noises: BankNoises(noises.z.numpy())])
def test_noises_kept_in_memory_are_the_same_coupling(keep):
    x = images(30)
    source = SeededNoises(4, 30, SHAPE, noises_per_image=2)
    kept = keep(source.in_memory())
    one, other = Loom(source), Loom(kept)
    for z, again in zip(train(one, x, 8, range(12)), train(other, x, 8, range(12)), strict=True):
        assert torch.equal(z, again) and again.dtype == torch.float32
    assert same(one.state(), other.state()) and one.statistics()["reassigned"] > 50


def test_a_bank_in_half_precision_is_where_refinement_starts():
    x = images(30)
    bank = (x + 0.5 * torch.randn(2, 30, *SHAPE, generator=generator())).half()
    loom = Loom(BankNoises(bank))
    assert torch.equal(held(loom), bank.float())
    list(train(loom, x, 10, range(30)))
    assert total_cost(loom, x) < (bank.double() - x).square().flatten(2).mean(2).sum()
    assert torch.equal(held(loom).flatten().sort().values, bank.float().flatten().sort().values)


def test_flipped_copies_have_noises_of_their_own():
    grey = (np.arange(5 * 4).reshape(5, 1, 2, 2) * 12).astype(np.uint8)
    examples = Examples(grey, None, flips=True)
    loom = Loom(SeededNoises(0, len(examples), SHAPE))
    *_, history = refine_to_convergence(examples, loom, 4, 0, 3, 0.0)
    assert loom.tau.shape == (1, 10)
    assert history[-1]["cost_after"] * 10 == pytest.approx(total_cost(loom, examples.pixels(torch.arange(10))))


# -- stop and go on --------------------------------------------------------------------------------------------------


def test_a_loom_taken_up_again_goes_on_the_same_way(tmp_path):
    x, labels = images(50), torch.arange(50) % 2
    whole, part = (Loom(SeededNoises(0, 50, SHAPE, noises_per_image=2), interpolate=0.9) for _ in range(2))
    expected = list(train(whole, x, 16, range(20), labels))
    seen = list(train(part, x, 16, range(9), labels))
    save_checkpoint(tmp_path, 9, part.state(), {})
    resumed = Loom(SeededNoises(0, 50, SHAPE, noises_per_image=2), interpolate=0.9)
    resumed.load_state(load_checkpoint(tmp_path)[0])
    seen += train(resumed, x, 16, range(9, 20), labels)
    assert all(torch.equal(z, again) for z, again in zip(expected, seen, strict=True))
    assert same(whole.state(), resumed.state()) and whole.statistics() == resumed.statistics()


def test_states_before_the_last_calls():
    x = images(50)
    loom = Loom(SeededNoises(0, 50, SHAPE))
    states = [loom.state()]
    for _ in train(loom, x, 16, range(8)):
        states.append(loom.state())
        for behind in range(min(3, len(states))):
            assert same(loom.state(behind), states[-1 - behind])
    assert len({state["tau"].numpy().tobytes() for state in states}) == 9  # each call changed something
    for behind in (3, -1):
        with pytest.raises(InputError):
            loom.state(behind)
    loom.load_state(states[4])
    with pytest.raises(InputError):
        loom.state(behind=1)


@pytest.mark.parametrize("ahead", [1, 2])
def test_batches_made_ahead_change_no_report_and_no_state(ahead):
    x = images(50)
    plain, early = (Loom(SeededNoises(0, 50, SHAPE)) for _ in range(2))
    list(train(early, x, 16, range(ahead)))
    for step in range(9):
        list(train(plain, x, 16, range(step, step + 1)))
        list(train(early, x, 16, range(step + ahead, step + ahead + 1)))
        assert same(plain.state(), early.state(behind=ahead))
        assert same(plain.state(), early.state(behind=ahead))


def test_states_are_copies():
    loom = Loom(SeededNoises(0, 50, SHAPE))
    state = loom.state()
    loom.load_state(state)
    list(train(loom, images(50), 16, range(5)))
    assert state["tau"].tolist() == [list(range(50))] and state["totals"].tolist() == [0] * 4


def test_statistics_are_sums_over_all_pairs():
    x = images(50)
    loom = Loom(SeededNoises(0, 50, SHAPE))
    before = loom.statistics()
    assert before == dict.fromkeys(("visited", "reassigned", "cost_before", "cost_after"), 0)
    for steps in (range(5), range(5, 7)):
        cost, tau = total_cost(loom, x), loom.tau.clone()
        list(train(loom, x, 10, steps))
        sums = {name: value - before[name] for name, value in loom.statistics().items()}
        assert sums["visited"] == 10 * len(steps) and sums["reassigned"] >= (loom.tau != tau).sum() > 0
        assert cost - total_cost(loom, x) == pytest.approx(sums["cost_before"] - sums["cost_after"], rel=1e-9)
        before = loom.statistics()


def test_a_sweep_taken_up_again_is_the_same_sweep():
    examples = Examples(images(64).numpy(), np.arange(64) % 2)
    whole = Loom(SeededNoises(0, 64, SHAPE, noises_per_image=2))
    *_, expected = refine_to_convergence(examples, whole, 16, 1, 6, 0.0)
    assert [line["epoch"] for line in expected] == [1, 2, 3, 4, 5, 6]
    loom, history, state = Loom(whole.noises), [], Loom(whole.noises).state()
    for _ in range(6):  # stopped after every epoch
        loom = Loom(whole.noises)
        loom.load_state(state)
        history = next(refine_to_convergence(examples, loom, 16, 1, 6, 0.0, done=history))
        state = loom.state()
    assert history == expected and same(loom.state(), whole.state())
    assert list(refine_to_convergence(examples, loom, 16, 1, 6, 0.0, done=history)) == []


def test_a_sweep_ends_at_its_tolerance():
    examples = Examples(images(64).numpy(), None)
    loom = Loom(SeededNoises(0, 64, SHAPE))
    *_, history = refine_to_convergence(examples, loom, 16, 1, 1000, 0.1)
    assert 1 < len(history) < 100
    assert history[-1]["reassigned"] <= 0.1 < min(line["reassigned"] for line in history[:-1])
    assert list(refine_to_convergence(examples, loom, 16, 1, 1000, 0.1, done=history)) == []


# -- bad input -------------------------------------------------------------------------------------------------------


def test_refuses_what_makes_no_sense():
    source = SeededNoises(0, 20, SHAPE)
    for rows, noises_per_image in ((0, 1), (5, 0), (1 << 30, 2)):
        with pytest.raises(InputError):
            SeededNoises(0, rows, SHAPE, noises_per_image)
    with pytest.raises(InputError):
        BankNoises(torch.zeros(5, 1, 2, 2))
    loom = Loom(source)
    with pytest.raises(InputError):
        loom.noise_for(images(3), None, torch.tensor([0, 20, 1]), generator())
    with pytest.raises(InputError):
        loom.noise_for(images(3, (1, 3, 3)), None, torch.arange(3), generator())
    assert loom.statistics()["visited"] == 0


def test_refuses_states_of_other_sets_and_broken_ones():
    loom = Loom(SeededNoises(0, 20, SHAPE))
    with pytest.raises(InputError):
        loom.load_state(Loom(SeededNoises(0, 20, SHAPE, noises_per_image=2)).state())
    for place, value in ((0, 1), (0, -1), (3, 20)):
        broken = loom.state()
        broken["tau"][0, place] = value
        with pytest.raises(InputError):
            loom.load_state(broken)
    assert loom.tau.tolist() == [list(range(20))]


def test_does_not_touch_its_arguments():
    x, labels, rows = images(20), torch.arange(20) % 3, torch.randperm(20, generator=generator())
    copies = x.clone(), labels.clone(), rows.clone()
    z = Loom(SeededNoises(0, 20, SHAPE)).noise_for(x, labels, rows, generator())
    assert z.shape == x.shape and z.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip((x, labels, rows), copies, strict=True))


def test_distances_are_exact_for_float32():
    x, z = images(7, (3, 16, 16)), images(7, (3, 16, 16), 1)
    expected = np.square(z.numpy().astype(np.float64) - x.numpy()).reshape(7, -1).mean(1)
    assert distances(x, z).dtype == torch.float64 and np.allclose(distances(x, z).numpy(), expected, rtol=1e-13)
