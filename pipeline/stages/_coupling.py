"""From the coupling of a recipe to the object that gives z."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.couplings import (
    Banked,
    BankNoises,
    Coupling,
    Entropic,
    Independent,
    Loom,
    MinibatchOT,
    Mixed,
    Noises,
    Online,
    SeededNoises,
    Semidiscrete,
    Softened,
    class_order,
    refine_to_convergence,
)
from pipeline.data.examples import Examples
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK, open_arrays
from pipeline.outputs.potentials import load_potentials
from pipeline.outputs.whitening import standard_of
from pipeline.recipe import sections as configs
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.flow_batches import STEPS_AHEAD, blocks_ahead
from pipeline.training.truncated import Truncated, without_longest
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.bank import Bank
from storage.errors import DamageError

log = logging.getLogger(__name__)
NOISES_IN_MEMORY = 2**26  # numbers of LOOM's noises, 256 MiB; of more, each is computed at every use


def coupling_of_config(job: Job, examples: Examples, device: torch.device) -> Coupling | Semidiscrete:
    """The coupling of the recipe's section, with its inputs from earlier stages."""
    return _COUPLINGS[type(job.config.coupling)](job, examples, device)


def normalized(job: Job, examples: Examples, device: torch.device) -> Coupling:
    """NFM: the teacher's noise, from its bank or by the teacher itself, softened or partly replaced if the section says
    so."""
    config: configs.NFM = job.config.coupling
    bank = teacher_bank(job)
    coupling: Coupling
    if config.online:
        teacher = job.inputs["teacher"]
        flow, eta = networks.load_flow(teacher, device), teacher.config["noise_std"]
        coupling = Online(flow, eta, standard_of(job.inputs["bank"], device), ranks.rank(), ranks.world())
    else:
        (pairs,) = open_arrays([bank], job.compute)
        coupling = Banked(pairs.z, ranks.rank(), ranks.world())
        if config.drop_longest:
            images = lambda rows: examples.pixels(torch.from_numpy(rows)).numpy()  # noqa: E731
            coupling = Truncated(examples, coupling, without_longest(job, bank, config.drop_longest, images))
    if config.soften:
        coupling = Softened(coupling, config.soften)
    return Mixed(coupling, config.independent) if config.independent else coupling


def truncated(coupling: Coupling | Semidiscrete) -> Truncated | None:
    """The pairs that are left of the bank, which are also the examples; None for a coupling of all pairs."""
    while isinstance(coupling, Mixed | Softened):
        coupling = coupling.coupling
    return coupling if isinstance(coupling, Truncated) else None


def teacher_bank(job: Job) -> Bank:
    """The bank stage's bank; its warnings are logged again.

    Raises:
        DamageError: the bank is of another teacher than its artifact's.
    """
    artifact: Artifact = job.inputs["bank"]
    bank = Bank.open(artifact.path(BANK))
    if bank.facts.producer != artifact.inputs["teacher"]:
        raise DamageError(
            str(artifact.path(BANK)),
            "its teacher is not the one that the manifest names",
            "Run with --force bank to write it again",
        )
    for warning in artifact.metrics["warnings"]:
        log.warning("bank: %s", warning)
    return bank


def loom(job: Job, examples: Examples, device: torch.device) -> Loom:
    """LOOM-CFM's assignment: from fresh or the teacher's noises, refined during training, before it, or never."""
    config: configs.Loom = job.config.coupling
    seed = derive(job.seed, "student", "loom")
    if config.start == "bank":
        (pairs,) = open_arrays([teacher_bank(job)], job.compute)
        noises: Noises = BankNoises(pairs.z)
    else:
        seeded = SeededNoises(seed, len(examples), examples.shape, config.noises_per_image)
        few = config.noises_per_image * len(examples) * math.prod(examples.shape) <= NOISES_IN_MEMORY
        noises = seeded.in_memory() if few else seeded
    training_batch = job.config.training.batch
    batch = config.batch or training_batch
    coupling = Loom(
        noises,
        config.refine == "training",
        config.interpolate,
        blocks_ahead(training_batch, batch, STEPS_AHEAD if noises.streamed else 1),
        config.within_classes,
    )
    if config.refine == "before":
        refined = Loom(noises, within_classes=config.within_classes)
        converged = _converged(job, examples, refined, batch, seed)
        # What the refinement counted is in its own file; epochs.json is of the training.
        coupling.load_state(converged | {"totals": torch.zeros_like(converged["totals"])})
    return coupling


def _converged(job: Job, examples: Examples, coupling: Loom, batch: int, seed: int) -> dict[str, Tensor]:
    """The state after refinement to convergence. Every epoch is saved; all ranks do the same sweeps."""
    config: configs.Loom = job.config.coupling
    folder, done = job.work / "refinement", []
    checkpoint = ranks.agreed(load_checkpoint(folder))  # the first rank's view, before it writes the next
    if checkpoint is not None:
        coupling.load_state(checkpoint[0])
        done = checkpoint[1]["history"]
    history = done
    for history in refine_to_convergence(examples, coupling, batch, seed, config.epochs, config.tolerance, done):
        epoch = history[-1]
        log.info(
            "epoch %d of refinement: %.1f%% reassigned, transport cost %.4f",
            epoch["epoch"],
            100 * epoch["reassigned"],
            epoch["cost_after"],
        )
        if ranks.first():
            save_checkpoint(folder, len(history), coupling.state(), {"history": history})
        job.progress(len(history), config.epochs, "epochs of refinement", reassigned=epoch["reassigned"])
        job.pause_point()
    if ranks.first():
        write_json(job.out / "refinement.json", history)
    return coupling.state()


def semidiscrete(job: Job, examples: Examples, device: torch.device) -> Semidiscrete:
    """Semidiscrete transport with the fitted potentials, across classes if they were. It searches on `device`, as every
    search reads all images."""
    potentials = job.inputs["potentials"]
    for warning in potentials.metrics["warnings"]:
        log.warning("potentials: %s", warning)
    points, labels = points_by_class(examples, potentials.config.get("within_classes", True), device)
    return Semidiscrete(points, labels, load_potentials(potentials), by_class=True)


def points_by_class(examples: Examples, within_classes: bool, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """All images (N, C, H, W) on the device in `class_order`, once; and in the order of the rows the classes (N,) that
    transport stays within, None where it does not."""
    rows = torch.arange(len(examples))
    labels = examples.classes(rows) if within_classes else None
    return examples.pixels_on(device, rows if labels is None else class_order(labels)), labels


_COUPLINGS: dict[type[configs.Config], Callable[[Job, Examples, torch.device], Coupling | Semidiscrete]] = {
    configs.Independent: lambda job, examples, device: Independent(),
    configs.MinibatchOT: lambda job, examples, device: MinibatchOT(within_classes=job.config.coupling.within_classes),
    configs.Entropic: lambda job, examples, device: Entropic(
        job.config.coupling.regularisation, job.config.coupling.within_classes
    ),
    configs.Semidiscrete: semidiscrete,
    configs.Loom: loom,
    configs.NFM: normalized,
}
