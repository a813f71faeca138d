"""The whole page: what it shows, put together from the artifacts, and rendered into one self-contained file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.outputs.results import EvaluationResult, Score
from pipeline.reporting.page import costs, memorised, stages, training, words
from pipeline.reporting.page import rounds as rounds_of
from pipeline.reporting.page.charts import Chart, by_calls, by_seconds
from pipeline.reporting.page.figures import Picture, picture
from pipeline.reporting.page.scores import OF_A_ROW, Table, metrics_of, table
from pipeline.reporting.text.numbers import count, duration, fixed, plain, significant
from storage.artifact import Artifact

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Scores:
    """The Frechet distance: its table, and its curves drawn for wide and for narrow screens."""

    table: Table
    charts: tuple[Chart, ...]
    by_seconds: tuple[Chart, ...]
    front: tuple[costs.Way, ...]


@dataclass(frozen=True)
class Other:
    """A further metric: its table, and what its protocol says beside that of the Frechet distance."""

    table: Table
    how: str


@dataclass(frozen=True)
class Every:
    """All scores, each with what sets it apart."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Page:
    """Everything the template shows, in its order."""

    recipe: str
    evaluated: str
    data: str
    headline: str
    figures: list[tuple[str, str]]
    samples: Picture | None
    scores: Scores
    others: list[Other]
    rounds: rounds_of.Rounds | None
    ways: tuple[Picture, ...]
    memorised: memorised.Memorised | None
    warnings: list[tuple[str, str]]
    teacher: training.Trained | None
    noise: training.Noise | None
    students: list[training.Trained]
    protocol: list[tuple[str, str]]
    digest: str
    every: Every
    stages: list[stages.Ran]
    total: str
    again: stages.Again


def view(inputs: Mapping[str, Artifact]) -> Page:
    """The page's content. Raises InputError where its numbers have no common protocol."""
    evaluation = inputs["evaluation"]
    found = EvaluationResult.model_validate(evaluation.metrics)
    main, *others = [
        table({evaluation.name: found.scores}, found.floor, metric, found.floors) for metric in metrics_of(found.scores)
    ]
    noise = training.couplings(inputs)
    return Page(
        recipe=evaluation.name,
        evaluated=evaluation.provenance.created[:10],
        data=_data(inputs),
        headline=words.headline(main),
        figures=words.figures(main),
        samples=picture(
            evaluation,
            "samples.png",
            "Grid of images. Its rows: the data, then each model at each number "
            "of network calls. Its columns: the same noise and class in every row.",
            "The same noise and class down each column; the data’s own images on top.",
        ),
        scores=Scores(main, _both(by_calls, main), _both(by_seconds, main), costs.front_of(main)),
        others=[Other(made, _how(made, main)) for made in others],
        rounds=rounds_of.view(found, main.metric),
        ways=_ways(evaluation),
        memorised=memorised.view(found, evaluation),
        warnings=[("evaluation", text) for text in found.warnings]
        + [("bank", text) for text in (noise.warnings if noise else ())],
        teacher=training.teacher(inputs),
        noise=noise,
        students=training.students(inputs),
        protocol=_protocol(main, inputs),
        digest=found.protocol,
        every=_every(found.scores),
        stages=stages.ran(inputs),
        total=duration(sum(artifact.provenance.wall_seconds for artifact in inputs.values())),
        again=stages.again(inputs),
    )


def render(inputs: Mapping[str, Artifact]) -> str:
    """The page as HTML: no script, nothing fetched, every text escaped. The same inputs give the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    environment.globals.update(style=style, count=count, model=words.model)
    return environment.get_template("page.html").render(page=view(inputs))


def _both(draw: Callable[[Table, int, int, str], Chart | None], made: Table) -> tuple[Chart, ...]:
    """A chart for wide and for narrow screens; none where there is nothing to draw."""
    return tuple(chart for chart in (draw(made, 760, 400, "wide"), draw(made, 370, 320, "narrow")) if chart)


def _how(made: Table, main: Table) -> str:
    """'Features kept: 1,437 real, 1,000 generated; neighbours: 3.'"""
    told = "; ".join(
        f"{words.field(name)}: {plain(value)}"
        for name, value in made.protocol.items()
        if name != "metric" and main.protocol.get(name) != value
    )
    return f"{told[:1].upper()}{told[1:]}." if told else ""


def _ways(evaluation: Artifact) -> tuple[Picture, ...]:
    """How samples come about, and what lies between them."""
    shown = (
        picture(
            evaluation,
            "trajectories.png",
            "Grid of images. Each row is one time t, from noise above to the samples below; each column is one sample.",
            "x_t on the way from noise (t = 1) to data (t = 0), each model at its most steps.",
        ),
        picture(
            evaluation,
            "interpolations.png",
            "Grid of images. In each row the noise goes from one sample’s to another’s, the class staying the same.",
            "Between two noises, on the great circle, at equal angles; one class in a row.",
        ),
    )
    return tuple(item for item in shown if item)


def facts(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The same as a plain tree for JSON: nothing rounded, nothing in words but the headline."""
    page, found = view(inputs), inputs["evaluation"].metrics
    return {
        "recipe": page.recipe,
        "headline": page.headline,
        "protocol": found["protocol"],
        "floor": found["floor"],
        "floors": found.get("floors", {}),
        "scores": found["scores"],
        "paths": found.get("paths", []),
        "memorisation": found.get("memorisation", []),
        "warnings": [{"stage": stage, "text": text} for stage, text in page.warnings],
        "stages": [
            {
                "stage": role,
                "fingerprint": artifact.fingerprint,
                "inputs": artifact.inputs,
                "config": artifact.config,
                "metrics": artifact.metrics,
                "provenance": artifact.provenance.model_dump(mode="json"),
            }
            for role, artifact in inputs.items()
            if role != "evaluation"
        ],
    }


def _data(inputs: Mapping[str, Artifact]) -> str:
    """The data set in a line."""
    found = {"pixels": None, **inputs["data"].metrics}
    latents = found["pixels"] is not None
    channels, side = found["pixels"] if latents else (found["channels"], found["size"])
    size = f"{side} × {side} pixels, {'grey' if channels == 1 else 'colour'}"
    classes = found["classes"]
    named = (
        f"{len(classes)} classes ({', '.join(classes[:12])}{' …' if len(classes) > 12 else ''})"
        if classes
        else "no classes"
    )
    return (
        f"{found['name']}: {count(found['train'])} training and {count(found['test'])} held-out images of {size}, "
        f"{found['levels']} levels, {named}"
        + (f"; trained on latents of {found['channels']} × {found['size']} × {found['size']}" if latents else "")
    )


def _protocol(made: Table, inputs: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """What all scores share, and how far the reference can be trusted."""
    lines = [
        (words.field(name), str(value) if name == "seed" else plain(value))  # a seed is no quantity
        for name, value in made.protocol.items()
    ]
    reference = inputs.get("reference")
    if reference is not None:
        found = reference.metrics
        lines.append(("features of the extractor", count(found["features"])))
        if found["accuracy"] is not None:
            lines.append(("accuracy of the extractor, held-out images", f"{fixed(100 * found['accuracy'], 1)} %"))
        lines.append(("floor: two halves of the real images", fixed(found["split_half"], made.digits)))
        lines.append(("held-out images in the same measure", fixed(found["held_out"], made.digits)))
    for metric, value in inputs["evaluation"].metrics.get("floors", {}).items():
        lines.append((f"two halves of the real images, {metric}", significant(value)))
    lines.append(("rounding", f"half up, to {made.digits} decimal{'s' if made.digits > 1 else ''}"))
    return [(name[:1].upper() + name[1:], value) for name, value in lines]


def _every(scores: tuple[Score, ...]) -> Every:
    """Each score with the fields of its protocol that not all share."""
    known = dict.fromkeys(name for score in scores for name in score.protocol)
    alike = [[score for score in scores if score.metric == metric] for metric in metrics_of(scores)]
    varying = [
        name
        for name in known
        if name in OF_A_ROW or any(len({plain(score.protocol.get(name)) for score in some}) > 1 for some in alike)
    ]
    metric = ("metric",) if len(metrics_of(scores)) > 1 else ()
    error = ("standard error",) if any(s.error is not None for s in scores) else ()
    columns = (
        "model",
        "solver",
        "calls",
        *metric,
        "value",
        *error,
        *(words.field(name) for name in varying),
        "seconds",
        "s per image",
        "digest",
    )
    return Every(
        columns,
        tuple(
            (
                words.model(s.model),
                s.solver,
                count(s.nfe) if s.nfe else "–",
                *(s.metric for _ in metric),
                fixed(s.value, 4),
                *("–" if s.error is None else fixed(s.error, 4) for _ in error),
                *(plain(s.protocol[name]) if name in s.protocol else "–" for name in varying),
                fixed(s.seconds, 1),
                "–" if s.seconds_per_image is None else significant(s.seconds_per_image, 2),
                s.digest,
            )
            for s in scores
        ),
    )
