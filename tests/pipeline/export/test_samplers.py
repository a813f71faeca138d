"""Ways written down number by number make the samples that the pipeline makes."""

import json

import pytest
import torch
from torch import nn

from models._samplers import FlowSampler, VelocitySampler
from models.tarflow import Sequential, TarFlowConfig
from pipeline.export._samplers import SamplerSetting, measured_ways, recommended, written
from pipeline.flow_matching.paths import LINEAR, OptimalTransport, VarianceExploding, VariancePreserving
from pipeline.flow_matching.sampling import student_samples
from pipeline.recipe.sections import Sweep
from tests.models.test_tarflow import random_flow
from tests.pipeline.reporting.finished import score

PATHS = [LINEAR, OptimalTransport(1e-3), VariancePreserving(), VarianceExploding(0.02, 5.0)]
WAYS = [
    SamplerSetting("euler", "uniform", 3),
    SamplerSetting("midpoint", "quadratic", 4),
    SamplerSetting("heun", "quadratic", 5),
    SamplerSetting("heun", "edm", 4),
    SamplerSetting("rk4", "uniform", 8),
    SamplerSetting("euler", "logit", 4, 1.7),
    SamplerSetting("heun", "uniform", 6, 2.0),
    SamplerSetting("euler", "uniform", 2, temperature=1.2),
]


class Bent(nn.Module):
    """A velocity that depends on everything, so that a wrong time or scale shows."""

    def forward(self, x, t, labels=None):
        t = t[:, None, None, None]
        push = 0.0 if labels is None else 0.2 * (labels + 1)[:, None, None, None]
        return torch.sin(2 * x + 3 * t) - t * x + push * torch.cos(5 * t)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.solver}-{way.grid}-{way.nfe}-{way.guidance}")
def test_samples_are_those_of_the_pipeline(way, path):
    agree(Bent(), way, path)


def agree(network, way, path):
    z = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1])
    how = Sweep(solver=way.solver, grid=way.grid, nfe=(way.nfe,), guidance=way.guidance)
    expected, calls = student_samples(network, way.temperature * z, labels, how, way.nfe, path)
    facts = {
        "shape": [1, 3, 3],
        "classes": ["a", "b", "c"],
        "recommended": 0,
        "ways": [written(way, path)],
        "noise_scale": path.start(torch.ones(1, 1, 1, 1)).item(),
    }
    facts = json.loads(json.dumps(facts))
    assert calls == way.nfe == len(facts["ways"][0]["evaluations"]) * (1 if way.guidance == 1 else 2)
    made = VelocitySampler(network, facts)(z, labels)
    assert (made - z).abs().max() > 0.1
    torch.testing.assert_close(made, expected, rtol=2e-5, atol=2e-5)


class Average(Bent):
    """An average velocity that depends on the other end, too."""

    def forward(self, x, t, labels=None, r=None):
        assert (r < t).all()
        return super().forward(x, t, labels) + torch.cos(4 * r)[:, None, None, None]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_jumps_are_those_of_the_pipeline(steps, guidance):
    nfe = steps * (1 if guidance == 1 else 2)
    agree(Average(), SamplerSetting("jump", "quadratic", nfe, guidance), LINEAR)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_an_exported_teacher_samples_from_its_prior_at_its_temperature(temperature):
    flow = random_flow(TarFlowConfig(1, 4, 2, 16, 2, 1, head_dim=8, classes=3), dtype=torch.float32)
    facts = {
        "shape": [1, 4, 4],
        "classes": ["a", "b", "c"],
        "temperature": temperature,
        "guidance": 0.0,
        "annealed": False,
        "attention_temperature": 1.0,
        "denoise": 0.0,
        "schedules": [Sequential().to_dict()] * 2,
    }
    z, labels = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    made = FlowSampler(flow, json.loads(json.dumps(facts)))(z, labels)
    torch.testing.assert_close(flow.encode(made, labels), temperature * z, rtol=1e-3, atol=1e-4)


def test_measured_ways_are_those_of_the_first_metric_with_a_choice_of_calls():
    other = score("student", 1, 0.1).model_copy(update={"metric": "KID"})
    found = [
        score("student", 4, 2.0),
        score("student", 1, 9.0),
        score("student", 4, 1.9, guidance=1.5, temperature=1.1),
        score("student", 57.5, 1.0, solver="dopri5"),
        other,
    ]
    assert measured_ways(found) == [
        SamplerSetting("euler", "uniform", 1, 1.0, 9.0),
        SamplerSetting("euler", "uniform", 4, 1.5, 1.9, 1.1),
        SamplerSetting("euler", "uniform", 4, 1.0, 2.0),
    ]
    assert measured_ways([]) == []


def test_recommended_is_the_fewest_calls_that_are_nearly_the_best():
    values = {1: 9.0, 2: 3.0, 4: 2.1, 8: 2.0, 16: 2.05}
    ways = [SamplerSetting("euler", "uniform", nfe, 1.0, value) for nfe, value in values.items()]
    assert ways[recommended(ways, "FD-classifier")].nfe == 4  # 2.1 <= 1.1 * 2.0
    assert ways[recommended(ways, "precision")].nfe == 1
    assert ways[recommended([SamplerSetting("euler", "uniform", nfe) for nfe in values], None)].nfe == 16
