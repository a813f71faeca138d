"""What an evaluation computes after its scores: each figure is written at once, and a resumed run reads it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL.Image import Image
from torch import Tensor

from pipeline.flow_matching.solvers import Velocity
from pipeline.runtime.job import Job
from storage.atomic import replacing
from storage.checksummed_json import read_checksummed, write_checksummed

FOLDER = "figures"  # in the work directory


def resumed(job: Job, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Plain data: those that an earlier attempt wrote under this name if the file is intact, else computed and written.

    Any rank may call it, with a name that no other rank uses.
    """
    path = job.work / FOLDER / f"{name}.json"
    facts = read_checksummed(path)
    if facts is None:
        facts = compute()
        write_checksummed(path, facts)
    return facts


def stoppable(velocity: Velocity, job: Job) -> Velocity:
    """The velocity, with a stop point before each evaluation: a walk of large networks takes minutes."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        job.pause_point()
        return velocity(x, t)

    return field


class Figures:
    """Figures of the first rank, counted for the progress bar; after each the stage can stop and resume.

    Args:
        job: the evaluation.
        total: figures to come.
    """

    def __init__(self, job: Job, total: int) -> None:
        self.job, self.done, self.total = job, 0, total

    def numbers(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """See `resumed`."""
        facts = resumed(self.job, name, compute)
        self._count()
        return facts

    def picture(self, name: str, draw: Callable[[], Image | None]) -> None:
        """Draw a picture into the artifact, unless an earlier attempt did; None draws nothing."""
        path = self.job.out / name
        if not path.exists() and (image := draw()) is not None:
            with replacing(path) as aside:
                image.save(aside, format="png")
        self._count()

    def _count(self) -> None:
        self.done += 1
        self.job.saved(self.done, self.total, "figures")
        self.job.progress(self.done, self.total, "figures")
        self.job.pause_point()
