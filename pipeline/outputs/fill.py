"""Fill a bank shard by shard: a crash costs the shard in hand."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.runtime import ranks
from pipeline.runtime.job import Job
from storage.bank import BankWriter
from storage.bank.reopen import reopen

log = logging.getLogger(__name__)


def fill(job: Job, writer: BankWriter, make: Callable[[Tensor], dict[str, Tensor]]) -> None:
    """Write the shards that are missing, each rank its own. The bytes are those that one rank alone would write.

    `make` takes flat indices (n,) and gives the bank's arrays of those rows.
    """
    if ranks.first() and len(writer.missing()) < len(writer.shards):
        for index in reopen(writer.path):  # only intact shards of an earlier run count
            log.warning("%s: shard %d is damaged and is written again", job.stage, index)
    missing = ranks.agreed(writer.missing())  # as one rank saw it, before any began
    types = dict.fromkeys(("z", "x"), getattr(torch, writer.facts.dtype))
    total, before = len(writer.shards), len(writer.shards) - len(missing)
    for number, (index, start, stop) in enumerate(ranks.mine(missing), 1):
        with job.timings.measure(writer.path.stem, (stop - start) * ranks.world()):
            arrays = make(torch.arange(start, stop))
            # Converted by torch, where the values are: NumPy takes far longer over float16.
            writer.write(
                index,
                **{name: tensor.to(types.get(name, tensor.dtype)).cpu().numpy() for name, tensor in arrays.items()},
            )
        done = min(total, before + number * ranks.world())  # the others are about as far
        job.saved(done, total, "shards")
        job.progress(done, total, "shards")
        job.pause_point()
    ranks.barrier()
    if ranks.first():
        writer.finish()
    ranks.barrier()
