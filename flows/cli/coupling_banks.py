"""`bank inspect`: what is in a bank of couplings, and what it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import Json, Sets
from flows.cli.output import print_json, print_table

if TYPE_CHECKING:
    from flows.views.banks import Found


def inspect(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|ARTIFACT|PATH",
            help="A recipe, an artifact's name or the beginning of its fingerprint, or a bank's directory.",
        ),
    ],
    set_: Sets = None,
    out: Annotated[Path, typer.Option("--out", help="The picture, a PNG.")] = Path("couplings.png"),
    json_: Json = False,
) -> None:
    """The facts of a bank of couplings, how Gaussian its noise is and how far it carries, and a picture of it."""
    from flows.views import banks
    from storage.errors import InputError

    if out.suffix != ".png":
        raise InputError("--out ends in .png", str(out), "Choose such a name")
    found = banks.find(name, set_ or ())
    sample = banks.sample(found)
    diagnostics = banks.diagnose(found, sample)
    if sample is not None:
        banks.draw(sample, out)
    if json_:
        print_json(_facts(found) | {"diagnostics": diagnostics, "picture": None if sample is None else str(out)})
        return
    print_table(("BANK", str(found.survey.path)), _lines(found))
    if diagnostics is None:
        typer.echo("\nNot finished: the same command goes on with it, and then there is noise to look at.")
        return
    typer.echo()
    _print_noise(diagnostics)
    typer.echo(f"Picture: {out}")


def _facts(found: Found) -> dict[str, Any]:
    survey = found.survey
    return {
        "path": str(survey.path),
        "images": None if found.images is None else str(found.images),
        "finished": survey.finished,
        "bytes": survey.size,
        "arrays": list(survey.arrays),
        "shards": {"complete": survey.complete, "total": len(survey.facts.shards)},
        "facts": survey.facts.model_dump(mode="json"),
    }


def _lines(found: Found) -> list[tuple[str, str]]:
    from flows.session import words

    survey, facts = found.survey, found.survey.facts
    kind = {"encoded": "noise z of images, by a teacher", "generated": "images x of noise z, by a student"}[facts.kind]
    bits = "" if facts.mantissa_bits is None else f", {facts.mantissa_bits} mantissa bits, compressed"
    lines = [
        ("holds", f"{kind}: {', '.join(survey.arrays)}"),
        ("images", str(found.images or "not in this store")),
        (
            "pairs",
            f"{facts.rows:,} rows x {facts.draws} draws = {facts.pairs:,}"
            + (", mirror images are rows of their own" if facts.flips else ""),
        ),
        ("shape", " x ".join(map(str, facts.shape)) + f", {facts.dtype}{bits}"),
        ("shards", f"{survey.complete} of {len(facts.shards)} complete, {facts.shard:,} pairs each"),
        ("size", words.size(survey.size)),
        ("noise", "" if facts.noise_std is None else f"eta = {facts.noise_std:g}, sigma_f = {facts.sigma_f:.6g}"),
        ("solver", facts.solver or ""),
        ("producer", found.producer),
        ("seed", str(facts.seed)),
    ]
    if facts.kind == "generated":
        lines = [line for line in lines if line[0] != "images"]
    return [line for line in lines if line[1]]


def _print_noise(diagnostics: dict[str, Any]) -> None:
    """How Gaussian the noise is, what it costs to carry, and what to make of it."""
    rows = []
    for key, title in (
        ("train", "training images" if diagnostics.get("held_out") else "of the bank"),
        ("held_out", "held-out images"),
        ("true", "true noise"),
    ):
        part = diagnostics.get(key)
        if key == "true":
            part = {
                "n": diagnostics["train"]["n"],
                "mean": 0.0,
                "std": 1.0,
                "dimension_std": [1.0, 1.0, 1.0],
                "dimension_kurtosis": [0.0, 0.0, 0.0],
                "sliced_w2": diagnostics["train"]["floor"],
            }
        if part:
            low, _, high = part["dimension_std"]
            rows.append(
                (
                    title,
                    f"{part['n']:,}",
                    f"{part['mean']:.3f}",
                    f"{part['std']:.3f}",
                    f"{low:.2f} to {high:.2f}",
                    f"{part['dimension_kurtosis'][1]:.2f}",
                    f"{part['sliced_w2']:.4f}",
                )
            )
    print_table(("NOISE", "SAMPLES", "MEAN", "STD", "STD OF DIMENSIONS", "KURTOSIS", "SLICED W2"), rows)
    cost = diagnostics.get("transport_cost")
    if cost:
        typer.echo(
            f"Transport cost E|z - x|^2 / D: {cost['per_dimension']:.4g}; "
            f"noise drawn without regard to x: {cost['independent']:.4g}"
        )
    for key, title in (("two_sample", "z told from N(0, I)"), ("class_leak", "Class told from z alone")):
        if probe := diagnostics.get(key):
            typer.echo(
                f"{title}, by a small classifier: {probe['accuracy']:.1%} of {probe['decisions']:,} right; "
                f"chance {probe['chance']:.1%} ± {probe['standard_error']:.1%}"
            )
    for warning in diagnostics["warnings"]:
        typer.echo(f"warning: {warning}")
