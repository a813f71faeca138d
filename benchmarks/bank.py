"""The bank against the disk and against a memory map, in one run; and what fewer bits cost and save.

    python -m benchmarks.bank                    # writes benchmarks/results/bank.json and the table of docs/bank.md
    python -m benchmarks.bank --dir /mnt/disk    # on another disk

Times are minima of alternating rounds, as a busy machine only ever adds to them. Files are read from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Rows, processor
from storage.bank import Bank, BankFacts, BankWriter

CIFAR, DIGITS = (3, 32, 32), (1, 8, 8)
TYPES: tuple[tuple[str, int | None], ...] = (
    ("float32", None), ("float16", None), ("float32", 10), ("float32", 8), ("float32", 6), ("float16", 8), ("float16", 6)
)  # fmt: skip
DOCS = Path("docs/bank.md")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def minima(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Least seconds of each, after one warm-up, taking turns."""
    best = [float("inf")] * len(works)
    for number in range(rounds + 1):
        for place, work in enumerate(works):
            begin = time.perf_counter()
            work()
            if number:
                best[place] = min(best[place], time.perf_counter() - begin)
    return best


def gaussian(rows: int, shape: tuple[int, int, int]) -> np.ndarray:
    """(rows, C, H, W) float32, what z is made of."""
    return np.random.default_rng(0).standard_normal((rows, *shape), dtype=np.float32)


def facts_of(z: np.ndarray, dtype: str = "float32", mantissa_bits: int | None = None, shard: int = 4096) -> BankFacts:
    return BankFacts(kind="encoded", rows=len(z), draws=1, shape=z.shape[1:], dtype=dtype, mantissa_bits=mantissa_bits,
                     shard=shard, seed=0, noise_std=0.05, sigma_f=1.0, producer="benchmark")  # fmt: skip


def write_bank(path: Path, z: np.ndarray, facts: BankFacts) -> Path:
    """A bank from nothing to finished."""
    shutil.rmtree(path, ignore_errors=True)
    writer = BankWriter(path, facts)
    for index, start, stop in writer.shards:
        writer.write(index, z=z[start:stop])
    writer.finish()
    return path


def write_raw(path: Path, z: np.ndarray, shard: int) -> None:
    """The same bytes in as many files, each forced to the disk: what the disk gives."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for start in range(0, len(z), shard):
        with open(path / str(start), "wb") as stream:
            stream.write(z[start : start + shard])
            stream.flush()
            os.fsync(stream.fileno())


def writing(folder: Path, shape: tuple[int, int, int] = CIFAR, rows: int = 16384, dtype: str = "float32",
            rounds: int = 5) -> dict[str, Any]:  # fmt: skip
    """Seconds and MB/s of a whole bank, durable, beside a raw write and fsync of the same bytes."""
    z = gaussian(rows, shape).astype(dtype)
    facts = facts_of(z, dtype)
    ours, raw = minima(
        rounds,
        lambda: write_bank(folder / "bank", z, facts),
        lambda: write_raw(folder / "raw", z, facts.shard),
    )
    row = {"what": "write", "shape": shape, "dtype": dtype, "bytes": z.nbytes, "bank_s": ours, "raw_s": raw}
    return _printed({**row, "bank_mb_s": z.nbytes / ours / 1e6, "raw_mb_s": z.nbytes / raw / 1e6, "ratio": ours / raw})


def reading(folder: Path, shape: tuple[int, int, int] = CIFAR, rows: int = 32768, dtype: str = "float32",
            batch: int = 256, rounds: int = 5) -> Rows:  # fmt: skip
    """Milliseconds a batch of one shuffled epoch, resident and with a buffer of a quarter of the bank, beside a
    random gather of the same rows from a NumPy memory map."""
    z = gaussian(rows, shape).astype(dtype)
    bank = Bank.open(write_bank(folder / "bank", z, facts_of(z, dtype)))
    z.tofile(folder / "map")
    mapped = np.memmap(folder / "map", dtype=dtype, mode="r", shape=z.shape)
    del z
    resident = bank.reader(batch, 0)
    streaming = bank.reader(batch, 0, buffer_bytes=mapped.nbytes // 4)
    assert resident.resident and not streaming.resident

    def gather() -> None:
        order = np.random.default_rng(1).permutation(rows)
        for start in range(0, rows, batch):
            mapped[order[start : start + batch]]

    def read(reader: Any) -> Callable[[], None]:
        def epoch() -> None:
            for _ in reader.epoch(1):
                pass

        return epoch

    *ours, theirs = minima(rounds, read(resident), read(streaming), gather)
    batches = -(-rows // batch)
    return [
        _printed({"what": f"read, {mode}", "shape": shape, "dtype": dtype, "batch": batch, "bytes": mapped.nbytes,
                  "bank_ms": 1e3 * seconds / batches, "memmap_ms": 1e3 * theirs / batches, "rate": theirs / seconds})
        for mode, seconds in zip(("resident", "streaming"), ours, strict=True)
    ]  # fmt: skip


def precision(folder: Path, rows: int = 4096, rounds: int = 3) -> Rows:
    """Error and size of Gaussian z in each type, with the rates of writing and loading it."""
    z, found = gaussian(rows, CIFAR), []
    for dtype, bits in TYPES:
        facts = facts_of(z, dtype, bits)
        path = folder / "bank"
        bank = Bank.open(write_bank(path, z, facts))
        kept = bank.load()["z"][0].astype(np.float64)
        error = np.abs(kept - z)
        normal = np.abs(z) > 2.0**-14  # float16 has fewer bits below
        write, load = minima(rounds, lambda f=facts: write_bank(path, z, f), lambda b=bank: b.load())
        size = sum(f.stat().st_size for f in (path / "z").glob("c.*"))
        found.append(_printed({
            "what": "precision", "dtype": dtype, "mantissa_bits": bits, "bytes_per_value": size / z.size,
            "smaller": z.nbytes / size, "max_relative": float((error[normal] / np.abs(z[normal])).max()),
            "rms": float(np.sqrt((error**2).mean())), "write_mb_s": z.nbytes / write / 1e6,
            "load_mb_s": z.nbytes / load / 1e6}))  # fmt: skip
    return found


def _printed(row: dict[str, Any]) -> dict[str, Any]:
    print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return row


@contextmanager
def scratch(parent: Path | None) -> Iterator[Path]:
    """A folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="bank-", dir=parent) as name:
        yield Path(name)


def measure(parent: Path | None = None, rounds: int = 5) -> dict[str, Any]:
    """All of it, in a folder below `parent`."""
    with scratch(parent) as folder:
        written = [writing(folder, CIFAR, dtype=dtype, rounds=rounds) for dtype in ("float32", "float16")]
        read = [row for shape, dtype, rows in ((CIFAR, "float32", 32768), (CIFAR, "float16", 32768),
                                               (DIGITS, "float32", 400_000))
                for row in reading(folder, shape, rows, dtype, rounds=rounds)]  # fmt: skip
        return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "writing": written, "reading": read,
                "precision": precision(folder)}  # fmt: skip
