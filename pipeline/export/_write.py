"""Write one finished network into a directory that needs neither the store nor the pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.load import NETWORK, SAMPLER, WEIGHTS, load
from pipeline.export._card import card
from pipeline.export._facts import sampler_facts, text
from pipeline.export._folder import CARD, PICTURE, check_place, published
from pipeline.export._onnx import ONNX, require_onnx, write_onnx
from pipeline.export._subject import Subject
from pipeline.flow_matching.sampling import class_labels, starting_noise
from pipeline.outputs.images import AUTOENCODER, decoder
from pipeline.reporting.pictures import grid, png
from pipeline.runtime.seeds import derive
from storage.artifact import Artifact
from storage.atomic import sha256_file, write_bytes, write_text
from storage.errors import DamageError, UsageError

SHOWN = 64  # images in the picture


def export(
    subject: Subject,
    out: Path,
    onnx: bool = False,
    force: bool = False,
    device: torch.device | str = "cpu",
    batch: int = 64,
    writing: Callable[[str], None] = lambda file: None,
) -> Path:
    """Write the network, its sampler settings, its card and a picture to `out`, whole or not at all.

    The picture is sampled from the written files, read with `models.load`, from the noise of `flowctl sample`.

    Args:
        subject: what to export.
        out: the directory, new or empty.
        onnx: write the velocity network in ONNX too, and check it.
        force: replace an earlier export.
        device: that samples the picture.
        batch: images at once.
        writing: called with the name of each file or folder before it is written.

    Returns:
        `out`.

    Raises:
        UsageError: a directory that must not be replaced, a teacher or a missing package for ONNX.
        MissingError: no such average.
        DamageError: a file of the artifact has changed.
        OnnxError: ONNX differs from the network.
    """
    check_place(out, force)
    if onnx:
        if subject.model == "teacher":
            raise UsageError(
                "--onnx needs a velocity network",
                "teacher",
                "Export the student, or leave --onnx out: the loop that decodes a flow has no fixed length.",
            )
        require_onnx()
    network, facts = subject.network(), sampler_facts(subject)
    with published(out, force) as folder:
        writing(WEIGHTS)
        _copy(subject.artifact, subject.weights, folder / WEIGHTS)
        writing(NETWORK)
        _copy(subject.artifact, NETWORK, folder / NETWORK)
        if facts["latents"]:
            writing(AUTOENCODER)
            data = subject.artifacts["data"]
            for file in data.path(AUTOENCODER).iterdir():
                _copy(data, f"{AUTOENCODER}/{file.name}", folder / AUTOENCODER / file.name)
        writing(SAMPLER)
        write_text(folder / SAMPLER, text(facts))
        checked = None
        if onnx:
            writing(ONNX)
            checked = write_onnx(network, folder / ONNX)
        kind = json.loads((folder / NETWORK).read_bytes())["kind"]
        writing(CARD)
        write_text(folder / CARD, card(subject, facts, kind, out.absolute().name, checked))
        writing(PICTURE)
        write_bytes(folder / PICTURE, png(grid(_samples(subject, folder, device, batch), 8)))
    return out


def _copy(artifact: Artifact, name: str, to: Path) -> None:
    """A file of an artifact with the bytes that were recorded."""
    to.parent.mkdir(exist_ok=True)
    shutil.copyfile(artifact.path(name), to)
    if sha256_file(to) != artifact.digest(name):
        raise DamageError(
            str(artifact.path(name)),
            "its SHA-256 is not the recorded one",
            f"Rerun the stage: --force {artifact.stage}.",
        )


def _samples(subject: Subject, folder: Path, device: torch.device | str, batch: int) -> Tensor:
    """(64, C, H, W): from the noise and the classes of `flowctl sample`, by the recommended way to sample."""
    sampler, decode = load(folder, device), decoder(subject.artifacts["data"], device)
    images = []
    for rows in torch.arange(SHOWN).split(batch):
        z = starting_noise(derive(0, "sample"), rows, sampler.shape, device)
        images.append(decode(sampler(z, class_labels(rows, sampler.classes, device))).cpu())
    return torch.cat(images)
