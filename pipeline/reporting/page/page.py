"""The whole page: its content, taken from the artifacts, and one self-contained HTML file of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.sources.text import shown
from pipeline.outputs.results import DataResult, EvaluationResult, Score
from pipeline.reporting.page import costs, memorisation, noise_cost, rounds, stages, training
from pipeline.reporting.page.charts import by_calls, by_seconds, drawn
from pipeline.reporting.page.figures import Picture, picture
from pipeline.reporting.page.headline import figures, headline
from pipeline.reporting.scores.cells import Level, Row, Table
from pipeline.reporting.scores.metrics import metrics_of, yardstick_of
from pipeline.reporting.scores.protocol import OF_A_ROW, stated
from pipeline.reporting.scores.table import table
from pipeline.reporting.text import names
from pipeline.reporting.text.numbers import count, duration, fixed, plain, significant
from storage.artifact import Artifact

HERE = Path(__file__).parent
MANY = 12  # classes that are named


@dataclass(frozen=True)
class Origin:
    """The inputs of samples, in the words of the captions."""

    start: str  # noise, or source images
    column: str  # the property shared by a column of the grid
    top: str  # the first row of the grid


def view(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The page's content. Raises ProtocolError where its numbers have no common protocol."""
    evaluation = inputs["evaluation"]
    result = EvaluationResult.model_validate(evaluation.metrics)
    main, *others = tables(evaluation.name, result)
    leading = [main, *(other for other in others[:1] if main.metric == "PSNR")]
    origin = _origin(inputs)
    return {
        "recipe": evaluation.name,
        "evaluated": evaluation.provenance.created[:10],
        "data": _data(inputs),
        "headline": " ".join(names.sentence(headline(one)) for one in leading),
        "figures": figures(main),
        "samples": picture(
            evaluation,
            "samples.png",
            f"Grid of images. Its rows: {origin.top}, then each model at each number of network calls. Its columns: "
            f"{origin.column} in every row.",
            f"{names.sentence(origin.column)} down each column; {origin.top} on top.",
        ),
        "table": main,
        "by_calls": drawn(by_calls(main, _name)),
        "by_seconds": drawn(by_seconds(main, _name)),
        "front": costs.front_of(main),
        "others": [(other, _how(other, main)) for other in others],
        "rounds": rounds.view(result),
        "paths": _paths(evaluation, origin),
        "memorisation": memorisation.view(result, evaluation),
        "warnings": _warnings(inputs),
        "teacher": training.teacher(inputs),
        "noise": training.bank(inputs),
        "noise_cost": noise_cost.view(result),
        "students": training.students(inputs),
        "protocol": _protocol(main, inputs),
        "digest": result.protocol,
        "every": _every(result.scores),
        "stages": stages.ran(inputs),
        "total": duration(sum(artifact.provenance.wall_seconds for artifact in inputs.values())),
        "reproduction": stages.reproduction(inputs),
    }


def render(inputs: Mapping[str, Artifact]) -> str:
    """The page as HTML: no script, nothing fetched, every text escaped. The same inputs give the same bytes."""
    return fill("page.html", page=view(inputs))


def fill(template: str, **content: Any) -> str:
    """A template of this folder with its content, every text escaped."""
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
    environment.globals.update(style=style, count=count, model=names.model, metric=names.metric, plain=plain)
    return environment.get_template(template).render(**content)


def tables(name: str, result: EvaluationResult) -> list[Table]:
    """The table of each metric, the leading one first."""
    return [
        table({name: [result.scores]}, metric, yardstick_of(metric, result.held_out, result.floor, result.floors))
        for metric in metrics_of(result.scores)
    ]


def facts(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The same as a plain tree for JSON: nothing rounded, nothing in words but the headline."""
    page, metrics = view(inputs), inputs["evaluation"].metrics
    return {
        "recipe": page["recipe"],
        "headline": page["headline"],
        **{
            key: metrics.get(key)
            for key in ("protocol", "floor", "floors", "held_out", "scores", "paths", "memorisation", "noise_cost")
        },
        "warnings": [{"stage": stage, "text": text} for stage, text in page["warnings"]],
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


def _name(row: Row | Level) -> str:
    return names.model(row.model) + (f", {row.setting}" if isinstance(row, Row) else "")


def _how(table: Table, main: Table) -> str:
    """The protocol's differences from that of the main table: 'Neighbours: 3.'"""
    lines = [
        f"{names.field(name)}: {plain(value)}"
        for name, value in table.protocol.items()
        if name != "metric" and main.protocol.get(name) != value
    ]
    return f"{names.sentence('; '.join(lines))}." if lines else ""


def _origin(inputs: Mapping[str, Artifact]) -> Origin:
    if "source" in inputs:
        return Origin("source images", "the same source image", "the source images")
    same = "the same noise and class" if inputs["data"].metrics["classes"] else "the same noise"
    if inputs["student"].config.get("condition"):
        return Origin("noise", "the same noise and the same test image to restore", "the test images")
    return Origin("noise", same, "training images")


def _paths(evaluation: Artifact, origin: Origin) -> list[Picture]:
    """How samples come about, and what lies between them."""
    shown = (
        picture(
            evaluation,
            "trajectories.png",
            f"Grid of images. Each row is one time t, from {origin.start} above to the samples below; each column is "
            "one sample.",
            f"x_t on the way from {origin.start} (t = 1) to data (t = 0), each model at its largest number of steps.",
        ),
        picture(
            evaluation,
            "interpolations.png",
            "Grid of images. In each row the noise goes from one sample’s to another’s; nothing else changes.",
            "Between two noises, on the great circle, at equal angles.",
        ),
    )
    return [item for item in shown if item]


def _data(inputs: Mapping[str, Artifact]) -> str:
    """The data set in a line."""
    data = inputs["data"].metrics
    latents = data.get("pixels")
    channels, side = latents or (data["channels"], data["size"])
    classes = data["classes"]
    parts = [
        f"{data['name']}: {count(data['train'])} training and {count(data['test'])} held-out images of "
        f"{side} × {side} pixels, {'grey' if channels == 1 else 'colour'}",
        f"{data['levels']} levels",
        f"{len(classes)} classes ({', '.join(map(shown, classes[:MANY]))}{' …' if len(classes) > MANY else ''})"
        if classes
        else "without classes",
    ]
    if latents:
        parts.append(f"trained on latents of {data['channels']} × {data['size']} × {data['size']}")
    if "source" in inputs:
        source = inputs["source"].metrics
        parts.append(f"generated from {count(source['test'])} held-out source images ({source['name']})")
    return ", ".join(parts)


def _warnings(inputs: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """What every stage warns of, by stage, in the order of the DAG."""
    found = [("data", text) for text in _left_out(inputs["data"])]
    for role, artifact in inputs.items():
        own = artifact.metrics.get("warnings", ())
        of_scores = (artifact.metrics.get("quality") or {}).get("warnings", ())
        found += [(role, text) for text in (*own, *of_scores)]
    return found


def _left_out(data: Artifact) -> list[str]:
    """Files of the source that are not among the images, and the stage's assumptions about the source."""
    result = DataResult.model_validate(data.metrics)
    files = [
        f"Left out of the images: {count(some.count)} × {some.kind} ({', '.join(some.names)}"
        f"{' …' if some.count > len(some.names) else ''})."
        for some in result.left_out
    ]
    return [*files, *result.notes]


def _protocol(table: Table, inputs: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """The protocol shared by all scores, and the quality of the reference."""
    lines = [(names.field(name), stated(name, value)) for name, value in table.protocol.items()]
    reference = inputs.get("reference")
    if reference is not None:
        result = reference.metrics
        lines.append(("features of the extractor", count(result["features"])))
        if result["accuracy"] is not None:
            lines.append(("accuracy of the extractor, held-out images", f"{fixed(100 * result['accuracy'], 1)} %"))
        lines.append((f"{result['metric']} of held-out to training images", significant(result["held_out"])))
        halves = f"{count(result['images'] // 2)} images each: too few for a floor"
        lines.append(
            (
                f"{result['metric']} of two halves of the training images",
                f"{significant(result['split_half'])} ({halves})",
            )
        )
    for metric, value in inputs["evaluation"].metrics.get("floors", {}).items():
        lines.append((f"{metric} of two halves of the training images", significant(value)))
    lines.append(("rounding", f"half up, to {table.digits} decimal{'s' if table.digits > 1 else ''}"))
    return [(names.sentence(name), value) for name, value in lines]


def _every(scores: Sequence[Score]) -> list[dict[str, str]]:
    """Each score by column, with the fields of its protocol that not all of its metric share."""
    by_metric = [[score for score in scores if score.metric == metric] for metric in metrics_of(scores)]
    varying = [
        name
        for name in dict.fromkeys(name for score in scores for name in score.protocol)
        if name in OF_A_ROW or any(len({plain(s.protocol.get(name)) for s in some}) > 1 for some in by_metric)
    ]
    errors, held_out = any(s.error is not None for s in scores), any(s.value_held_out is not None for s in scores)

    def number(value: float | None) -> str:
        return "–" if value is None else fixed(value, 4)

    return [
        {"model": names.model(s.model), "solver": s.solver, "NFE": count(s.nfe) if s.nfe else "–"}
        | ({"metric": s.metric} if len(by_metric) > 1 else {})
        | {"value": number(s.value)}
        | ({"standard error": number(s.error)} if errors else {})
        | ({"to held-out images": number(s.value_held_out)} if held_out else {})
        | {names.field(name): plain(s.protocol[name]) if name in s.protocol else "–" for name in varying}
        | {"seconds": fixed(s.seconds, 1)}
        | {"s per image": "–" if s.seconds_per_image is None else significant(s.seconds_per_image, 2)}
        | {"digest": s.digest}
        for s in scores
    ]
