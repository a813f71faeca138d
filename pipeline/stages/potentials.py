"""The potentials of semidiscrete optimal transport: which training image each noise belongs to."""

from __future__ import annotations

from pipeline.couplings import Ascent, fit_potentials
from pipeline.data.examples import Examples
from pipeline.outputs.images import images_of
from pipeline.outputs.potentials import POTENTIALS
from pipeline.outputs.results import PotentialsResult
from pipeline.outputs.tensorfile import write_tensors
from pipeline.recipe.sections import Potentials as Config
from pipeline.runtime.device import prepare
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.stages._coupling import points_by_class
from pipeline.training import Clock
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint

WARNING_FACTOR = 1.5  # the check that ends a fit has a standard deviation of a fifth of the tolerance


def run(job: Job[Config]) -> PotentialsResult:
    """Fit one potential g_i for each training image x_i, within each class or across all.

    Inputs: `data` (training images, mirrored copies too where the data have them).

        maximise over g   E_z [ min_i |z - x_i|^2 - g_i ] + mean(g),        z ~ N(0, I)

    The semi-dual of semidiscrete optimal transport without regularisation (Mousavi-Hosseini et al. 2025, arXiv
    2509.25519), by averaged stochastic ascent; see `pipeline.couplings.fit_potentials`.

    Leaves: potentials.safetensors. The result has chi^2 of the cells' masses, measured on fresh noise, and a warning
    where it is too large.
    """
    device = prepare(job.compute)
    config = job.config
    data = job.inputs["data"]
    images = images_of(job)
    examples = Examples.of(images, flips=data.config["flips"])
    points, labels = points_by_class(examples, config.within_classes, device)
    folder, saving = job.work / "checkpoints", Clock(job.compute.checkpoint_seconds)
    checkpoint = load_checkpoint(folder)
    classes = 1 if labels is None else len(labels.unique())

    def on_step(ascent: Ascent) -> None:
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
        seed=derive(job.seed, "potentials"),
        batch=config.batch,
        passes=config.passes,
        tolerance=config.tolerance,
        on_step=on_step,
        state=None if checkpoint is None else checkpoint[0],
        by_class=True,
    )
    write_tensors(job.out / POTENTIALS, potentials.tensors())
    divergence = float(potentials.divergence.max())
    warning = (
        f"chi^2 of the cells' masses is {divergence:.3g} after at most {config.passes:g} passes, above the tolerance "
        f"{config.tolerance:g}: images are drawn unevenly. Allow more passes."
    )
    return PotentialsResult(
        points=len(points),
        steps=int(potentials.steps.sum()),
        divergence=divergence,
        warnings=(warning,) if divergence > WARNING_FACTOR * config.tolerance else (),
    )
