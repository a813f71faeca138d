"""Can a second flow carry N(0, I) to the law of z, and lower the floor of an NFM student?

    python -m benchmarks.prior nfm-digits          # after `flowctl run nfm-digits`

The student is trained on z of its images and sampled from N(0, I), which is not the law of z. The correction is a
network like the student's, trained on the variance-preserving path y_s = cos(pi s / 2) z + sin(pi s / 2) eps from z to
noise. For a Gaussian z independent of eps its velocity is 0, so that it changes nothing. The pairing `ot` exchanges
each batch's eps within a class so that they are nearest to their z. Samples start from N(0, I), take the correction's
calls and then the student's. Writes results/prior-RECIPE.{json,md}.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import flowctl
from benchmarks.publish import publish
from benchmarks.timing import processor
from flows.api import Recipe
from pipeline.couplings import assignment
from pipeline.data.levels import as_stored
from pipeline.flow_matching.sampling import class_labels
from pipeline.flow_matching.solvers import Euler, Guided, Velocity, integrate
from pipeline.flow_matching.times import time_grid
from pipeline.metrics import Moments, features, frechet_distance
from pipeline.outputs import networks
from pipeline.outputs.images import IMAGES
from pipeline.outputs.reference import load_features, load_reference
from pipeline.training.learning_rate import learning_rate
from storage.artifact import Artifact
from storage.imageset import ImageSet

RESULTS = Path(__file__).with_name("results")
CORRECTIONS, CALLS = (1, 2, 4), (1, 2, 4, 8, 31)
QUARTER = math.pi / 2
SAMPLES, BATCH, SEED = 4000, 500, 7


def on_path(z: Tensor, noise: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The point of the variance-preserving path at times s (B,), and its velocity dy/ds, both like z (B, C, H, W)."""
    angle = (QUARTER * s)[:, None, None, None]
    return angle.cos() * z + angle.sin() * noise, QUARTER * (angle.cos() * noise - angle.sin() * z)


def train(recipe: Recipe, images: ImageSet, pairing: str) -> nn.Module:
    """The correction: the student's network and training, on noise and z of the bank. Its average is returned."""
    training = recipe.settings.student.training
    network = networks.build(networks.student_architecture(recipe.settings.student, images), SEED)
    average = deepcopy(network).requires_grad_(False)
    decay = 0.5 ** (training.batch / training.ema)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=training.weight_decay, foreach=True)
    generator = torch.Generator().manual_seed(SEED)
    batches = iter(recipe.bank(training.batch, seed=SEED))
    for step in range(1, training.steps + 1):
        batch = next(batches)
        z, labels = batch["z"], batch["labels"]
        noise = torch.randn(z.shape, generator=generator)
        if pairing == "ot":
            noise = noise[assignment(z, noise, labels)]
        s = torch.rand(len(z), generator=generator)
        y, velocity = on_path(z, noise, s)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step * training.batch)
        optimizer.zero_grad()
        (network(y, s, labels) - velocity).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), training.clip or math.inf)
        optimizer.step()
        kept = min(decay, step / (step + 10))
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - kept)
    return average.eval()


def walked(field: Velocity, start: Tensor, calls: int) -> Tensor:
    """The end of `calls` Euler steps of equal length from time 1 to 0."""
    return integrate(field, start, time_grid("uniform", calls), Euler()) if calls else start


class Judge:
    """Distances of samples to the training and to the held-out images, in the recipe's features."""

    def __init__(self, images: ImageSet, reference: Artifact) -> None:
        self.levels = images.originals.grey_levels
        self.network, self.train = load_reference(reference, images.originals, torch.device("cpu"))
        self.held_out = load_features(reference, "test").moments

    def distances(self, samples: Tensor) -> tuple[float, float]:
        generated = Moments.of(torch.cat([features(self.network, part) for part in self._stored(samples)]))
        return frechet_distance(self.train, generated), frechet_distance(self.held_out, generated)

    def _stored(self, samples: Tensor) -> Iterator[Tensor]:
        for part in samples.split(BATCH):
            yield as_stored(part, self.levels)


@torch.no_grad()
def scores(
    student: nn.Module, images: ImageSet, correction: nn.Module | None, corrections: int, judge: Judge
) -> dict[str, Any]:
    """Both distances by the student's calls, after `corrections` calls of the correction."""
    noise = torch.randn((SAMPLES, *images.shape), generator=torch.Generator().manual_seed(SEED))
    labels = class_labels(torch.arange(SAMPLES), len(images.classes or ()))
    classes = [None] * (SAMPLES // BATCH) if labels is None else labels.split(BATCH)
    starts = [
        start if correction is None else walked(Guided(correction, c), start, corrections)
        for start, c in zip(noise.split(BATCH), classes, strict=True)
    ]
    rows = {}
    for calls in CALLS:
        parts = [walked(Guided(student, c), start, calls) for start, c in zip(starts, classes, strict=True)]
        rows[str(calls)] = judge.distances(torch.cat(parts))
    moved = torch.cat(starts) - noise
    return {"calls": corrections, "moved": moved.square().mean().sqrt().item(), "distances": rows}


def markdown(tree: dict[str, Any]) -> str:
    lines = [
        f"# A correction of the prior of {tree['recipe']}",
        "",
        f"`{tree['command']}` on {tree['processor']}. FD-classifier to the training / held-out images, {SAMPLES:,} "
        "samples, by the student's calls; the correction's calls come on top. Moved: root mean square of what the "
        "correction adds to N(0, I).",
        "",
        "| pairing | correction's calls | moved | " + " | ".join(str(calls) for calls in CALLS) + " |",
        "|---|---:|---:|" + "---:|" * len(CALLS),
    ]
    for row in tree["rows"]:
        cells = " | ".join(f"{train:.3f} / {held:.3f}" for train, held in row["distances"].values())
        lines.append(f"| {row['pairing']} | {row['calls']} | {row['moved']:.3f} | {cells} |")
    seconds = ", ".join(f"{pairing} {value:,.0f} s" for pairing, value in tree["seconds"].items())
    return "\n".join([*lines, "", f"Processor time of each training: {seconds}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--pairings", type=lambda text: text.split(","), default=["independent", "ot"])
    words = parser.parse_args()
    recipe = flowctl.load(words.recipe)
    artifacts, student = recipe.artifacts(), recipe.network()
    images = ImageSet.open(artifacts["data"].path(IMAGES))
    judge = Judge(images, artifacts["reference"])
    rows, seconds = [{"pairing": "none", **scores(student, images, None, 0, judge)}], {}
    for pairing in words.pairings:
        begin = time.process_time()
        correction = train(recipe, images, pairing)
        seconds[pairing] = time.process_time() - begin
        rows += [{"pairing": pairing, **scores(student, images, correction, calls, judge)} for calls in CORRECTIONS]
    command = " ".join(["python -m benchmarks.prior", *sys.argv[1:]])
    tree = {"command": command, "processor": processor(), "recipe": words.recipe, "rows": rows, "seconds": seconds}
    publish(RESULTS, f"prior-{recipe.name}", tree, markdown(tree))
    print(markdown(tree))


if __name__ == "__main__":
    main()
