"""Every sampler's scores, one after another: a stopped evaluation resumes after the last one.

The first samples of each are stored with its scores, for the pictures and the search for training images among them:
no image is sampled twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.levels import quantise, to_unit
from pipeline.evaluation.evaluator import Evaluator, SamplerUnderTest
from pipeline.outputs.results import Score
from pipeline.recipe.sections import Evaluation
from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from storage.atomic import replacing, sha256_file
from storage.checksummed_json import read_checksummed, write_checksummed
from storage.inspection import SCORES


@dataclass(frozen=True)
class Scored:
    """A sampler, its scores, and its first samples.

    Attributes:
        sampler: the sampler under test.
        scores: the Frechet distance first.
        path: the samples' file, grey levels (n, C, H, W) uint8; on the first rank's machine.
        levels: number of grey levels.
    """

    sampler: SamplerUnderTest
    scores: tuple[Score, ...]
    path: Path
    levels: int

    def samples(self, rows: Tensor | None = None) -> Tensor:
        """(n, C, H, W) float32 in [-1, 1]: the stored samples, or those of these numbers."""
        images = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(to_unit(np.asarray(images if rows is None else images[rows.numpy()]), self.levels))


def score_all(job: Job[Evaluation], samplers: Sequence[tuple[Evaluator, SamplerUnderTest]]) -> list[Scored]:
    """The scores of each sampler by its evaluator; those of an earlier attempt are read, not computed again."""
    records = ranks.agreed(_finished(job))
    for number, (evaluator, sampler) in enumerate(samplers):
        if number >= len(records):
            scores, images = evaluator.score(sampler, job)
            digest = _write_samples(_path(job, number), images, evaluator.levels) if ranks.first() else ""
            records.append((scores, digest))
            if ranks.first():
                write_checksummed(
                    job.work / SCORES,
                    {
                        "scores": [[score.model_dump(mode="json") for score in scores] for scores, _ in records],
                        "samples": [digest for _, digest in records],
                    },
                )
            job.saved(len(records), len(samplers), "scores")
        job.progress(number + 1, len(samplers), "scores")
        job.pause_point()
    return [
        Scored(sampler, scores, _path(job, number), evaluator.levels)
        for number, ((evaluator, sampler), (scores, _)) in enumerate(zip(samplers, records, strict=True))
    ]


def _path(job: Job[Evaluation], number: int) -> Path:
    return job.work / f"samples-{number}.npy"


def _write_samples(path: Path, images: Tensor, levels: int) -> str:
    with replacing(path) as aside, open(aside, "wb") as stream:
        np.save(stream, quantise(images.numpy(), levels))
    return sha256_file(path)


def _finished(job: Job[Evaluation]) -> list[tuple[tuple[Score, ...], str]]:
    """Scores and samples' digests of an earlier attempt, up to the first that is not intact."""
    facts = read_checksummed(job.work / SCORES) or {"scores": [], "samples": []}
    records = []
    try:
        for number, (scores, digest) in enumerate(zip(facts["scores"], facts["samples"], strict=True)):
            path = _path(job, number)
            if not path.exists() or sha256_file(path) != digest:
                break
            records.append((tuple(Score.model_validate(score) for score in scores), digest))
    except (KeyError, ValueError):  # another version's records
        return []
    return records
