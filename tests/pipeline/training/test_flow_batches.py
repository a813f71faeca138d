"""The student's data do not depend on how they are cut into steps, and a coupling's memory is that of the step."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.couplings import Independent, Loom, MinibatchOT, SeededNoises
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR, VariancePreserving
from pipeline.flow_matching.times import Uniform
from pipeline.training.flow_batches import FlowBatches, blocks_ahead
from pipeline.training.student import train
from storage.errors import Interrupted
from tests.pipeline.jobs import job, training

SHAPE = (1, 4, 4)


def examples(count: int = 96) -> Examples:
    images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Examples(images.numpy(), np.arange(count) % 3)


def stream(coupling, batch: int, block: int | None = None, path=LINEAR) -> FlowBatches:
    return FlowBatches(examples(), coupling, Uniform(), path, 0.0, 7, batch, block)


def loom(batch: int, block: int) -> Loom:
    return Loom(SeededNoises(3, 96, SHAPE), journal=blocks_ahead(batch, block))


def joined(couples, steps: int):
    made = [couples(step) for step in range(steps)]
    return torch.cat([part.x for part in made]), torch.cat([part.z for part in made])


@pytest.mark.parametrize("make", [lambda batch, block: MinibatchOT(), lambda batch, block: Independent(), loom])
@pytest.mark.parametrize("batch", [8, 12, 24, 48])
def test_pairs_do_not_depend_on_the_batch_of_a_step(make, batch):
    """Blocks of 24, whether a step is a part of one, one, or several."""
    x, z = joined(stream(make(24, 24), 24), 8)
    other_x, other_z = joined(stream(make(batch, 24), batch, 24), 192 // batch)
    assert torch.equal(x, other_x) and torch.equal(z, other_z)


def test_blocks_of_minibatch_ot_are_as_large_as_asked():
    """A larger block pairs closer."""

    def cost(block):
        x, z = joined(stream(MinibatchOT(), 8, block), 12)
        return (x - z).square().mean().item()

    assert cost(96) < cost(24) < cost(8)


def test_times_lie_where_the_path_is_trained():
    path = VariancePreserving()
    t = torch.cat([stream(Independent(), 32, path=path)(step).t for step in range(20)])
    assert t.min() >= path.t_end > 0 and t.max() <= 1


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("batch", "block"), [(24, 24), (8, 24), (48, 24), (20, 24)])
def test_the_state_of_a_step_is_the_same_however_many_batches_are_ahead(batch, block):
    plain, early = stream(loom(batch, block), batch, block), stream(loom(batch, block), batch, block)
    early(0)
    for step in range(14):
        assert same(plain.state(step), early.state(step))
        plain(step)
        early(step + 1)


@pytest.mark.parametrize(("batch", "block"), [(24, 24), (8, 24), (48, 24), (20, 24)])
def test_a_stream_that_is_restored_goes_on_as_if_nothing_had_happened(batch, block):
    whole = stream(loom(batch, block), batch, block)
    expected = [whole(step) for step in range(15)]
    for stop in (1, 5, 7, 14):
        before = stream(loom(batch, block), batch, block)
        for step in range(stop + 1):  # one ahead
            before(step)
        after = stream(loom(batch, block), batch, block)
        after.load_state(before.state(stop))
        for step in range(stop, 15):
            assert torch.equal(after(step).z, expected[step].z)
        assert after.epochs == whole.epochs


def test_epochs_report_reassignments_that_grow_rare_and_a_cost_that_falls():
    couples = stream(loom(24, 24), 24)
    for step in range(40):
        couples(step)
    lines = couples.epochs
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert lines[0]["reassigned"] > 3 * max(line["reassigned"] for line in lines[5:])
    costs = [line["cost_after"] for line in lines]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(17, 16)

    def forward(self, x, t, labels):
        return self.linear(torch.cat([x.flatten(1), t[:, None]], 1)).view_as(x)


def test_training_on_loom_interrupted_and_resumed_is_bitwise_the_run_that_nothing_interrupted(tmp_path):
    settings, device = training(images=960, batch=24), torch.device("cpu")
    whole = train(job(tmp_path / "a"), Net(), stream(loom(24, 24), 24), settings, device)
    for stop in (3, 17):
        task, couples = job(tmp_path / "b"), stream(loom(24, 24), 24)
        serve = couples.__call__

        class Stopping(FlowBatches):
            def __call__(self, step, task=task, stop=stop, serve=serve):
                if step == stop:
                    task.stop.request("test")
                return serve(step)

        couples.__class__ = Stopping
        with pytest.raises(Interrupted):
            train(task, Net(), couples, settings, device)
    resumed = train(job(tmp_path / "b"), Net(), stream(loom(24, 24), 24), settings, device)
    assert resumed.totals == whole.totals and resumed.history == whole.history
    for one, two in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, two)
