"""The fields of a score's protocol: which of them tell the rows of a table apart, and which all its scores share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.outputs.results import Score
from pipeline.reporting.text.numbers import plain
from storage.errors import InputError

# sampled_together: images in a batch, for which an adaptive solver and Jacobi decoding choose one number of steps
SAMPLING = ("grid", "guidance", "annealed", "temperature", "attention_temperature", "denoised", "sampled_together")
BUDGET = ("images_seen", "ema")  # settings that a fair comparison holds equal
TRAINING = (*BUDGET, "noise", "path")
OF_A_ROW = (*SAMPLING, *TRAINING)  # every other field belongs to the table as a whole
SEED = "seed"


class ProtocolError(InputError):
    """Numbers of different protocols were asked for in one table."""


def stated(name: str, value: Any) -> str:
    """A field's value for readers. A seed is no quantity: no thousands."""
    return str(value) if name == SEED else plain(value)


def agreed(scores: Iterable[Score]) -> dict[str, Any]:
    """The fields of the protocol that all these scores have in common, those of single rows left out."""
    first, *others = [score.protocol for score in scores]
    return {
        field: value
        for field, value in first.items()
        if field not in OF_A_ROW and all(field in other and other[field] == value for other in others)
    }


def require_one(scores: Sequence[Score]) -> dict[str, Any]:
    """The fields that all these scores share. Raises ProtocolError where they differ in one that is not of a row."""
    same = agreed(scores)
    for field in dict.fromkeys(field for score in scores for field in score.protocol):
        if field not in same and field not in OF_A_ROW:
            values = dict.fromkeys(stated(field, score.protocol.get(field)) for score in scores)
            raise ProtocolError(
                "Numbers in one table must share one protocol",
                f"{field}: {' and '.join(values)}",
                "Evaluate again, so that all scores share it.",
            )
    return same
