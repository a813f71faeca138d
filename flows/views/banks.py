"""Find a bank by the name of its recipe, artifact or directory, and measure and draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows.session import recipes
from flows.session.commands import as_typed
from flows.session.recorded import finished_nodes
from flows.upkeep.references import named
from pipeline.data.examples import Examples
from pipeline.metrics import gaussianity
from pipeline.outputs.images import IMAGES
from pipeline.reporting.pictures import bank_picture, png
from pipeline.reporting.text.noise import verdict
from storage.artifact import MANIFEST, Artifact
from storage.atomic import write_bytes
from storage.bank import Bank, BatchReader, Survey, banks_below, survey
from storage.errors import MissingError, UsageError
from storage.imageset import ImageSet
from storage.store import Store

SAMPLED_PAIRS = 4096
BUFFER_BYTES = 2**28  # a larger bank is sampled from a window of this size


@dataclass(frozen=True)
class LocatedBank:
    """A bank on disk, the metrics of its artifact, and the path of its images where this store has them."""

    survey: Survey
    measured: dict[str, Any]
    images: Path | None
    producer: str


@dataclass(frozen=True)
class Sample:
    """Random pairs of a bank: z and, where its images are known, x, (n, C, H, W) float32."""

    z: Tensor
    x: Tensor | None


def find(name: str, overrides: Sequence[str] = ()) -> LocatedBank:
    """The bank of a recipe, of an artifact, or at a path. Raises MissingError where there is none."""
    store = Store()
    artifacts = {item.fingerprint: item for item in store.artifacts() if isinstance(item, Artifact)}
    root, holder = _locate(name, overrides, store)
    banks = banks_below(root)
    if not banks:
        raise MissingError("bank inspect needs a bank", str(root), "Name an artifact of the stage bank or pairs.")
    bank = survey(banks[0])
    producer = artifacts.get(bank.facts.producer)
    origin = bank.facts.producer[:12] + (f" ({producer.stage}/{producer.root.name})" if producer else "")
    # The images are an input of the bank's artifact; for a bank without one, they are an input of its teacher.
    data = next(
        (
            artifacts[item.inputs["data"]]
            for item in (holder, producer)
            if item is not None and item.inputs.get("data") in artifacts
        ),
        None,
    )
    images = data.path(IMAGES) if data is not None and bank.facts.kind == "encoded" else None
    return LocatedBank(bank, holder.metrics if holder is not None else {}, images, origin)


def sample(located: LocatedBank) -> Sample | None:
    """Random pairs of the bank; None while it is unfinished. Raises DamageError where shards are missing."""
    if not located.survey.finished:
        return None
    bank = Bank.open(located.survey.path)
    least = 2 * bank.chunk * sum(bank.row_bytes.values())
    pairs = next(BatchReader(bank, SAMPLED_PAIRS, 0, buffer_bytes=max(BUFFER_BYTES, least)).epoch(0))
    z, x = torch.from_numpy(pairs["z"]).float(), None
    if "x" in pairs:
        x = torch.from_numpy(pairs["x"]).float()
    elif located.images is not None:
        images = ImageSet.open(located.images)
        examples = Examples.of(images, flips=bank.facts.flips)
        x = examples.pixels(torch.from_numpy(pairs["index"]) % bank.facts.rows)
    return Sample(z, x)


def diagnose(located: LocatedBank, sample: Sample | None) -> dict[str, Any] | None:
    """The statistics of `gaussianity.diagnose` and their warnings: from the artifact, else from the sample."""
    if sample is None:
        return None
    if figures := located.measured.get("gaussianity"):
        return {**figures, "warnings": list(located.measured["warnings"])}
    figures = gaussianity.diagnose(sample.z, None, sample.z if sample.x is None else sample.x)
    if sample.x is None:
        del figures["transport_cost"]  # no images: it was computed from z to z
    return {**figures, "warnings": verdict(figures)}


def draw(sample: Sample, out: Path) -> None:
    """Write the picture of the bank as a PNG."""
    write_bytes(out, png(bank_picture(sample.z, sample.x)))


def _locate(name: str, overrides: Sequence[str], store: Store) -> tuple[Path, Artifact | None]:
    """The directory that holds the bank, and the artifact it belongs to."""
    if recipes.exists(name):
        node = finished_nodes(recipes.load(name, overrides), store).get("bank")
        if node is None:
            raise MissingError("bank inspect needs a recipe with a bank", name, f"Its stages: flowctl plan {name}.")
        artifact = store.find(node.name, node.fingerprint)
        if artifact is not None:
            return artifact.root, artifact
        work = store.work(node.name, node.fingerprint) / "out"
        if not banks_below(work):
            raise MissingError(
                "The bank must exist", name, f"Run: flowctl run {as_typed(name, overrides)} --until bank."
            )
        return work, None
    if overrides:
        raise UsageError("--set needs a recipe", name, "Leave it out, or name the recipe of the bank.")
    if Path(name).is_dir():
        path = Path(name).absolute()
        holder = next((folder for folder in (path, path.parent) if (folder / MANIFEST).is_file()), None)
        return path, None if holder is None else Artifact.read(holder)
    root = named(name, store, "bank inspect needs a recipe, an artifact or the directory of a bank", recipes.names())
    return root, Artifact.read(root)
