"""`bank inspect`: the facts, the Gaussianity and a picture of a bank of noises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.errors import reports_errors
from flows.cli.options import Json, Sets
from flows.cli.output import check_out, print_json, print_table

if TYPE_CHECKING:
    from flows.views.banks import LocatedBank

bank = typer.Typer(no_args_is_help=True, help="Inspect banks of stored noises.")


@bank.command()
@reports_errors
def inspect(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|ARTIFACT|PATH",
            help="A recipe, the name of an artifact or the start of its fingerprint, or a bank's directory.",
        ),
    ],
    set_: Sets = None,
    out: Annotated[Path, typer.Option("--out", help="Picture to write, a PNG.")] = Path("bank.png"),
    json_: Json = False,
) -> None:
    """Show the facts of a bank, how Gaussian its noise is and its transport cost, and draw it."""
    from flows.views import banks
    from storage.errors import UsageError

    if out.suffix != ".png":
        raise UsageError("--out must end in .png", str(out), "Change the file name.")
    check_out(out)
    located = banks.find(name, set_ or ())
    sample = banks.sample(located)
    diagnostics = banks.diagnose(located, sample)
    if sample is not None:
        banks.draw(sample, out)
    if json_:
        print_json(_facts(located) | {"diagnostics": diagnostics, "picture": None if sample is None else str(out)})
        return
    print_table(("BANK", str(located.survey.path)), _lines(located))
    if diagnostics is None:
        typer.echo("\nNot finished. Run the recipe again to complete it; statistics need a complete bank.")
        return
    typer.echo()
    _print_noise(diagnostics)
    typer.echo(f"Picture: {out}")


def _facts(located: LocatedBank) -> dict[str, Any]:
    survey = located.survey
    return {
        "path": str(survey.path),
        "images": None if located.images is None else str(located.images),
        "finished": survey.finished,
        "bytes": survey.size,
        "arrays": list(survey.arrays),
        "shards": {"complete": survey.complete, "total": len(survey.facts.shards)},
        "facts": survey.facts.model_dump(mode="json"),
    }


def _lines(located: LocatedBank) -> list[tuple[str, str]]:
    from flows.session import words

    survey, facts = located.survey, located.survey.facts
    kind = {"encoded": "noise z of images, by a teacher", "generated": "images x of noise z, by a student"}[facts.kind]
    bits = "" if facts.mantissa_bits is None else f", {facts.mantissa_bits} mantissa bits, compressed"
    white = ", whitened within classes" if facts.whitened else ""
    noise = "" if facts.noise_std is None else f"eta = {facts.noise_std:g}, sigma_f = {facts.sigma_f:.6g}{white}"
    lines = [
        ("holds", f"{kind}: {', '.join(survey.arrays)}"),
        ("images", str(located.images or "not in this store")),
        (
            "pairs",
            f"{facts.rows:,} rows x {facts.draws} draws = {facts.pairs:,}"
            + (", mirror images included" if facts.flips else ""),
        ),
        ("shape", " x ".join(map(str, facts.shape)) + f", {facts.dtype}{bits}"),
        ("shards", f"{survey.complete} of {len(facts.shards)} complete, {facts.shard:,} pairs each"),
        ("size", words.size(survey.size)),
        ("noise", noise),
        ("solver", facts.solver or ""),
        ("producer", located.producer),
        ("seed", str(facts.seed)),
    ]
    if facts.kind == "generated":
        lines = [line for line in lines if line[0] != "images"]
    return [line for line in lines if line[1]]


def _print_noise(diagnostics: dict[str, Any]) -> None:
    """Statistics of the noise next to those of N(0, I), the transport cost, and warnings."""
    from pipeline.reporting.text import noise

    train, held_out, rows = diagnostics["train"], diagnostics.get("held_out"), []
    true = {
        "n": train["n"],
        "mean": 0.0,
        "std": 1.0,
        "dimension_std": [1.0, 1.0, 1.0],
        "dimension_kurtosis": [0.0, 0.0, 0.0],
        "sliced_w2": train["floor"],
    }
    parts = {"training images" if held_out else "bank": train, "held-out images": held_out, "N(0, I)": true}
    for title, part in parts.items():
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
            f"Transport cost E|z - x|^2 / D: {cost['per_dimension']:.4g}; independent noise: {cost['independent']:.4g}"
        )
    if leak := diagnostics.get("class_leak"):
        typer.echo(f"Class predicted from z alone, by a small classifier: {noise.leak_in_words(leak)}")
    if noise.distinguished(diagnostics) is False:
        typer.echo(noise.in_words(diagnostics))
    for warning in diagnostics["warnings"]:
        typer.echo(f"warning: {warning}")
