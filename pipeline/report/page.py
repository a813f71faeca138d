"""The whole page: what it shows, put together from the artifacts, and rendered into one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report import stages, training, words
from pipeline.report.charts import Chart, by_calls
from pipeline.report.figures import Picture, picture
from pipeline.report.numbers import count, duration, fixed, plain
from pipeline.report.scores import OF_A_ROW, Table, metrics_of, table
from pipeline.results import EvaluationResult, Score
from storage.artifact import Artifact

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Scores:
    """One metric: its table, and its curve drawn for wide and for narrow screens."""

    table: Table
    charts: tuple[Chart, ...]


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
    scores: list[Scores]
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
    tables = [table({evaluation.name: found.scores}, found.floor, metric) for metric in metrics_of(found.scores)]
    main = tables[0]
    noise = training.couplings(inputs)
    return Page(
        recipe=evaluation.name, evaluated=evaluation.provenance.created[:10], data=_data(inputs),
        headline=words.headline(main), figures=words.figures(main),
        samples=picture(evaluation, "samples.png", "Grid of images. Its rows: the data, then each model at each number "
                        "of network calls. Its columns: the same noise and class in every row.",
                        "The same noise and class down each column; the data’s own images on top."),
        scores=[Scores(made, tuple(chart for chart in (by_calls(made, 760, 400, "wide"),
                                                       by_calls(made, 370, 320, "narrow")) if chart))
                for made in tables],
        warnings=[("evaluation", text) for text in found.warnings]
        + [("couplings", text) for text in (noise.warnings if noise else ())],
        teacher=training.teacher(inputs), noise=noise, students=training.students(inputs),
        protocol=_protocol(main, inputs), digest=found.protocol, every=_every(found.scores),
        stages=stages.ran(inputs),
        total=duration(sum(artifact.provenance.wall_seconds for artifact in inputs.values())),
        again=stages.again(inputs))


def render(inputs: Mapping[str, Artifact]) -> str:
    """The page as HTML: no script, nothing fetched, every text escaped. The same inputs give the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    environment.globals.update(style=style, count=count, model=words.model)
    return environment.get_template("page.html").render(page=view(inputs))


def facts(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The same as a plain tree for JSON: nothing rounded, nothing in words but the headline."""
    page, found = view(inputs), inputs["evaluation"].metrics
    return {"recipe": page.recipe, "headline": page.headline, "protocol": found["protocol"], "floor": found["floor"],
            "scores": found["scores"], "warnings": [{"stage": stage, "text": text} for stage, text in page.warnings],
            "stages": [{"stage": role, "fingerprint": artifact.fingerprint, "inputs": artifact.inputs,
                        "config": artifact.config, "metrics": artifact.metrics,
                        "provenance": artifact.provenance.model_dump(mode="json")}
                       for role, artifact in inputs.items() if role != "evaluation"]}


def _data(inputs: Mapping[str, Artifact]) -> str:
    """The data set in a line."""
    found = {"pixels": None, **inputs["data"].metrics}
    latents = found["pixels"] is not None
    channels, side = found["pixels"] if latents else (found["channels"], found["size"])
    size = f"{side} × {side} pixels, {'grey' if channels == 1 else 'colour'}"
    classes = found["classes"]
    named = f"{len(classes)} classes ({', '.join(classes[:12])}{' …' if len(classes) > 12 else ''})" if classes \
        else "no classes"
    return f"{found['name']}: {count(found['train'])} training and {count(found['test'])} held-out images of {size}, " \
           f"{found['levels']} levels, {named}" + \
           (f"; trained on latents of {found['channels']} × {found['size']} × {found['size']}" if latents else "")


def _protocol(made: Table, inputs: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """What all scores share, and how far the reference can be trusted."""
    lines = [(words.field(name), str(value) if name == "seed" else plain(value))  # a seed is no quantity
             for name, value in made.protocol.items()]
    reference = inputs.get("reference")
    if reference is not None:
        found = reference.metrics
        lines.append(("features of the extractor", count(found["features"])))
        if found["accuracy"] is not None:
            lines.append(("accuracy of the extractor, held-out images", f"{fixed(100 * found['accuracy'], 1)} %"))
        lines.append(("floor: two halves of the real images", fixed(found["split_half"], made.digits)))
        lines.append(("held-out images in the same measure", fixed(found["held_out"], made.digits)))
    lines.append(("rounding", f"half up, to {made.digits} decimal{'s' if made.digits > 1 else ''}"))
    return [(name[:1].upper() + name[1:], value) for name, value in lines]


def _every(scores: tuple[Score, ...]) -> Every:
    """Each score with the fields of its protocol that not all share."""
    known = dict.fromkeys(name for score in scores for name in score.protocol)
    varying = [name for name in known if name in OF_A_ROW or len({plain(s.protocol.get(name)) for s in scores}) > 1]
    varying = [name for name in varying if name != "metric"]
    metric = ("metric",) if len(metrics_of(scores)) > 1 else ()
    columns = ("model", "solver", "calls", *metric, "value", *(words.field(name) for name in varying), "seconds")
    return Every(columns, tuple(
        (words.model(s.model), s.solver, count(s.nfe) if s.nfe else "–", *(s.metric for _ in metric), fixed(s.value, 4),
         *(plain(s.protocol[name]) if name in s.protocol else "–" for name in varying), fixed(s.seconds, 1))
        for s in scores))
