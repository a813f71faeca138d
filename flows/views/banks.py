"""Finding a bank by what a user calls it, and looking into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows.session import recipes
from flows.session.recorded import finished_nodes
from pipeline.data.examples import Examples
from pipeline.metrics import gaussianity
from pipeline.outputs.images import IMAGES
from pipeline.recipe.load import nearest
from pipeline.reporting.pictures import bank_picture, png
from storage.artifact import MANIFEST, Artifact
from storage.atomic import write_bytes
from storage.bank import Bank, Survey, banks_below, survey
from storage.errors import InputError
from storage.imageset import ImageSet
from storage.store import Store

SAMPLED = 4096  # pairs that are looked at
BUFFER = 2**28  # bytes; a larger bank is sampled by a window of it


@dataclass(frozen=True)
class Found:
    """A bank on disk, what the artifact that holds it measured, and where its images are, if they are here."""

    survey: Survey
    measured: dict[str, Any]
    images: Path | None
    producer: str


@dataclass(frozen=True)
class Sample:
    """Random pairs of a bank: z and, where its images are known, x, (n, C, H, W) float32."""

    z: Tensor
    x: Tensor | None


def find(name: str, overrides: Sequence[str] = ()) -> Found:
    """The bank of a recipe's couplings, of an artifact, or at a path. Raises InputError with what there is instead."""
    store = Store()
    known = {item.fingerprint: item for item in store.artifacts() if isinstance(item, Artifact)}
    root, holder = _locate(name, overrides, store, known)
    banks = banks_below(root)
    if not banks:
        raise InputError("bank inspect takes what holds a bank", str(root), "Give the artifact of such a stage.")
    found = survey(banks[0])
    producer = known.get(found.facts.producer)
    title = found.facts.producer[:12] + (f" ({producer.stage}/{producer.root.name})" if producer else "")
    # The images are those of the bank's own inputs; a bank elsewhere was encoded by a teacher, which knows them too.
    data = next(
        (
            known[item.inputs["data"]]
            for item in (holder, producer)
            if item is not None and item.inputs.get("data") in known
        ),
        None,
    )
    images = data.path(IMAGES) if data is not None and found.facts.kind == "encoded" else None
    return Found(found, holder.metrics if holder is not None else {}, images, title)


def sample(found: Found) -> Sample | None:
    """Pairs from all over the bank; None for one that is not finished. Raises DamageError for one that is not whole."""
    if not found.survey.finished:
        return None
    bank = Bank.open(found.survey.path)
    least = 2 * bank.chunk * sum(bank.row_bytes.values())
    pairs = next(bank.reader(SAMPLED, 0, buffer_bytes=max(BUFFER, least)).epoch(0))
    z, x = torch.from_numpy(pairs["z"]).float(), None
    if "x" in pairs:
        x = torch.from_numpy(pairs["x"]).float()
    elif found.images is not None:
        images = ImageSet.open(found.images)
        examples = Examples.of(images, flips=bank.facts.flips)
        x = examples.pixels(torch.from_numpy(pairs["index"]) % bank.facts.rows)
    return Sample(z, x)


def diagnose(found: Found, sample: Sample | None) -> dict[str, Any] | None:
    """The figures of `gaussianity.diagnose` and its warnings: those of the artifact, else of the sample."""
    if sample is None:
        return None
    figures = found.measured.get("gaussianity")
    if not figures:
        figures = gaussianity.diagnose(sample.z, None, sample.z if sample.x is None else sample.x)
        if sample.x is None:
            del figures["transport_cost"]  # that of z to itself
    return {**figures, "warnings": gaussianity.verdict(figures)}


def draw(sample: Sample, out: Path) -> None:
    """The picture of the bank, as a PNG."""
    write_bytes(out, png(bank_picture(sample.z, sample.x)))


def _locate(
    name: str, overrides: Sequence[str], store: Store, known: dict[str, Artifact]
) -> tuple[Path, Artifact | None]:
    """The directory to look in, and the artifact that it is part of."""
    if recipes.known(name):
        node = finished_nodes(recipes.load(name, overrides), store).get("bank")
        if node is None:
            raise InputError("bank inspect takes a recipe that has a bank", name, "See `flowctl plan`.")
        artifact = store.find(node.name, node.fingerprint)
        if artifact is not None:
            return artifact.root, artifact
        work = store.work(node.name, node.fingerprint) / "out"
        if not banks_below(work):
            raise InputError("The bank must have been begun", name, f"Run: flowctl run {name} --until bank")
        return work, None
    if Path(name).is_dir():
        path = Path(name).absolute()
        holder = next((folder for folder in (path, path.parent) if (folder / MANIFEST).is_file()), None)
        return path, None if holder is None else Artifact.read(holder)
    names = {f"{item.stage}/{item.root.name}": item for item in known.values()}
    hits = [
        item
        for title, item in names.items()
        if name.rstrip("/") in (title, item.root.name) or (len(name) >= 6 and item.fingerprint.startswith(name))
    ]
    if len(hits) == 1:
        return hits[0].root, hits[0]
    if hits:
        raise InputError("A name must mean one artifact", name, "Give more of its fingerprint.")
    raise InputError(
        "bank inspect takes a recipe, an artifact or a bank's directory",
        name,
        nearest(name, [*recipes.names(), *names]),
    )
