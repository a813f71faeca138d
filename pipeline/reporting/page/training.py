"""The sections of the page on training: teacher, bank, students."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engine.dag import students_among
from pipeline.recipe.recipe import PAIRS_OF
from pipeline.reporting.page.charts import Chart
from pipeline.reporting.page.curves import of_errors, of_loss, of_scores
from pipeline.reporting.page.figures import Picture, history, picture, previews
from pipeline.reporting.text import noise
from pipeline.reporting.text.names import COUPLINGS, model
from pipeline.reporting.text.numbers import count, duration, fixed, plain, significant
from storage.artifact import Artifact

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Trained:
    """One network: its figures, its curves with their captions, its picture, and samples while it trained."""

    title: str
    facts: Facts
    charts: tuple[tuple[Chart, str], ...]
    picture: Picture | None = None
    strip: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Spread:
    """A figure of z on training and on held-out images, and of Gaussian noise."""

    name: str
    train: str
    held_out: str
    ideal: str


@dataclass(frozen=True)
class Noise:
    """The noise bank: its figures, how Gaussian the noise is, and the verdict.

    `tested` is the result of the two-sample test; None where there is none.
    """

    facts: Facts
    tested: str | None
    table: tuple[Spread, ...]
    picture: Picture | None
    warnings: tuple[str, ...]


def teacher(inputs: Mapping[str, Artifact]) -> Trained | None:
    artifact = inputs.get("teacher")
    if artifact is None:
        return None
    result = artifact.metrics
    facts = (
        ("Bits per dimension, held-out images", fixed(result["bits_per_dim"], 3)),
        ("Bits per dimension, training images", fixed(result["bits_per_dim_train"], 3)),
        ("Dequantisation of both", result["dequantisation"]),
        *_quality(artifact),
        *_common(artifact),
    )
    return Trained(
        "teacher",
        facts,
        _charts(artifact, "teacher"),
        picture(
            artifact,
            "samples.png",
            "Images of the training data above, samples of the teacher of the same classes below.",
            "Training images and, below, the teacher’s samples of the same classes.",
        ),
    )


def students(inputs: Mapping[str, Artifact]) -> list[Trained]:
    """The student, each round of reflow and the one-step student, those that the recipe has."""
    trained = []
    chain = students_among(inputs)
    paths = {path["model"]: path for path in inputs["evaluation"].metrics.get("paths", ())}
    for role in (role for role in (*chain, "onestep") if role in inputs):
        artifact = inputs[role]
        result = artifact.metrics
        read = PAIRS_OF.get(role, "")
        written = "pairs" if role == chain[-1] else f"pairs-{chain.index(role) + 1}" if role in chain else ""
        coupling = COUPLINGS.get(result["coupling"], result["coupling"])
        if "source" in inputs and result["coupling"] == "independent":
            coupling = "independent pairs of source and target images"
        facts: list[tuple[str, str]] = [("Trained on", coupling)]
        facts.append(("Transport cost per dimension, mean over the training", fixed(result["transport_cost"], 3)))
        facts += _leak(result.get("class_leak"))
        if role == "student":
            facts.append(("Curvature of its paths", significant(inputs["evaluation"].metrics["curvature"])))
            bits = inputs["evaluation"].metrics.get("likelihood")
            if bits:
                facts.append(
                    (
                        f"Bits per dimension of {bits['images']} held-out images, uniformly dequantised",
                        f"{fixed(bits['bits_per_dim'], 3)} ± {fixed(bits['standard_error'], 3)}",
                    )
                )
        elif role in paths:
            facts.append(("Curvature of its paths", significant(paths[role]["curvature"])))
        straight = paths.get(role) or (inputs[written].metrics if written in inputs else None)
        if straight:
            facts.append(("Straightness of its paths, 0 is straight", significant(straight["straightness"])))
        if read in inputs:
            pairs = inputs[read].metrics
            facts.append(("Pairs", f"{count(pairs['count'])}, by {pairs['solver']}"))
        facts += [*_quality(artifact), *_common(artifact)]
        trained.append(
            Trained(model(role), tuple(facts), _charts(artifact, model(role)), strip=tuple(previews(artifact)))
        )
    return trained


def _leak(probe: Mapping[str, Any] | None) -> Facts:
    """How much of the class the noise tells, where it was measured."""
    return (("Class predicted from z alone, by a small classifier", noise.leak_in_words(probe)),) if probe else ()


def _charts(artifact: Artifact, what: str) -> tuple[tuple[Chart, str], ...]:
    """Loss, raw errors and scores while it trained, those that its history has."""
    lines, quality = history(artifact), artifact.metrics.get("quality") or {}
    metric = quality.get("metric", "")
    distances = {"fd": "to training images", "fd_held_out": "to held-out images"}
    charts = (
        (of_loss(lines, what), "Loss: as recorded (thin) and its moving mean."),
        (
            of_errors(lines, what),
            "Unweighted errors of instantaneous (r = t) and average (r < t) velocities, moving means.",
        ),
        (
            of_scores(lines, distances, f"{metric} (lower is better)", what, logarithmic=True),
            f"{metric} of the averaged weights’ samples during the training. The protocol is that of the best "
            "average, not that of the evaluation.",
        ),
        (
            of_scores(lines, {"held_out_bits": ""}, "bits per dimension", what, logarithmic=False),
            "Bits per dimension of held-out images under the averaged weights (lower is better).",
        ),
    )
    return tuple((chart, caption) for chart, caption in charts if chart)


def _quality(artifact: Artifact) -> Facts:
    """The best average of the weights while it trained, where this was measured."""
    quality = artifact.metrics.get("quality")
    if not quality:
        return ()
    return (
        ("Best average of the weights", f"{quality['average']} at {count(quality['images'])} images"),
        (f"Its {quality['metric']}", fixed(quality["value"], 3)),
        ("Chosen as", quality["chosen_by"]),
    )


def bank(inputs: Mapping[str, Artifact]) -> Noise | None:
    artifact = inputs.get("bank")
    if artifact is None:
        return None
    result = artifact.metrics
    gaussianity = result["gaussianity"]
    facts = [
        ("σ_f, the scale of the noise", fixed(result["sigma_f"], 4)),
        ("η, noise added to images", plain(result["noise"])),
        ("Bank", f"{count(result['rows'])} images × {count(result['draws'])} draws"),
    ]
    if result.get("whitened"):
        facts.append(("Whitened", "within classes"))
    cost = gaussianity.get("transport_cost")
    if isinstance(cost, Mapping):
        facts.append(
            (
                "Transport cost per dimension, E (z − x)²",
                f"{fixed(cost['per_dimension'], 3)} (noise drawn independently: {fixed(cost['independent'], 3)})",
            )
        )
    facts += _leak(gaussianity.get("class_leak"))
    return Noise(
        tuple(facts),
        noise.in_words(gaussianity),
        tuple(_spreads(gaussianity)),
        picture(
            artifact,
            "noise.png",
            "Histogram of the values of z with the normal density, and maps of the standard deviation of z at each "
            "pixel, on training and held-out images.",
            "Values of z with N(0, 1), and the standard deviation of z at each pixel.",
        ),
        tuple(noise.verdict(gaussianity)),
    )


def _spreads(gaussianity: Mapping[str, Any]) -> list[Spread]:
    """The table of Gaussianity: each figure of `metrics.gaussianity.diagnose`."""
    train, held_out = gaussianity.get("train") or {}, gaussianity.get("held_out") or {}
    known = {  # name, and the value of Gaussian noise
        "n": ("images", ""),
        "mean": ("mean of all values", "0"),
        "std": ("standard deviation of all values", "1"),
        "dimension_mean": ("mean of a dimension", "0"),
        "dimension_std": ("standard deviation of a dimension", "1"),
        "dimension_kurtosis": ("excess kurtosis of a dimension", "0"),
        "dimensions_off": ("dimensions whose deviation is far from 1", "0"),
        "sliced_w2": ("sliced Wasserstein distance to N(0, I)", _figure(train.get("floor"))),
    }
    return [
        Spread(name, _figure(train[key], key), _figure(held_out.get(key), key), ideal)
        for key, (name, ideal) in known.items()
        if key in train
    ]


def _figure(value: Any, key: str = "") -> str:
    if isinstance(value, (list, tuple)):  # smallest, median, largest
        low, middle, high = ([fixed(v, 2) for v in value] + ["", ""])[:3]
        return f"{middle} ({low} to {high})"
    if key == "dimensions_off" and value is not None:
        return f"{fixed(100 * value, 1)} %"
    if isinstance(value, float):
        return fixed(value, 3)
    return "" if value is None else plain(value)


def _common(artifact: Artifact) -> Facts:
    result = artifact.metrics
    return (
        ("Parameters", count(result["parameters"])),
        ("Images seen", f"{count(result['images_seen'])} in {count(result['steps'])} steps"),
        ("Loss, mean over the last twentieth", significant(result["loss"], 4)),
        ("Wall time", duration(artifact.provenance.wall_seconds)),
    )
