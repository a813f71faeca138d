"""Samples from encoded held-out images: an affine teacher and a student that is its inverse give the noisy images."""

from types import SimpleNamespace

import numpy as np
import torch

from pipeline.evaluation import noise_cost
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.metrics import Moments, Pixels
from pipeline.recipe.sections import Compute, Evaluation, Sweep
from pipeline.runtime.job import Job, Progress

ETA, SIGMA, IMAGES, CPU = 0.05, 3.0, 5, torch.device("cpu")
LABELS = np.arange(IMAGES) % 3


class Affine:
    """z = 2 y + class."""

    def encode(self, y, labels):
        return 2 * y + labels[:, None, None, None]


def test_samples_are_held_out_images_in_turn_with_their_classes_and_fresh_noise(tmp_path, monkeypatch):
    levels = np.random.default_rng(0).integers(0, 17, (IMAGES, 1, 4, 4), dtype=np.uint8)
    images = SimpleNamespace(test=SimpleNamespace(images=levels, labels=LABELS), levels=17)
    inputs = {
        "teacher": SimpleNamespace(config={"noise_std": ETA}),
        "bank": SimpleNamespace(metrics={"sigma_f": SIGMA}),
    }
    sweeps = (Sweep(nfe=(1,)), Sweep(nfe=(1,), temperature=1.1), Sweep(nfe=(2,), temperature=1.2))
    config = Evaluation(seed=3, samples=16, student=sweeps)
    job = Job("evaluation", config, inputs, tmp_path, Compute(device="cpu"), Progress("evaluation", tmp_path))

    def samplers(job, start, held_out, device):
        def inverse(rows, labels):
            return (SIGMA * start(rows) - labels[:, None, None, None]) / 2, 1.0

        # Encoded noise is not scaled, and each sampler is used once.
        assert job.config.student == (Sweep(nfe=(1,)), Sweep(nfe=(2,)))
        yield SamplerUnderTest("teacher", "inverse", 0, {}, None)
        yield SamplerUnderTest("student", "euler", 1, {}, inverse)

    monkeypatch.setattr(noise_cost, "samplers", samplers)
    monkeypatch.setattr(noise_cost.networks, "load_network", lambda artifact, device: Affine())
    evaluator = Evaluator(
        Pixels(), Moments.of(torch.randn(50, 16)), None, 17, 4, CPU, {"metric": "FD-pixels"}, lambda x: x
    )
    [(encoded, sampler)] = noise_cost.noise_cost_samplers(job, images, evaluator, CPU)
    assert sampler.model == "student" and encoded.protocol["start"] == "z of 5 held-out images in turn"

    rows = torch.arange(12)  # of 16
    x, _ = sampler.make(rows, encoded.labels[:12])
    clean = torch.from_numpy(levels).float() / 8 - 1
    nearest = (x[:, None] - clean[None]).square().flatten(2).mean(2).argmin(1)
    assert sorted(nearest[:IMAGES].tolist()) == list(range(IMAGES))
    assert torch.equal(nearest, nearest[rows % IMAGES])
    assert torch.equal(encoded.labels[:12], torch.from_numpy(LABELS)[nearest])
    eps = (x - clean[nearest]) / ETA
    assert abs(float(eps.std()) - 1) < 0.15 and not torch.allclose(eps[0], eps[IMAGES])  # 192 values: 3 sigma
    assert torch.equal(sampler.make(rows[7:9], encoded.labels[7:9])[0], x[7:9])
