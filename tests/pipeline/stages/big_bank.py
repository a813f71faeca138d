"""Train on a bank, as a program of its own within a limit of its address space: BANK BYTES."""

import hashlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import Uniform
from pipeline.training.flow_batches import FlowBatches
from pipeline.training.student import train
from storage.bank import Bank, BankFacts, BankWriter, Streamed
from tests.pipeline.jobs import job, training

SHAPE, ROWS, DRAWS = (3, 32, 32), 1024, 16  # 201 MB


def write_bank(path: Path) -> Bank:
    facts = BankFacts(kind="encoded", rows=ROWS, draws=DRAWS, shape=SHAPE, dtype="float32", shard=2048, seed=0,
                      noise_std=0.05, sigma_f=1.0, producer="test")  # fmt: skip
    writer = BankWriter(path, facts)
    for index, start, stop in writer.shards:
        z = np.random.default_rng(start).standard_normal((stop - start, *SHAPE), dtype=np.float32)
        writer.write(index, z=z)
    writer.finish()
    return Bank.open(path)


class Line(nn.Module):
    """A velocity linear in each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(SHAPE))

    def forward(self, x, t, labels=None):
        return self.scale * x


def weights(z, work: Path, images: int = 1600) -> str:
    """Digest of the weights after a training."""
    pixels = np.random.default_rng(7).integers(256, size=(ROWS, *SHAPE)).astype(np.uint8)
    batches = FlowBatches(Examples(pixels, None), Banked(z), Uniform(), LINEAR, 0.0, 7, 32)
    task = job(work)
    network = train(task, Line(), batches, training(images=images), torch.device("cpu")).network
    return hashlib.sha256(network.scale.detach().numpy().tobytes()).hexdigest()


def address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def main(path: str, room: str) -> None:
    torch.set_num_threads(1)
    bank = Bank.open(Path(path))
    with tempfile.TemporaryDirectory() as work:
        weights(Streamed(bank, "z"), Path(work) / "first", images=64)  # everything is imported, threads have stacks
        before = address_space()
        resource.setrlimit(resource.RLIMIT_AS, (before + int(room), before + int(room)))
        answer = {"streamed": weights(Streamed(bank, "z"), Path(work) / "second")}
    answer["grown"] = address_space() - before
    try:
        bank.load()
        answer["resident"] = "fits"
    except MemoryError:
        answer["resident"] = "MemoryError"
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
