"""The potentials of semidiscrete optimal transport: which training image each noise belongs to."""

from __future__ import annotations

import torch
from safetensors.torch import save

from pipeline.couplings import fit_potentials
from pipeline.data.examples import Examples
from pipeline.outputs.images import images_of
from pipeline.outputs.potentials import POTENTIALS
from pipeline.outputs.results import PotentialsResult
from pipeline.recipe.sections import Potentials as Config
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training import Clock
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from storage.atomic import write_bytes

WARNING_FACTOR = 1.5  # the check that ends a fit has a standard deviation of a fifth of the tolerance


def run(job: Job) -> PotentialsResult:
    device = prepare(job.compute)
    config: Config = job.config
    data = job.inputs["data"]
    images = images_of(job)
    examples = Examples.of(images, flips=data.config["flips"])
    rows = torch.arange(len(examples))
    points, labels = examples.pixels(rows).to(device), examples.classes(rows)
    folder, saving = job.work / "checkpoints", Clock(job.compute.checkpoint_seconds)
    found = load_checkpoint(folder)
    classes = 1 if labels is None else len(labels.unique())

    def on_step(ascent) -> None:
        finished, steps = int(ascent.done.sum()), int(ascent.steps.sum())
        chi2 = ascent.divergence[ascent.divergence.isfinite()]
        job.progress(finished, classes, "classes", steps=steps, divergence=float(chi2[-1]) if len(chi2) else None)
        if saving.due() or job.stop:
            with saving:
                save_checkpoint(folder, steps, ascent.tensors(), {})
                job.saved(finished, classes, "classes")
        job.pause_point()

    potentials = fit_potentials(
        points,
        labels,
        seed=derive(config.seed, "potentials"),
        batch=config.batch,
        passes=config.passes,
        tolerance=config.tolerance,
        on_step=on_step,
        state=None if found is None else found[0],
    )
    write_bytes(job.out / POTENTIALS, save(potentials.tensors()))
    divergence = float(potentials.divergence.max())
    missed = (
        f"chi^2 of the masses is {divergence:.3g} after {config.passes:g} passes, above {config.tolerance:g}: "
        "images come up unevenly; allow more passes"
    )
    return PotentialsResult(
        points=len(points),
        steps=int(potentials.steps.sum()),
        divergence=divergence,
        warnings=(missed,) if divergence > WARNING_FACTOR * config.tolerance else (),
    )
