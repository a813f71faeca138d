"""What samples start from and what their networks are told."""

import numpy as np
import pytest
import torch
from torch import nn

from models.tarflow import Sequential, TarFlowConfig
from pipeline.data.examples import Examples
from pipeline.flow_matching.intervals import states_between
from pipeline.flow_matching.paths import LINEAR, VariancePreserving
from pipeline.flow_matching.sampling import (
    planned,
    starting_images,
    starting_noise,
    student_samples,
    student_velocity,
    student_walk,
    teacher_samples,
)
from pipeline.recipe.sections import Sweep, Teacher
from tests.models.test_tarflow import random_flow
from tests.pipeline.jobs import training


class Recorder(nn.Module):
    """v = condition for the null class, and 1 more for a class; remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, t, labels=None, condition=None):
        self.seen.append((labels, condition))
        told = torch.zeros_like(x) if condition is None else condition
        return told if labels is None else told + 1


def test_guidance_is_about_classes_and_both_calls_see_the_condition():
    network, condition, labels = Recorder(), torch.full((3, 1, 2, 2), 0.25), torch.arange(3)
    x, t = torch.zeros(3, 1, 2, 2), torch.ones(3)
    v = student_velocity(network, LINEAR, labels, 3.0, condition)(x, t)
    assert [seen is None for seen, _ in network.seen] == [False, True]
    assert all(seen is condition for _, seen in network.seen)
    assert torch.equal(v, condition + 3)


def test_students_without_a_condition_are_not_asked_with_one():
    network = Recorder()
    student_velocity(network, VariancePreserving(), None)(torch.zeros(3, 1, 2, 2), torch.ones(3))
    assert network.seen == [(None, None)]


def test_calls_under_guidance_count_twice_with_a_condition_too():
    z, how = torch.randn(3, 1, 2, 2), Sweep(grid="uniform", nfe=(4,), guidance=2.0)
    condition = torch.full_like(z, 0.5)
    made, calls = student_samples(Recorder(), z, torch.arange(3), how, 4, condition=condition)
    assert calls == 4
    torch.testing.assert_close(made, z - condition - 2)


def test_source_images_come_in_turn_whatever_else_is_in_the_batch():
    rows = np.random.default_rng(0).integers(0, 256, (11, 1, 4, 4), dtype=np.uint8)
    source = Examples(rows, None)
    z = starting_images(5, torch.arange(33), source)
    assert torch.equal(z[:11], z[11:22]) and torch.equal(z[:11], z[22:])
    every = source.pixels(torch.arange(11))
    same = (z[:11, None] == every[None]).flatten(2).all(2).long()
    assert torch.equal(same.sum(0), torch.ones(11, dtype=torch.long))  # each once
    assert torch.equal(starting_images(5, torch.tensor([20, 3]), source), z[[20, 3]])
    assert not torch.equal(starting_images(6, torch.arange(33), source), z)


@pytest.mark.parametrize(
    "how", [Sweep(grid="quadratic", nfe=(4,)), Sweep(solver="heun", grid="uniform", nfe=(5,)), Sweep(solver="dopri5")]
)
def test_a_walk_ends_where_the_samples_are(how):
    z, condition = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.full((3, 1, 2, 2), 0.5)
    nfe = how.nfe[0] if how.nfe else 0
    for path in (LINEAR, VariancePreserving()):
        times, states = student_walk(Recorder(), z, None, how, nfe, path, condition)
        made, _ = student_samples(Recorder(), z, None, how, nfe, path, condition)
        torch.testing.assert_close(states[-1], made, rtol=1e-4, atol=1e-5)
        assert len(times) == len(states) == {"euler": 5, "heun": 4, "dopri5": 9}[how.solver]
        assert times[0] == 1 and times == sorted(times, reverse=True)
        torch.testing.assert_close(states[0], path.start(z))


@pytest.mark.parametrize(("solver", "precisions"), [("dopri5", {("ieee", "ieee")}), ("euler", {("none", "tf32")})])
def test_an_adaptive_solver_calls_its_network_without_tf32(solver, precisions):
    """TF32 is the default of cuDNN's convolutions. It is set for the whole process, so a CPU shows it."""
    products, convolutions, seen = torch.backends.cuda.matmul, torch.backends.cudnn.conv, []

    class Precisions(Recorder):
        def forward(self, x, t, labels=None, condition=None):
            seen.append((products.fp32_precision, convolutions.fp32_precision))
            return super().forward(x, t, labels, condition) + 1

    before = products.fp32_precision, convolutions.fp32_precision
    how = Sweep(solver=solver, **({"nfe": (4,)} if solver == "euler" else {}))
    try:
        products.fp32_precision, convolutions.fp32_precision = "none", "tf32"
        network, z = Precisions(), torch.zeros(2, 1, 2, 2)
        for sample in (student_samples, student_walk):
            sample(network, z, None, how, 4)
        states_between(student_velocity(network, LINEAR, None), z, planned(how, 4)[0], 4, 2)
        assert set(seen) == precisions
        assert (products.fp32_precision, convolutions.fp32_precision) == ("none", "tf32")
    finally:
        products.fp32_precision, convolutions.fp32_precision = before


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_teacher_samples_from_its_prior_at_the_temperature_asked_for(temperature):
    """Its own samples lead back to the noise that they were made of."""
    flow = random_flow(TarFlowConfig(1, 4, 2, 16, 2, 1, head_dim=8, classes=3), dtype=torch.float32)
    config = Teacher(
        seed=0,
        patch=2,
        width=16,
        blocks=2,
        layers=1,
        head_dim=8,
        temperature=temperature,
        denoise=False,
        training=training(),
    )
    rows, labels = torch.arange(6), torch.arange(6) % 3
    made = teacher_samples(flow, rows, labels, 5, config, (Sequential(),) * 2)
    z = starting_noise(5, rows, flow.config.shape)
    torch.testing.assert_close(flow.encode(made, labels), temperature * z, rtol=1e-3, atol=1e-4)
