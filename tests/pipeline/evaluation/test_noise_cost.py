"""Samples from encoded held-out images: an affine teacher and a student that is its inverse give the noisy images."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from pipeline.data.levels import to_unit
from pipeline.evaluation import noise_cost
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.metrics import Moments, Pixels
from pipeline.recipe.sections import Compute, Evaluation, Sweep
from pipeline.runtime.job import Job, Progress

ETA, SIGMA, IMAGES, CPU = 0.05, 3.0, 400, torch.device("cpu")
LABELS = np.arange(IMAGES) % 3
SWEEPS = (Sweep(nfe=(1,)), Sweep(nfe=(1,), temperature=1.1), Sweep(nfe=(2,), temperature=1.2))


class Affine:
    """z = SIGMA * (y / 0.25 + class), so that z / SIGMA of images of deviation 0.25 is N(class, 1)."""

    def encode(self, y, labels):
        return SIGMA * (y / 0.25 + (0 if labels is None else labels[:, None, None, None]))


def noise_cost_of(tmp_path, monkeypatch, samples, classes=LABELS):
    """Pixels of the held-out images, and the entries of an evaluation of this many samples."""
    y = 0.25 * np.random.default_rng(0).standard_normal((IMAGES, 1, 4, 4))
    levels = np.clip(np.round((y + 1) / 2 * 255), 0, 255).astype(np.uint8)
    images = SimpleNamespace(test=SimpleNamespace(images=levels, labels=classes), levels=256)
    images.originals = images
    inputs = {
        "teacher": SimpleNamespace(config={"noise_std": ETA}),
        "bank": SimpleNamespace(metrics={"sigma_f": SIGMA}),
    }
    config = Evaluation(seed=3, samples=samples, student=SWEEPS)
    job = Job("evaluation", config, inputs, tmp_path, Compute(device="cpu"), Progress("evaluation", tmp_path))

    def samplers(job, start, held_out, device):
        yield SamplerUnderTest("teacher", "inverse", 0, {}, None)
        for sweep in job.config.student:

            def inverse(rows, labels, sweep=sweep):
                classes = 0 if start is gaussian or labels is None else labels[:, None, None, None]
                return 0.25 * (sweep.temperature * start(rows) - classes), 1.0

            for nfe in sweep.nfe:
                yield SamplerUnderTest("student", "euler", nfe, {}, inverse)

    def gaussian(rows):
        return torch.randn(IMAGES, 1, 4, 4, generator=torch.Generator().manual_seed(5))[rows]

    monkeypatch.setattr(noise_cost, "samplers", samplers)
    monkeypatch.setattr(noise_cost.networks, "load_network", lambda artifact, device: Affine())
    real = Moments.of(0.25 * torch.randn(500, 16, generator=torch.Generator().manual_seed(6)))
    evaluator = Evaluator(Pixels(), real, samples, None, 256, 64, CPU, {"metric": "FD-pixels"}, lambda x: x)
    evaluator = replace(evaluator, like_held_out=torch.ones(samples, dtype=torch.bool), suite=object())
    ways = samplers(job, gaussian, None, CPU)
    return job, to_unit(levels, 256), [*noise_cost.noise_cost_samplers(job, images, evaluator, ways, CPU)]


def test_half_of_the_held_out_images_are_encoded_with_their_classes(tmp_path, monkeypatch):
    _, pixels, entries = noise_cost_of(tmp_path, monkeypatch, samples=64)
    # Every sampler from N(0, I); encoded noise is not scaled, and each sampler is used once.
    assert [("start" in judge.protocol, sampler.nfe) for judge, sampler in entries] == [
        *((False, 1), (False, 1), (False, 2)),
        *((True, 1), (True, 2)),
    ]
    judge, sampler = entries[3]
    assert judge.samples == 64 == judge.protocol["n_fake"]
    # As many as the other half already, and no further metric: that would be against the training images.
    assert judge.like_held_out is None and judge.suite is None and judge.protocol["labels"]
    rows = torch.arange(64)
    x, _ = sampler.make(rows, judge.labels)
    clean = torch.from_numpy(pixels)
    nearest = (x[:, None] - clean[None]).square().flatten(2).mean(2).argmin(1)
    assert len(nearest.unique()) == 64 and torch.equal(judge.labels, torch.from_numpy(LABELS)[nearest])
    eps = (x - clean[nearest]) / ETA
    assert abs(float(eps.std()) - 1) < 0.1  # 1,024 values: 4 sigma
    assert torch.equal(sampler.make(rows[7:9], judge.labels[7:9])[0], x[7:9])


def test_images_without_classes_have_no_labels_in_the_protocol(tmp_path, monkeypatch):
    _, _, entries = noise_cost_of(tmp_path, monkeypatch, samples=64, classes=None)
    assert entries and all(judge.labels is None and "labels" not in judge.protocol for judge, _ in entries)


def test_samples_are_held_against_images_that_they_do_not_carry(tmp_path, monkeypatch):
    _, pixels, entries = noise_cost_of(tmp_path, monkeypatch, samples=1000)
    judge, sampler = entries[3]
    assert judge.samples == IMAGES // 2 and judge.held_out.count == judge.protocol["n_held_out"] == IMAGES // 2
    x, _ = sampler.make(torch.arange(judge.samples), judge.labels)
    carried = (x[:, None] - torch.from_numpy(pixels)[None]).square().flatten(2).mean(2).argmin(1).unique()
    others = torch.ones(IMAGES, dtype=torch.bool).index_fill(0, carried, False)
    mean = torch.from_numpy(pixels[others.numpy()]).flatten(1).double().mean(0)
    assert len(carried) == IMAGES // 2 and np.allclose(judge.held_out.mean, mean.numpy(), atol=1e-6)


def test_noise_that_is_gaussian_costs_nothing(tmp_path, monkeypatch):
    """z is N(0, I) but for its class, and the student exact: either start is as far from the other half."""
    job, _, entries = noise_cost_of(tmp_path, monkeypatch, samples=1000)
    gaussian, encoded = (entries[number][0].score(entries[number][1], job)[0][0].value_held_out for number in (0, 3))
    assert 0.7 < encoded / gaussian < 1.4  # 0.04 if held against the images that it carries
