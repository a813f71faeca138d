"""The model card: what the model is, how good it is and under which protocol, where it comes from, how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from models.load import NETWORK, SAMPLER, WEIGHTS
from pipeline.export._onnx import ONNX, TOLERANCE, Checked
from pipeline.export._samplers import NEAR
from pipeline.export._subject import Subject
from pipeline.outputs.results import EvaluationResult
from pipeline.reporting.page import words
from pipeline.reporting.page.scores import TEACHER, Table, metrics_of, shared, table
from pipeline.reporting.page.training import COUPLINGS
from pipeline.reporting.text.numbers import calls, count, duration, fixed, plain

NETWORKS = {
    "unet": "a U-Net (Dhariwal and Nichol 2021, arXiv 2105.05233)",
    "dit": "a diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748)",
    "tarflow": "a TarFlow (Zhai et al. 2024, arXiv 2412.06329)",
}
TAUGHT = {
    "student": "It predicts the velocity of a path from data to noise; samples solve dx/dt = v back to the data.",
    "reflow": "It was trained on pairs of noise and image that the student before it made, for straighter paths; "
    "it predicts their velocity.",
    "onestep": "It was trained on pairs of noise and image that another student made, to go all the way {steps}.",
    "teacher": "It is a normalizing flow fitted by maximum likelihood; samples are its inverse at noise.",
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
        f"# {subject.recipe}, {words.model(subject.model)}",
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
        "Not settled here. What the licence of the training data permits of a model made from it, and of "
        "its images, is for whoever passes it on to find out and to write down in this place.",
    ]
    return "\n\n".join(sections) + "\n"


def script(facts: dict[str, Any], folder: str) -> str:
    """The five lines that load the model and make images; three more decode them where they are latents."""
    noise = "z = torch.randn(16, *sampler.shape)"
    if facts["classes"]:
        noise = noise.replace("z = ", "z, labels = ") + ", torch.arange(16) % sampler.classes"
    lines = [
        "import torch",
        "from models.load import load",
        "",
        f'sampler = load("{folder}")',
        noise,
        f"images = sampler(z{', labels' if facts['classes'] else ''})",
    ]
    if facts["latents"]:
        lines += [
            "",
            "from diffusers import AutoencoderKL",
            "",
            f'vae = AutoencoderKL.from_pretrained("{folder}/{facts["latents"]["autoencoder"]}")',
            'scale, shift = (torch.tensor(sampler.facts["latents"][key]).view(-1, 1, 1) for key in ("scale", "shift"))',
            "images = vae.decode(images / scale + shift).sample.detach()",
        ]
    return "\n".join(lines)


def _what(subject: Subject, facts: dict[str, Any], kind: str) -> str:
    channels, side, _ = facts["images"]["shape"]
    images = f"{side} × {side} pixels and {'grey' if channels == 1 else 'colour'}"
    if subject.model == "teacher":
        made = f"by inverting {len(facts['schedules'])} blocks"
    else:
        made = f"in {calls(facts['ways'][facts['recommended']]['nfe'])}"
    wanted = f" of {len(facts['classes'])} classes" if facts["classes"] else ""
    lines = [
        f"Makes images{wanted}, {images}, of Gaussian noise {made}.",
        f"The network is {NETWORKS[kind]} of {count(subject.artifact.metrics['parameters'])} parameters.",
        TAUGHT[subject.model.partition("-")[0]].format(steps=_steps(subject.artifact.config.get("steps", 1))),
    ]
    if subject.model != "teacher":
        coupling = subject.artifact.metrics["coupling"]
        lines.append(f"Trained on: {COUPLINGS.get(coupling, coupling)}.")
    if facts["latents"]:
        lines.append("Its samples are latents, which the autoencoder beside it makes images of.")
    return "\n".join(lines)


def _steps(count: int) -> str:
    return "at once" if count == 1 else f"in {count} Euler steps of equal length"


def _load(facts: dict[str, Any], folder: str) -> str:
    low, high = facts["images"]["range"]
    text = (
        f"With PyTorch, safetensors and the package `models` of flowctl on the path, next to this folder:\n\n"
        f"```python\n{script(facts, folder)}\n```\n\n"
        f"Images are float32, nominally in [{low}, {high}]; `sampler.quantise(images)` makes the "
        f"{facts['images']['levels']} grey levels of the data of them, halves up."
    )
    if facts.get("ways"):
        choices = ", ".join(str(nfe) for nfe in dict.fromkeys(way["nfe"] for way in facts["ways"]))
        text += f" `sampler(…, nfe=n)` takes n network calls: one of {choices}."
    names = facts["classes"]
    if names and names != [str(i) for i in range(len(names))]:
        text += (
            "\n\nClasses: "
            + ", ".join(f"{i} {name}" for i, name in enumerate(names[:100]))
            + (" …" if len(names) > 100 else ".")
        )
    return text


def _results(subject: Subject, facts: dict[str, Any]) -> str:
    scores = subject.scores
    if not scores:
        return f"Not measured with this average of the weights ({subject.ema})."
    evaluation = EvaluationResult.model_validate(subject.made["evaluation"].metrics)
    teachers = [score for score in evaluation.scores if score.model == TEACHER]
    everything = scores if subject.model == TEACHER else [*teachers, *scores]
    tables = [
        _scores(table({subject.recipe: everything}, evaluation.floor, metric, evaluation.floors))
        for metric in metrics_of(scores)
    ]
    if facts.get("metric"):
        way = facts["ways"][facts["recommended"]]
        tables.append(
            f"Recommended: {calls(way['nfe'])}, the fewest whose {facts['metric']} is within "
            f"{fixed(100 * (NEAR - 1), 0)} % of the best."
        )
    protocol = [
        (words.field(name), str(value) if name == "seed" else plain(value))  # a seed is no quantity
        for name, value in shared(scores).items()
    ] + [("digest", f"`{evaluation.protocol}`")]
    return "\n\n".join(
        [
            *tables,
            "The protocol; numbers of another one cannot be compared with these:",
            _bullets(protocol),
            *(f"Warning: {text}" for text in evaluation.warnings),
        ]
    )


def _scores(made: Table) -> str:
    """A table by network calls, and what to hold it against."""
    better = "lower" if made.lower_is_better else "higher"
    levels = "; ".join(f"{words.model(level.model)} {level.text}" for level in made.levels)
    lines = [f"{made.metric}, {better} is better." + (f" {levels[:1].upper()}{levels[1:]}." if levels else "")]
    if made.rows:
        head = (f"{made.metric} at calls", *map(count, made.nfe))
        lines.insert(
            0,
            _table(
                head,
                [(row.way, *(cell.text if cell else "–" for cell in row.cells)) for row in made.rows],
                numbers=True,
            ),
        )
    return "\n\n".join(lines)


def _data(subject: Subject) -> str:
    found = subject.made["data"].metrics
    channels, side = found.get("pixels") or (found["channels"], found["size"])
    return (
        f"{found['name']}: {count(found['train'])} training and {count(found['test'])} held-out images of "
        f"{channels} × {side} × {side}, {found['levels']} levels"
        + (", mirror images too" if subject.made["data"].config["flips"] else "")
        + f"; fingerprint `{subject.made['data'].fingerprint[:12]}`."
    )


def _training(subject: Subject) -> str:
    """The budget: every stage that this network needed, the longest of them usually not its own."""
    rows = []
    for role, artifact in subject.lineage.items():
        found, made = artifact.metrics, artifact.provenance
        trained = "images_seen" in found
        rows.append(
            (
                role,
                count(found["images_seen"]) if trained else "–",
                count(found["steps"]) if trained else "–",
                count(found["parameters"]) if trained else "–",
                duration(made.wall_seconds),
                made.device,
            )
        )
    total = sum(artifact.provenance.wall_seconds for artifact in subject.lineage.values())
    head = ("stage", "images seen", "steps", "parameters", "wall time", "device")
    settings = {role: artifact.config for role, artifact in subject.lineage.items()}
    return "\n\n".join(
        [
            _table(head, rows, numbers=True),
            f"{duration(total)} in all. The weights are an exponential average ({subject.ema}). All settings that can "
            "change the result:",
            f"```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100).strip()}\n```",
        ]
    )


def _files(subject: Subject, facts: dict[str, Any], onnx: Checked | None) -> str:
    rows = [
        (f"`{WEIGHTS}`", f"the weights; SHA-256 `{subject.artifact.digest(subject.weights)}`"),
        (f"`{NETWORK}`", "kind and shape of the network"),
        (f"`{SAMPLER}`", "how samples are made, and what they are: shape, classes, range, levels"),
        ("`samples.png`", "images of the recommended way" + (", the classes in turn" if facts["classes"] else "")),
    ]
    if onnx:
        rows.append(
            (
                f"`{ONNX}`",
                f"the velocity network, ONNX opset {onnx.opset}; ONNX Runtime's answers differ by at "
                f"most {onnx.difference:.1e} of the largest velocity ({TOLERANCE:g} is allowed)",
            )
        )
    if facts["latents"]:
        rows.append((f"`{facts['latents']['autoencoder']}/`", "the autoencoder of the latents, as diffusers reads it"))
    return _table(("file", "holds"), rows)


def _provenance(subject: Subject) -> str:
    """Of the network itself; the stages before it may have been made elsewhere, which is said."""
    made = subject.artifact.provenance
    revisions = sorted({a.provenance.git_revision or "unknown" for a in subject.lineage.values()} - {made.git_revision})
    lines = [
        ("artifact", f"`{subject.artifact.stage}/{subject.artifact.root.name}`"),
        ("fingerprint", f"`{subject.artifact.fingerprint}`"),
        ("made", made.created),
        ("git revision", made.git_revision or "unknown"),
        *([("git revisions of earlier stages", ", ".join(revisions))] if revisions else []),
        ("Python", made.python),
        ("platform", made.platform),
        ("packages", ", ".join(f"{name} {version}" for name, version in made.packages.items())),
    ]
    return _bullets(lines)


def _bullets(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    ruler = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (head, ruler, *rows)]
    return "\n".join(f"| {line} |" for line in lines)
