"""Do the models repeat training images? The table and the picture of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.outputs.results import EvaluationResult
from pipeline.reporting.page import words
from pipeline.reporting.page.figures import Picture, picture
from pipeline.reporting.text.numbers import count, fixed
from storage.artifact import Artifact

SUSPICIOUS = 0.1  # share of samples nearer than 5 % of the held-out images are; twice chance


@dataclass(frozen=True)
class Memorised:
    """The section of the page: (model, median, share nearer) for each model and for the held-out images."""

    rows: tuple[tuple[str, str, str], ...]
    verdict: str
    sound: bool
    picture: Picture | None


def view(found: EvaluationResult, evaluation: Artifact) -> Memorised | None:
    """None where it was not looked at."""
    results = found.memorisation
    if not results:
        return None
    first = results[0]
    rows = [
        (
            f"{words.model(item.model)}{f', {count(item.nfe)} calls' if item.nfe > 1 else ''}",
            fixed(item.samples[1], 3),
            f"{fixed(100 * item.copies, 1)} %",
        )
        for item in results
    ]
    rows.append((f"{count(first.real)} held-out images", fixed(first.held_out[1], 3), "5 % by definition"))
    high = [item for item in results if item.copies > SUSPICIOUS]
    verdict = (
        "No model’s samples are noticeably nearer to training images than held-out images are."
        if not high
        else f"The {' and the '.join(words.model(item.model) for item in high)} may repeat training images: more than "
        f"{fixed(100 * SUSPICIOUS, 0)} % of the samples are nearer to one than all but 5 % of the held-out images."
    )
    return Memorised(
        tuple(rows),
        verdict,
        not high,
        picture(
            evaluation,
            "neighbours.png",
            "Grid of images. For each model a row of samples, and below each sample the "
            "training image that is nearest to it.",
            f"The samples that come nearest to any of the {count(first.train)} training images, nearest first; "
            "below each, that image.",
        ),
    )
