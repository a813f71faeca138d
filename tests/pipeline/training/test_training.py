import errno
import json
import math
import os
import struct
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.data.batches import _Batch
from pipeline.runtime.device import same_bits
from pipeline.runtime.seeds import generator
from pipeline.training import fit
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.learning_rate import learning_rate
from storage.errors import Interrupted, StageFailed
from tests.pipeline.jobs import job, training

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Points(_Batch):
    x: torch.Tensor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 4))


def convolutions() -> nn.Module:
    """In memory with the channels last, unlike what a checkpoint holds."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(4, 1, 1),
        nn.Flatten(),
    )


def batch(step: int) -> Points:
    return Points(torch.randn(32, 4, generator=generator(1, step)))


def loss(net: nn.Module, part: Points) -> torch.Tensor:
    return (net(part.x) - part.x.flip(1)).square().mean()


def digest(fitted) -> list[bytes]:
    return [value.numpy().tobytes() for value in fitted.network.state_dict().values()]


def stopped_at(task, count):
    """A batch function that asks to stop once `count` steps have been served."""

    def serve(step):
        if step == count - 1:
            task.stop.request("test")
        return batch(step)

    return serve


@pytest.mark.parametrize("network", [network, convolutions])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_interrupted_and_resumed_is_bitwise_the_run_that_nothing_interrupted(tmp_path, schedule, network):
    settings = training(schedule=schedule, warmup=100)
    whole = fit(job(tmp_path / "a"), network(), batch, loss, settings, CPU)
    for count in (7, 13):
        task = job(tmp_path / "b")
        with pytest.raises(Interrupted):
            fit(task, network(), stopped_at(task, count), loss, settings, CPU)
    resumed = fit(job(tmp_path / "b"), network(), batch, loss, settings, CPU)
    assert digest(resumed) == digest(whole)
    assert resumed.history == whole.history
    assert (tmp_path / "a/out/history.jsonl").read_bytes() == (tmp_path / "b/out/history.jsonl").read_bytes()


def test_a_wish_that_comes_within_a_step_is_heard_after_the_next_and_nothing_is_lost(tmp_path):
    task, calls = job(tmp_path), []

    def asking(net, part):
        calls.append(part)
        if len(calls) == 5:
            task.stop.request("test")
        return loss(net, part)

    with pytest.raises(Interrupted):
        fit(task, network(), batch, asking, training(), CPU)
    assert load_checkpoint(tmp_path / "checkpoints")[1]["step"] == len(calls) == 6


@pytest.mark.parametrize(
    ("device", "repeatable", "strict"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_on_a_gpu_gradients_that_cannot_be_repeated_are_errors(tmp_path, monkeypatch, device, repeatable, strict):
    seen = []

    def watched(net, part):
        seen.append(torch.is_deterministic_algorithms_warn_only_enabled())
        return loss(net, part)

    monkeypatch.setattr("pipeline.training._loop.same_bits", lambda _: same_bits(torch.device(device)))
    torch.use_deterministic_algorithms(True, warn_only=True)
    fit(job(tmp_path), network(), batch, watched, training(images=64), CPU, repeatable=repeatable)
    assert seen and set(seen) == {not strict}
    assert torch.is_deterministic_algorithms_warn_only_enabled()  # as before


def test_a_crash_loses_only_what_came_after_the_checkpoint(tmp_path):
    def dies(step):
        if step == 11:
            raise OSError("power")
        return batch(step)

    with pytest.raises(OSError, match="power"):
        fit(job(tmp_path / "b", checkpoint_seconds=1e-9), network(), dies, loss, training(), CPU)
    _, state = load_checkpoint(tmp_path / "b/checkpoints")
    assert 0 < state["step"] <= 11
    resumed = fit(job(tmp_path / "b"), network(), batch, loss, training(), CPU)
    assert digest(resumed) == digest(fit(job(tmp_path / "a"), network(), batch, loss, training(), CPU))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"w": torch.full((4,), float(step))}, {"step": step})
    newest = tmp_path / "step-000000003.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    tensors, state = load_checkpoint(tmp_path)
    assert state["step"] == 2
    assert torch.equal(tensors["w"], torch.full((4,), 2.0))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("reader", ["pipeline.training.checkpoint.sha256_file", "pathlib.Path.read_bytes"])
def test_a_checkpoint_that_cannot_be_read_just_now_is_not_taken_for_damaged(tmp_path, monkeypatch, number, reader):
    """From an earlier one the training would go over it, and remove it."""
    for step in (100, 200):
        save_checkpoint(tmp_path, step, {"w": torch.tensor([float(step)])}, {"step": step})

    def fail(*given):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(reader, fail)
        with pytest.raises(OSError) as raised:
            load_checkpoint(tmp_path)
        assert raised.value.errno == number
    assert load_checkpoint(tmp_path)[1] == {"step": 200}


def test_no_sound_checkpoint_is_no_checkpoint(tmp_path):
    save_checkpoint(tmp_path, 1, {"w": torch.ones(4)}, {"step": 1})
    (tmp_path / "step-000000001.json").write_text("{")
    assert load_checkpoint(tmp_path) is None


def test_a_loss_that_is_not_finite_stops_before_the_step_and_says_where(tmp_path):
    def bad(step):
        points = batch(step)
        return Points(points.x * math.nan) if step == 5 else points

    with pytest.raises(StageFailed, match=r"loss is nan at step 5 \(images 160 to 192\)\. Lower student"):
        fit(job(tmp_path / "a"), network(), bad, loss, training(), CPU)
    with pytest.raises(StageFailed, match=r"192\); earlier weights are in .*checkpoints\. Lower student"):
        fit(job(tmp_path / "b", checkpoint_seconds=1e-9), network(), bad, loss, training(), CPU)


def test_the_rate_warms_up_falls_and_never_rises_again():
    settings = training(images=1000, warmup=100, schedule="cosine", final_lr=1e-4)
    rates = [learning_rate(settings, images) for images in range(0, 3001, 10)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(1e-2)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100:] == [pytest.approx(1e-4)] * len(rates[100:])


def test_several_averages_are_kept_resumed_and_differ(tmp_path):
    settings = training(averages=[{"images": 20}, {"width": 0.1}, {"width": 0.25}])
    names = ["half-life-20", "power-0.1", "power-0.25"]
    whole = fit(job(tmp_path / "a"), network(), batch, loss, settings, CPU)
    task = job(tmp_path / "b")
    with pytest.raises(Interrupted):
        fit(task, network(), stopped_at(task, 9), loss, settings, CPU)
    resumed = fit(job(tmp_path / "b"), network(), batch, loss, settings, CPU)
    assert list(whole.averages) == names
    weights = {name: [p.flatten() for p in made.parameters()] for name, made in whole.averages.items()}
    for name, made in resumed.averages.items():
        assert all(torch.equal(p.flatten(), w) for p, w in zip(made.parameters(), weights[name], strict=True))
    first = {name: torch.cat(parts) for name, parts in weights.items()}
    assert len({tuple(value.tolist()) for value in first.values()}) == 3


@pytest.mark.parametrize("changes", [{"optimizer": "adam", "weight_decay": 0.0}, {"precision": "float16"}])
def test_other_optimizers_and_precisions_resume_bitwise(tmp_path, changes):
    settings = training(**{"weight_decay": 0.1} | changes)
    whole = fit(job(tmp_path / "a"), network(), batch, loss, settings, CPU)
    task = job(tmp_path / "b")
    with pytest.raises(Interrupted):
        fit(task, network(), stopped_at(task, 9), loss, settings, CPU)
    assert digest(fit(job(tmp_path / "b"), network(), batch, loss, settings, CPU)) == digest(whole)
    plain = fit(job(tmp_path / "c"), network(), batch, loss, training(weight_decay=0.1), CPU)
    assert digest(plain) != digest(whole)
    assert whole.history[-1]["loss"] < 0.8 * whole.history[0]["loss"]


def test_a_gradient_beyond_float16_skips_its_step_and_lowers_the_scale(tmp_path):
    def steep(net, part):
        return loss(net, part) * (1e6 if part.x[0, 0].item() == marked else 1.0)

    marked = batch(5).x[0, 0].item()
    fitted = fit(job(tmp_path), network(), batch, steep, training(precision="float16", clip=None), CPU)
    _, state = load_checkpoint(tmp_path / "checkpoints")
    assert state["scaler"]["scale"] < 2.0**16
    assert math.isfinite(fitted.history[-1]["loss"])


def test_samples_and_curves_can_be_watched(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    drawn = []

    def picture(net):
        drawn.append([p.detach().clone() for p in net.parameters()])
        return Image.new("L", (8, 8), len(drawn))

    task = job(tmp_path / "w", checkpoint_seconds=1e-9)
    task.monitor = tmp_path / "monitor"
    fitted = fit(task, network(), batch, loss, training(), CPU, picture=picture)
    lines = [json.loads(line) for line in (task.monitor / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [line["loss"] for line in fitted.history]
    assert {"images_per_second", "data_wait", "saving", "gradient_norm", "lr"} <= set(lines[-1])
    assert list((task.monitor / "samples").glob("images-000000000640.png"))
    assert all(torch.equal(a, b) for a, b in zip(drawn[-1], fitted.network.parameters(), strict=True))
    assert len({tuple(p.numpy().tobytes() for p in weights) for weights in drawn}) == len(drawn)  # each step's once
    [events] = task.monitor.glob("events.out.tfevents.*")
    assert {value.tag for event in read_events(events, Event) for value in event.summary.value} >= {"loss", "samples"}


def read_events(path, kind):
    """TensorBoard's records: a length, its checksum, the bytes, their checksum."""
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        size = struct.unpack_from("<Q", data, at)[0]
        event = kind()
        event.ParseFromString(data[at + 12 : at + 12 + size])
        found.append(event)
        at += 16 + size
    return found


def test_nothing_is_watched_where_nobody_asked(tmp_path):
    fit(job(tmp_path), network(), batch, loss, training(), CPU)
    assert not list(tmp_path.rglob("events.out*"))


def test_bfloat16_trains_float32_weights(tmp_path):
    fitted = fit(job(tmp_path), network(), batch, loss, training(precision="bfloat16"), CPU)
    assert {value.dtype for value in fitted.network.state_dict().values()} == {torch.float32}
    assert math.isfinite(fitted.loss)


def test_training_reduces_the_loss_and_writes_its_history(tmp_path):
    fitted = fit(job(tmp_path), network(), batch, loss, training(images=6400), CPU)
    lines = [json.loads(line) for line in (tmp_path / "out/history.jsonl").read_text().splitlines()]
    assert lines[-1]["images"] == 6400
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert fitted.network.training is False
