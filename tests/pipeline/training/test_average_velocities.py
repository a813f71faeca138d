"""Training on average velocities: the intervals of a batch, resuming, and what a history says of it."""

import json

import pytest
import torch

from pipeline.couplings import Independent
from pipeline.data.examples import Examples
from pipeline.flow_matching.mean_flow import MeanFlow
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import LogitNormal, Uniform
from pipeline.training.flow_batches import FlowBatches, Intervals
from pipeline.training.student import train
from storage.errors import Interrupted
from tests.pipeline.jobs import job, tiny_unet, training

CPU = torch.device("cpu")


def batches(share=0.25, batch=40, interval=True):
    pixels = torch.randn(80, 1, 4, 4, generator=torch.Generator().manual_seed(0)).mul(20).add(100)
    examples = Examples(pixels.clamp(0, 255).byte().numpy(), (torch.arange(80) % 3).numpy())
    intervals = Intervals(LogitNormal(-0.4), share) if interval else None
    return FlowBatches(examples, Independent(), Uniform(), LINEAR, 0.1, 5, batch, interval=intervals)


def network():
    torch.manual_seed(0)
    return tiny_unet(time_scale=16.0, interval=True)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.63, 1.0])
def test_as_many_rows_as_asked_have_an_interval_and_pairs_and_labels_are_those_of_velocities(share):
    for step in range(3):
        batch, plain = batches(share)(step), batches(interval=False)(step)
        assert int((batch.r < batch.t).sum()) == round(share * 40)
        assert torch.equal(batch.x, plain.x) and torch.equal(batch.z, plain.z)
        assert torch.equal(batch.labels, plain.labels) and plain.r is None
        assert (batch.t >= plain.t).all() and (batch.r >= 0).all() and (batch.t <= 1).all()
    assert not torch.equal(batches(share)(0).t, batches(share)(1).t)


def test_interval_rows_are_spread_over_the_batch():
    rows = torch.stack([(batch.r < batch.t) for batch in map(batches(0.25), range(200))]).float()
    assert (rows.mean(0) - 0.25).abs().max() < 0.15  # 5 standard deviations


@pytest.mark.parametrize("guidance", [1.0, pytest.param(1.5, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_is_bitwise_the_run_that_nothing_interrupted(tmp_path, guidance):
    settings, objective = training(images=640, batch=40, accumulate=2), MeanFlow(guidance=guidance)

    def fitted(name, stream):
        return train(job(tmp_path / name), network(), stream, settings, CPU, objective=objective)

    class Stopping(FlowBatches):
        def __call__(self, step):
            if step == 6:
                task.stop.request("test")
            return super().__call__(step)

    whole = fitted("a", batches())
    task, stopping = job(tmp_path / "b"), batches()
    stopping.__class__ = Stopping
    with pytest.raises(Interrupted):
        train(task, network(), stopping, settings, CPU, objective=objective)
    resumed = fitted("b", batches())
    assert resumed.history == whole.history
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)
    assert (whole.network.embed_span[2].weight != 0).any()  # the interval is learned


def test_the_history_and_the_monitor_have_raw_errors_that_fall_while_the_weighted_loss_is_flat(tmp_path):
    task = job(tmp_path)
    task.monitor = tmp_path / "monitor"
    settings = training(images=40 * 60, batch=40)
    fitted = train(task, network(), batches(), settings, CPU, objective=MeanFlow())
    first, last = fitted.history[0], fitted.history[-1]
    assert last["error_instant"] < 0.7 * first["error_instant"]
    assert last["error_interval"] < 0.7 * first["error_interval"]
    assert abs(first["loss"] - 1) < 0.01 and abs(last["loss"] - 1) < 0.01
    lines = [json.loads(line) for line in (tmp_path / "monitor/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["error_interval"] == last["error_interval"]


def test_raw_errors_are_means_over_the_images_of_their_kind(tmp_path):
    """One step without movement: the errors are those of the whole batch, whatever the parts."""
    lines = []
    for parts in (1, 4):
        settings, task = training(images=40, batch=40, accumulate=parts), job(tmp_path / str(parts))
        lines.append(train(task, network(), batches(), settings, CPU, objective=MeanFlow()).history[0])
    for name in ("error_instant", "error_interval"):
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-5)
    batch = batches()(0)
    instant = batch.r == batch.t  # an untrained network predicts zero everywhere
    expected = (batch.z - batch.x)[instant].square().mean().item()
    assert lines[0]["error_instant"] == pytest.approx(expected, rel=1e-5)
