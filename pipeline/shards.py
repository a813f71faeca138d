"""Fill a bank shard by shard: a crash costs the shard in hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.job import Job
from storage.bank import BankWriter


def fill(job: Job, writer: BankWriter, make: Callable[[Tensor], dict[str, Tensor]]) -> None:
    """Write the shards that are missing. `make` takes flat indices (n,) and gives the bank's arrays of those rows."""
    missing = writer.missing()
    done = len(writer.shards) - len(missing)
    for index, start, stop in missing:
        arrays = make(torch.arange(start, stop))
        writer.write(index, **{name: tensor.numpy() for name, tensor in arrays.items()})
        done += 1
        job.saved(done, len(writer.shards), "shards")
        job.progress(done, len(writer.shards), "shards")
        job.pause_point()
    writer.finish()
