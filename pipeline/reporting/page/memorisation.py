"""Do the models repeat training images? The table, the verdict and the picture."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.outputs.results import EvaluationResult, MemorisationResult
from pipeline.reporting.page.figures import Picture, picture
from pipeline.reporting.text.names import model
from pipeline.reporting.text.numbers import calls, count, fixed
from storage.artifact import Artifact

CHANCE = 0.05  # share of held-out images nearer than their 5th percentile, by definition
SUSPICIOUS = 0.1  # share of samples nearer than that: twice chance
FAR = 1.25  # ratio of median distances, samples to held-out images, above which samples resemble no image


@dataclass(frozen=True)
class Memorisation:
    """The section of the page: (images, median distance, share that is near) for each model and the held-out images.

    `state` is "passed", "doubtful" or "unclear", the class of the style sheet that shows the verdict.
    """

    rows: tuple[tuple[str, str, str], ...]
    verdict: str
    state: str
    near: str
    picture: Picture | None


def view(result: EvaluationResult, evaluation: Artifact) -> Memorisation | None:
    """None where it was not measured."""
    results = result.memorisation
    if not results:
        return None
    first = results[0]
    rows = [
        (
            f"{model(item.model)}{f', {calls(item.nfe)}' if item.nfe > 1 else ''}",
            fixed(item.samples[1], 3),
            f"{fixed(100 * item.copies, 1)} %",
        )
        for item in results
    ]
    near = f"{fixed(100 * CHANCE, 0)} %"
    rows.append((f"{count(first.real)} held-out images", fixed(first.held_out[1], 3), f"{near} by definition"))
    state, verdict = _verdict(results)
    return Memorisation(
        tuple(rows),
        verdict,
        state,
        near,
        picture(
            evaluation,
            "neighbours.png",
            "Grid of images. For each model a row of samples, and below each sample the training image nearest to it.",
            f"The samples nearest to any of the {count(first.train)} training images, nearest first; below each, that "
            "image.",
        ),
    )


def _verdict(results: tuple[MemorisationResult, ...]) -> tuple[str, str]:
    """Copies are denied only for samples that could be images: noise is near to nothing."""
    copying = [item for item in results if item.copies > SUSPICIOUS]
    if copying:
        return "doubtful", (
            f"{_the(copying)} may repeat training images: more than {fixed(100 * SUSPICIOUS, 0)} % of the "
            f"samples are as near to one as the nearest {fixed(100 * CHANCE, 0)} % of held-out images."
        )
    far = [item for item in results if item.samples[1] > FAR * item.held_out[1]]
    if far:
        return "unclear", (
            f"No verdict for {_the(far)[0].lower()}{_the(far)[1:]}: the samples are farther from training images than "
            "held-out images are, so they resemble no image of the data, copied or new."
        )
    return "passed", (
        f"No sign of copies: of no model are more than {fixed(100 * SUSPICIOUS, 0)} % of the samples as near to a "
        f"training image as the nearest {fixed(100 * CHANCE, 0)} % of held-out images."
    )


def _the(items: list[MemorisationResult]) -> str:
    return f"The {' and the '.join(model(item.model) for item in items)}"
