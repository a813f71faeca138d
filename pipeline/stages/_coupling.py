"""The coupling that a recipe asks for, as the object that is asked for z."""

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
    refine_to_convergence,
)
from pipeline.data.examples import Examples
from pipeline.outputs import networks
from pipeline.outputs.banks import BANK
from pipeline.outputs.potentials import load_potentials
from pipeline.recipe import sections as configs
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from pipeline.runtime.seeds import derive
from pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.training.flow_batches import calls_ahead
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.bank import Bank
from storage.errors import DamageError

log = logging.getLogger(__name__)
KEPT = 2**26  # numbers of LOOM's noises that are kept in memory, 256 MiB; more are made again each time


def coupling_of_config(job: Job, examples: Examples, device: torch.device) -> Coupling | Semidiscrete:
    """The coupling of the recipe's section, with its inputs from earlier stages."""
    return _COUPLINGS[type(job.config.coupling)](job, examples, device)


def normalized(job: Job, examples: Examples, device: torch.device) -> Coupling:
    """The teacher's noise, from its bank or from the teacher itself; some of it replaced if asked."""
    wish: configs.NFM = job.config.coupling
    bank = teacher_bank(job)
    if wish.online:
        teacher = job.inputs["teacher"]
        coupling: Coupling = Online(
            networks.load_network(teacher, device),
            teacher.config["noise_std"],
            bank.facts.sigma_f,
            ranks.rank(),
            ranks.world(),
        )
    else:
        coupling = Banked(torch.from_numpy(bank.load()["z"]))
    return Mixed(coupling, wish.independent) if wish.independent else coupling


def teacher_bank(job: Job) -> Bank:
    """The bank of the couplings stage, its warnings said once more."""
    artifact: Artifact = job.inputs["bank"]
    bank = Bank.open(artifact.path(BANK))
    if bank.facts.producer != artifact.inputs["teacher"]:
        raise DamageError(
            str(artifact.path(BANK)),
            "it was made by another teacher than its manifest names",
            "Run with --force bank to make it anew",
        )
    for warning in artifact.metrics["warnings"]:
        log.warning("couplings: %s", warning)
    return bank


def loom(job: Job, examples: Examples, device: torch.device) -> Loom:
    """LOOM-CFM's assignment: fresh or the teacher's, refined during training, before it, or never."""
    wish: configs.Loom = job.config.coupling
    seed = derive(job.config.seed, "student", "loom")
    if wish.start == "bank":
        noises = BankNoises(teacher_bank(job).load()["z"])
    else:
        noises = seeded_noises(seed, examples, wish.noises_per_image)
    batch = job.config.training.batch
    coupling = Loom(noises, wish.refine == "training", wish.interpolate, calls_ahead(batch, wish.batch or batch))
    if wish.refine == "before":
        coupling.load_state(_converged(job, examples, Loom(noises), wish.batch or batch, seed))
    return coupling


def seeded_noises(seed: int, examples: Examples, caches: int) -> Noises:
    """Fresh noises, `caches` for each image: in memory where they fit."""
    noises = SeededNoises(seed, len(examples), examples.shape, caches)
    return noises.in_memory() if caches * len(examples) * math.prod(examples.shape) <= KEPT else noises


def _converged(job: Job, examples: Examples, coupling: Loom, batch: int, seed: int) -> dict[str, Tensor]:
    """The state once hardly any image changes its noise. Every epoch is saved; all ranks sweep alike."""
    wish: configs.Loom = job.config.coupling
    folder, before = job.work / "refinement", []
    found = ranks.agreed(load_checkpoint(folder))  # as the first rank sees it, before it writes the next
    if found is not None:
        coupling.load_state(found[0])
        before = found[1]["history"]
    history = before
    for history in refine_to_convergence(examples, coupling, batch, seed, wish.epochs, wish.tolerance, before):
        line = history[-1]
        log.info(
            "epoch %d of refinement: %.1f%% reassigned, transport cost %.4f",
            line["epoch"],
            100 * line["reassigned"],
            line["cost_after"],
        )
        if ranks.first():
            save_checkpoint(folder, len(history), coupling.state(), {"history": history})
        job.progress(len(history), wish.epochs, "epochs of refinement", reassigned=line["reassigned"])
        job.pause_point()
    if ranks.first():
        write_json(job.out / "refinement.json", history)
    return coupling.state()


def semidiscrete(job: Job, examples: Examples, device: torch.device) -> Semidiscrete:
    """Noise, and for each the image whose cell it falls to, sought on `device`: every search reads all images."""
    for warning in job.inputs["potentials"].metrics["warnings"]:
        log.warning("potentials: %s", warning)
    every = torch.arange(len(examples))
    return Semidiscrete(
        examples.pixels(every).to(device), examples.classes(every), load_potentials(job.inputs["potentials"])
    )


_COUPLINGS: dict[type[configs.Config], Callable[[Job, Examples, torch.device], Coupling | Semidiscrete]] = {
    configs.Independent: lambda job, examples, device: Independent(),
    configs.MinibatchOT: lambda job, examples, device: MinibatchOT(),
    configs.Entropic: lambda job, examples, device: Entropic(job.config.coupling.regularisation),
    configs.Semidiscrete: semidiscrete,
    configs.Loom: loom,
    configs.NFM: normalized,
}
