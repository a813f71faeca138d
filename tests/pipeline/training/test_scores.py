"""Scores while a network trains: they change no weight, survive any stop, and choose the least."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from pipeline.recipe.sections import Power
from pipeline.training import Watch, fit
from pipeline.training._scores import points
from pipeline.training.checkpoint import load_checkpoint
from storage.errors import Interrupted
from tests.pipeline.jobs import job, training
from tests.pipeline.training.test_training import CPU, batch, digest, loss, network, stopped_at

SETTINGS = training(averages=[Power(width=0.1)], lr=5e-2)
NAMES = ("half-life-100", "power-0.1")
PROBE = torch.randn(16, 4, generator=torch.Generator().manual_seed(5))


def score(net):
    torch.rand(3)  # a sampler that draws from torch's global generator must not change the training
    with torch.no_grad():
        return {"fd": float((net(PROBE) - PROBE.flip(1)).square().mean()), "fd_held_out": 1.0}


def trained(folder, watch=None):
    return fit(job(folder), network(), batch, loss, SETTINGS, CPU, watch=watch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"), Watch(4, score))


def test_scores_change_no_weight_and_nothing_else_of_the_history(tmp_path, whole):
    plain = trained(tmp_path)
    assert digest(plain) == digest(whole) and plain.best is None
    assert [{key: value for key, value in line.items() if "/" not in key} for line in whole.history] == plain.history


def test_every_average_is_scored_at_every_point_and_the_least_is_the_best(whole):
    scored = {line["images"]: line for line in whole.history if "fd/power-0.1" in line}
    assert list(scored) == [160, 320, 480, 640] and whole.points == 4
    assert all(f"{key}/{name}" in line for line in scored.values() for key in ("fd", "fd_held_out") for name in NAMES)
    values = {(line[f"fd/{name}"], images, name) for images, line in scored.items() for name in NAMES}
    assert (whole.best.value, whole.best.images, whole.best.average) == min(values)
    assert score(whole.best_network())["fd"] == whole.best.value
    assert scored[640]["fd/half-life-100"] == score(whole.network)["fd"]


def test_the_time_of_scores_is_not_that_of_the_training(tmp_path):
    def slow(net):
        time.sleep(0.2)
        return score(net)

    task = job(tmp_path)
    fit(task, network(), batch, loss, SETTINGS, CPU, watch=Watch(4, slow))
    (points, scoring), (images, seconds) = (task.timings.parts[name] for name in ("quality", "training"))
    assert points == 4 and scoring >= 4 * 2 * 0.2  # of two averages each
    assert images == 608 and seconds < scoring  # all steps but the first, of some milliseconds each


def test_a_best_that_is_not_the_last_is_not_lost(tmp_path):
    values = iter([3.0, 2.0, 0.5, 4.0, 9.0, 9.0, 9.0, 9.0])
    fitted = trained(tmp_path, Watch(4, lambda net: {"fd": next(values)}))
    assert (fitted.best.value, fitted.best.images, fitted.best.average) == (0.5, 320, NAMES[0])
    tensors, _ = load_checkpoint(tmp_path / "checkpoints")
    assert all(torch.equal(tensors[f"best.{name}"], value) for name, value in fitted.best.weights.items())


def test_scores_that_are_not_finite_are_left_out(tmp_path):
    values = iter([float("nan"), float("inf"), 2.0, float("nan"), 3.0, 4.0, float("inf"), 5.0])
    fitted = trained(tmp_path, Watch(4, lambda net: {"fd": next(values)}))
    assert (fitted.best.value, fitted.best.images) == (2.0, 320)
    scored = [[value for key, value in line.items() if "/" in key] for line in fitted.history]
    assert [line for line in scored if line] == [[2.0], [3.0, 4.0], [5.0]]


@pytest.mark.parametrize("call", range(8))  # 4 points of 2 averages
@pytest.mark.parametrize("error", [OSError, Interrupted])
def test_a_kill_within_a_score_loses_and_doubles_nothing(tmp_path, whole, call, error):
    calls = []

    def dies(net):
        calls.append(net)
        if len(calls) == call + 1:
            raise error("power")
        return score(net)

    with pytest.raises(error):
        trained(tmp_path, Watch(4, dies))
    assert load_checkpoint(tmp_path / "checkpoints")[1]["step"] == 5 * (call // 2 + 1)  # no step is repeated
    again = []
    resumed = trained(tmp_path, Watch(4, lambda net: again.append(net) or score(net)))
    assert digest(resumed) == digest(whole) and resumed.history == whole.history
    assert len(again) == 8 - call // 2 * 2  # finished points are not measured a second time
    assert (resumed.best.value, resumed.best.images) == (whole.best.value, whole.best.images)
    assert all(torch.equal(resumed.best.weights[key], value) for key, value in whole.best.weights.items())
    assert [json.loads(line) for line in (tmp_path / "out/history.jsonl").read_text().splitlines()] == whole.history


def test_the_monitor_has_one_line_for_each_point_also_after_a_kill(tmp_path, whole):
    def dies(net):
        raise OSError("power")

    for watch, ends in ((Watch(4, dies), pytest.raises(OSError)), (Watch(4, score), nullcontext())):
        with ends:
            fit(replace(job(tmp_path), monitor=tmp_path / "m"), network(), batch, loss, SETTINGS, CPU, watch=watch)
    lines = [json.loads(line) for line in (tmp_path / "m/metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [line["images"] for line in whole.history]
    assert all(line.items() >= expected.items() for line, expected in zip(lines, whole.history, strict=True))


@pytest.mark.parametrize("count", [4, 5, 6])  # before, at and after a point
def test_a_stop_at_a_point_scores_it_after_the_resume(tmp_path, whole, count):
    task = job(tmp_path)
    with pytest.raises(Interrupted):
        fit(task, network(), stopped_at(task, count), loss, SETTINGS, CPU, watch=Watch(4, score))
    resumed = trained(tmp_path, Watch(4, score))
    assert resumed.history == whole.history and resumed.best.value == whole.best.value


def test_points_are_even_and_lines_of_the_history():
    assert points(1200, 10, 6) == tuple(range(120, 1201, 120))
    assert points(1, 10) == (1,) and points(3, 10) == (1, 2, 3)
    assert points(1003, 4, 5) == (250, 500, 750, 1003)
