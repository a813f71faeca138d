"""The model card: the model, how to load it, its scores and their protocol, its training and provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from models.load import NETWORK, SAMPLER, WEIGHTS
from pipeline.data.sources.text import shown
from pipeline.export._onnx import ONNX, TOLERANCE, Checked
from pipeline.export._samplers import NEAR
from pipeline.export._subject import Subject
from pipeline.outputs.results import EvaluationResult
from pipeline.reporting.scores.cells import Table
from pipeline.reporting.scores.metrics import metrics_of, yardstick_of
from pipeline.reporting.scores.protocol import agreed, stated
from pipeline.reporting.scores.table import TEACHER, table
from pipeline.reporting.text import names
from pipeline.reporting.text.markdown import piped
from pipeline.reporting.text.names import COUPLINGS, sentence
from pipeline.reporting.text.numbers import calls, count, duration, fixed

NETWORKS = {
    "unet": "a U-Net (Dhariwal and Nichol 2021, arXiv 2105.05233)",
    "dit": "a diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748)",
    "tarflow": "a TarFlow (Zhai et al. 2024, arXiv 2412.06329)",
}
METHODS = {
    "student": "It predicts the velocity of a path from data to noise; samples solve dx/dt = v back to the data.",
    "meanflow": "It predicts the average velocity over an interval of time, r to t, so that one call goes from t to r "
    "(MeanFlow, Geng et al. 2025, arXiv 2505.13447).",
    "reflow": "It was trained on pairs of noise and image from the student before it, which straightens the paths; "
    "it predicts their velocity.",
    "onestep": "It was trained on pairs of noise and image from another student, to go from noise to image {steps}.",
    "teacher": "It is a normalizing flow, trained by maximum likelihood; a sample is the inverse of noise.",
}


def card(subject: Subject, facts: dict[str, Any], kind: str, folder: str, onnx: Checked | None) -> str:
    """The card as Markdown.

    Args:
        subject: the exported network.
        facts: what sampler.json says.
        kind: of the network, as in network.json.
        folder: name of the export's directory, for the script that loads it.
        onnx: the check that the ONNX file passed, if there is one.
    """
    sections = [
        f"# {subject.recipe}, {names.model(subject.model)}",
        _what(subject, facts, kind),
        "![Samples](samples.png)",
        "## Load it",
        _load(facts, folder),
        "## Results",
        _results(subject, facts),
        "## Data",
        _data(subject),
        "## Training",
        _training(subject),
        "## Files",
        _files(subject, facts, onnx),
        "## Provenance",
        _provenance(subject),
        "## Licence",
        "Not stated. Before you share this model, check the licence of the training data, and state the licence here.",
    ]
    return "\n\n".join(sections) + "\n"


def script(facts: dict[str, Any], folder: str) -> str:
    """The lines that load the model and sample images; latents need a few more to decode them."""
    noise = "z = torch.randn(16, *sampler.shape)"
    if facts["classes"]:
        noise = noise.replace("z = ", "z, labels = ") + ", torch.arange(16) % sampler.classes"
    lines = [
        "import torch",
        "from models.load import load",
        "",
        f"sampler = load({json.dumps(folder, ensure_ascii=False)})",
        noise,
        f"images = sampler(z{', labels' if facts['classes'] else ''})",
    ]
    if facts["latents"]:
        autoencoder = f"{folder}/{facts['latents']['autoencoder']}"
        lines += [
            "",
            "from diffusers import AutoencoderKL",
            "",
            f"vae = AutoencoderKL.from_pretrained({json.dumps(autoencoder, ensure_ascii=False)})",
            'scale, shift = (torch.tensor(sampler.facts["latents"][key]).view(-1, 1, 1) for key in ("scale", "shift"))',
            "images = vae.decode(images / scale + shift).sample.detach()",
        ]
    return "\n".join(lines)


def _what(subject: Subject, facts: dict[str, Any], kind: str) -> str:
    channels, side, _ = facts["images"]["shape"]
    images = f"{side} × {side} pixels and {'grey' if channels == 1 else 'colour'}"
    if subject.model == "teacher":
        cost = f"by inverting {len(facts['schedules'])} blocks"
    else:
        cost = f"in {calls(facts['ways'][facts['recommended']]['nfe'])}"
    classes = f" of {len(facts['classes'])} classes" if facts["classes"] else ""
    lines = [
        f"Generates images{classes}, {images}, from Gaussian noise {cost}.",
        f"The network is {NETWORKS[kind]} of {count(subject.artifact.metrics['parameters'])} parameters.",
        _method(subject).format(steps=_steps(subject.artifact.config.get("steps", 1))),
    ]
    if subject.model != "teacher":
        coupling = subject.artifact.metrics["coupling"]
        lines.append(f"Trained on: {COUPLINGS.get(coupling, coupling)}.")
    if facts["latents"]:
        lines.append("Its samples are latents; the autoencoder in this folder decodes them to images.")
    return "\n".join(lines)


def _method(subject: Subject) -> str:
    config = subject.artifact.config
    learned = config.get("mode") if subject.model == "onestep" else config.get("objective", {}).get("kind")
    return METHODS["meanflow" if learned == "meanflow" else subject.model.partition("-")[0]]


def _steps(count: int) -> str:
    return "at once" if count == 1 else f"in {count} Euler steps of equal length"


def _load(facts: dict[str, Any], folder: str) -> str:
    low, high = facts["images"]["range"]
    text = (
        f"You need PyTorch, safetensors and the package `models` of flowctl on the path. Run in the parent folder:\n\n"
        f"```python\n{script(facts, folder)}\n```\n\n"
        f"Images are float32, nominally in [{low}, {high}]; `sampler.quantise(images)` rounds them half up to the "
        f"{facts['images']['levels']} grey levels of the data."
    )
    if facts.get("ways"):
        choices = ", ".join(str(nfe) for nfe in dict.fromkeys(way["nfe"] for way in facts["ways"]))
        text += f" `sampler(…, nfe=n)` takes n network calls: one of {choices}."
    names = facts["classes"]
    if names and names != [str(i) for i in range(len(names))]:
        text += (
            "\n\nClasses: "
            + ", ".join(f"{i} {shown(name)}" for i, name in enumerate(names[:100]))
            + (" …" if len(names) > 100 else ".")
        )
    return text


def _results(subject: Subject, facts: dict[str, Any]) -> str:
    scores = subject.scores
    if not scores:
        return f"This average of the weights ({subject.ema}) was not evaluated."
    evaluation = EvaluationResult.model_validate(subject.artifacts["evaluation"].metrics)
    teachers = [score for score in evaluation.scores if score.model == TEACHER]
    everything = scores if subject.model == TEACHER else [*teachers, *scores]
    tables = []
    for metric in metrics_of(scores):
        yardstick = yardstick_of(metric, evaluation.held_out, evaluation.floor, evaluation.floors)
        tables.append(_scores(table({subject.recipe: [everything]}, metric, yardstick)))
    if facts.get("metric"):
        way = facts["ways"][facts["recommended"]]
        tables.append(
            f"Recommended: {calls(way['nfe'])}, the fewest whose {facts['metric']} is within "
            f"{fixed(100 * (NEAR - 1), 0)} % of the best."
        )
    protocol = [(names.field(name), stated(name, value)) for name, value in agreed(scores).items()]
    protocol.append(("digest", f"`{evaluation.protocol}`"))
    return "\n\n".join(
        [
            *tables,
            "The protocol. Do not compare these scores with numbers of another one:",
            _bullets(protocol),
            *(f"Warning: {text}" for text in evaluation.warnings),
        ]
    )


def _scores(scores: Table) -> str:
    """A table by network calls, and what to hold it against."""
    metric = names.metric(scores.metric)
    levels = "; ".join(
        f"{names.model(level.model)} {level.text}" + (" against held-out images" if level.held_out else "")
        for level in scores.levels
    )
    note = f"{metric}, {'lower' if scores.lower_is_better else 'higher'} is better."
    note = " ".join([note, *([f"{sentence(levels)}."] if levels else []), *scores.notes])
    if not scores.rows:
        return note
    head = (f"{metric} at NFE", *(column if isinstance(column, str) else count(column) for column in scores.columns))
    rows = [
        (
            row.setting + (", against held-out images" if row.held_out else ""),
            *(cell.text if cell else "–" for cell in row.cells),
        )
        for row in scores.rows
    ]
    return f"{piped(head, rows, 1)}\n\n{note}"


def _data(subject: Subject) -> str:
    data = subject.artifacts["data"].metrics
    channels, side = data.get("pixels") or (data["channels"], data["size"])
    return (
        f"{data['name']}: {count(data['train'])} training and {count(data['test'])} held-out images of "
        f"{channels} × {side} × {side}, {data['levels']} levels"
        + (", mirror images too" if subject.artifacts["data"].config["flips"] else "")
        + f"; fingerprint `{subject.artifacts['data'].fingerprint[:12]}`."
    )


def _training(subject: Subject) -> str:
    """The budget: every stage that this network needed."""
    rows = []
    for role, artifact in subject.lineage.items():
        metrics, run = artifact.metrics, artifact.provenance
        trained = "images_seen" in metrics
        rows.append(
            (
                role,
                count(metrics["images_seen"]) if trained else "–",
                count(metrics["steps"]) if trained else "–",
                count(metrics["parameters"]) if trained else "–",
                duration(run.wall_seconds),
                run.device,
            )
        )
    total = sum(artifact.provenance.wall_seconds for artifact in subject.lineage.values())
    head = ("stage", "images seen", "steps", "parameters", "wall time", "device")
    settings = {role: artifact.config for role, artifact in subject.lineage.items()}
    return "\n\n".join(
        [
            piped(head, rows, 1),
            f"{duration(total)} in total. The weights are an exponential average ({subject.ema}). All settings that "
            "can change the result:",
            f"```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100).strip()}\n```",
        ]
    )


def _files(subject: Subject, facts: dict[str, Any], onnx: Checked | None) -> str:
    rows = [
        (f"`{WEIGHTS}`", f"the weights; SHA-256 `{subject.artifact.digest(subject.weights)}`"),
        (f"`{NETWORK}`", "kind and settings of the network"),
        (f"`{SAMPLER}`", "the sampler settings; shape, classes, range and levels of samples"),
        ("`samples.png`", "images of the recommended setting" + (", the classes in turn" if facts["classes"] else "")),
    ]
    if onnx:
        rows.append(
            (
                f"`{ONNX}`",
                f"the velocity network, ONNX opset {onnx.opset}; ONNX Runtime differs by at most {onnx.difference:.1e} "
                f"of the largest velocity ({TOLERANCE:g} is allowed)",
            )
        )
    if facts["latents"]:
        rows.append(
            (f"`{facts['latents']['autoencoder']}/`", "the autoencoder of the latents, in the format of diffusers")
        )
    return piped(("file", "holds"), rows)


def _provenance(subject: Subject) -> str:
    """Of the network itself, with the revisions of earlier stages where these differ."""
    own = subject.artifact.provenance
    revisions = sorted({a.provenance.git_revision or "unknown" for a in subject.lineage.values()} - {own.git_revision})
    lines = [
        ("artifact", f"`{subject.artifact.stage}/{subject.artifact.root.name}`"),
        ("fingerprint", f"`{subject.artifact.fingerprint}`"),
        ("created", f"{own.minute} UTC"),
        ("git revision", own.git_revision or "unknown"),
        *([("git revisions of earlier stages", ", ".join(revisions))] if revisions else []),
        ("Python", own.python),
        ("platform", own.platform),
        ("packages", ", ".join(f"{name} {version}" for name, version in own.packages.items())),
    ]
    return _bullets(lines)


def _bullets(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in lines)
