"""The bank against the disk and against a memory map, in one run; and what fewer bits cost and save.

    python -m benchmarks.bank                    # writes benchmarks/results/bank.json and the tables of docs/bank.md
    python -m benchmarks.bank --dir /mnt/disk    # on another disk

Times are the least of several rounds that take turns, for a busy machine only ever adds to them. Files are read from
the page cache, as they are from the second epoch on wherever memory holds them.
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
import torch

from benchmarks.timing import Rows, processor
from pipeline.couplings import Banked
from pipeline.data.examples import Examples
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.times import Uniform
from pipeline.training._data import Prefetcher
from pipeline.training.flow_batches import STEPS_AHEAD, FlowBatches
from storage.bank import Bank, BankFacts, BankWriter, BatchReader, Streamed

CIFAR, DIGITS = (3, 32, 32), (1, 8, 8)
TYPES: tuple[tuple[str, int | None], ...] = (
    ("float32", None), ("float16", None),
    ("float32", 10), ("float32", 8), ("float32", 6), ("float16", 8), ("float16", 6),
)  # fmt: skip
SHARD = 4096
RESULTS, DOCS = Path("benchmarks/results/bank.json"), Path("docs/bank.md")
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"


def minima(rounds: int, *works: Callable[[], object], before: Callable[[], object] = lambda: None) -> list[float]:
    """Least seconds of each, after one warm-up, taking turns; `before` is called before each and not timed."""
    best = [float("inf")] * len(works)
    for number in range(rounds + 1):
        for place, work in enumerate(works):
            before()
            begin = time.perf_counter()
            work()
            if number:
                best[place] = min(best[place], time.perf_counter() - begin)
    return best


def gaussian(rows: int, shape: tuple[int, int, int], dtype: str = "float32") -> np.ndarray:
    """Gaussian rows (rows, C, H, W)."""
    return np.random.default_rng(0).standard_normal((rows, *shape), dtype=np.float32).astype(dtype)


def facts_of(shape: tuple[int, ...], rows: int, dtype: str = "float32", mantissa_bits: int | None = None) -> BankFacts:
    return BankFacts(kind="encoded", rows=rows, draws=1, shape=shape, dtype=dtype, mantissa_bits=mantissa_bits,
                     shard=SHARD, seed=0, noise_std=0.05, sigma_f=1.0, producer="benchmark")  # fmt: skip


def write_bank(path: Path, z: np.ndarray, rows: int, dtype: str = "float32", mantissa_bits: int | None = None) -> Path:
    """A finished bank of `rows` rows; each shard holds the first rows of z."""
    writer = BankWriter(path, facts_of(z.shape[1:], rows, dtype, mantissa_bits))
    for index, start, stop in writer.shards:
        writer.write(index, z=z[: stop - start])
    writer.finish()
    return path


def write_raw(path: Path, z: np.ndarray) -> None:
    """A file of the same bytes, forced to the disk: the rate of the disk alone."""
    with open(path, "wb") as stream:
        stream.write(z)
        stream.flush()
        os.fsync(stream.fileno())


def writing(folder: Path, shape: tuple[int, int, int] = CIFAR, given: str = "float32", dtype: str = "float32",
            shards: int = 24) -> dict[str, Any]:  # fmt: skip
    """Shards of `dtype` from rows of type `given`, each durable, in turn with a raw write and fsync of the same bytes.

    The rates are of the fastest shard and of the median one; `whole_s` is the time to begin and finish the bank.
    """
    z, ours, peers = gaussian(SHARD, shape, given), [], []
    same, rows = z.astype(dtype), shards * SHARD
    timer = time.perf_counter
    write_bank(folder / "bank", z, SHARD, dtype)  # warm-up
    shutil.rmtree(folder / "bank")
    begin = timer()
    writer = BankWriter(folder / "bank", facts_of(shape, rows, dtype))
    whole = timer() - begin
    for index in range(shards):
        begin = timer()
        writer.write(index, z=z)
        ours.append(timer() - begin)
        begin = timer()
        write_raw(folder / "raw", same)
        peers.append(timer() - begin)
        (folder / "raw").unlink()
    begin = timer()
    writer.finish()
    whole += timer() - begin
    shutil.rmtree(folder / "bank")
    rates = {
        "bank_mb_s": same.nbytes / min(ours) / 1e6,
        "raw_mb_s": same.nbytes / min(peers) / 1e6,
        "ratio": min(ours) / min(peers),
        "median_ratio": float(np.median(ours) / np.median(peers)),
        "whole_s": whole,
    }
    return _printed({"what": "write", "shape": shape, "given": given, "dtype": dtype, "bytes": same.nbytes} | rates)


def reading(folder: Path, shape: tuple[int, int, int] = CIFAR, dtype: str = "float32", shards: int = 8,
            batch: int = 256, rounds: int = 5) -> Rows:  # fmt: skip
    """A shuffled epoch, milliseconds a batch, against a random gather of as many rows from a NumPy memory map.

    From memory; with a buffer of a quarter of the bank; and so in the first epoch of a process, which also checks what
    it reads, against a memory map that is new as well.
    """
    z, rows = gaussian(SHARD, shape, dtype), shards * SHARD
    bank = Bank.open(write_bank(folder / "bank", z, rows, dtype))
    np.concatenate([z] * shards).tofile(folder / "map")
    size = shards * z.nbytes

    def mapping() -> np.ndarray:
        return np.memmap(folder / "map", dtype=dtype, mode="r", shape=(rows, *shape))

    def gather(rows_of: np.ndarray) -> None:
        order = np.random.default_rng(1).permutation(rows)
        for start in range(0, rows, batch):
            rows_of[order[start : start + batch]]

    def epoch(reader: BatchReader) -> None:
        for _ in reader.epoch(1):
            pass

    old, resident, streaming = (
        mapping(),
        BatchReader(bank, batch, 0),
        BatchReader(bank, batch, 0, buffer_bytes=size // 4),
    )
    memory, later, first, old_map, new_map = minima(
        rounds,
        lambda: epoch(resident),
        lambda: epoch(streaming),
        lambda: epoch(BatchReader(Bank.open(bank.path), batch, 0, buffer_bytes=size // 4)),
        lambda: gather(old),
        lambda: gather(mapping()),
    )
    shutil.rmtree(folder / "bank")
    (folder / "map").unlink()
    batches = -(-rows // batch)
    return [
        _printed({"what": f"read, {mode}", "shape": shape, "dtype": dtype, "batch": batch, "bytes": size,
                  "bank_ms": 1e3 * ours / batches, "memmap_ms": 1e3 * peers / batches, "rate": peers / ours})
        for mode, ours, peers in (("resident", memory, old_map), ("streaming", later, old_map),
                                   ("streaming, first epoch", first, new_map))
    ]  # fmt: skip


def waiting(folder: Path, seconds: float = 60.0, rate: float = 5000.0, batch: int = 128, rows: int = 16_384,
            draws: int = 8) -> Rows:  # fmt: skip
    """The share of a training's time that is spent waiting for its batches, at `rate` images of 3x32x32 a second.

    The batches are the student's, prepared ahead as in training; the step is a sleep until the step would end. From
    memory, from the disk through the page cache, and from a disk whose pages were dropped from that cache before.
    """
    facts = facts_of(CIFAR, rows, "float16").model_copy(update={"draws": draws})
    writer, z = BankWriter(folder / "bank", facts), gaussian(SHARD, CIFAR, "float16")
    for index, start, stop in writer.shards:
        writer.write(index, z=z[: stop - start])
    writer.finish()
    pixels = np.random.default_rng(0).integers(256, size=(rows, *CIFAR), dtype=np.uint8)
    bank, result = Bank.open(folder / "bank"), []
    for mode in ("resident", "streamed, page cache", "streamed, cold"):
        if mode.endswith("cold"):
            forget(bank.path / "z")
            bank = Bank.open(bank.path)  # no chunk is checked yet
        stored = bank.load()["z"] if mode == "resident" else Streamed(bank, "z")
        batches = FlowBatches(Examples(pixels, None), Banked(stored), Uniform(), LINEAR, 0.0, 0, batch)
        batches.ahead = STEPS_AHEAD
        prefetcher, steps = Prefetcher(batches, torch.device("cpu")), max(8, int(seconds * rate / batch))
        begin, used = time.monotonic(), time.process_time()
        for step, _ in prefetcher.steps(range(steps)):
            # A step that waited ends later, as it would on a GPU.
            time.sleep(max(0.0, begin + prefetcher.waited + (step + 1) * batch / rate - time.monotonic()))
        elapsed = time.monotonic() - begin
        result.append(_printed({"what": mode, "rate": rate, "batch": batch, "bytes": draws * rows * z[0].nbytes,
                                "seconds": elapsed, "images_s": steps * batch / elapsed,
                                "cpu_ms": 1e3 * (time.process_time() - used) / steps,
                                "waited": prefetcher.waited / elapsed}))  # fmt: skip
    shutil.rmtree(folder / "bank")
    return result


def forget(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    for file in folder.glob("c.*"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def precision(folder: Path, rounds: int = 3) -> Rows:
    """Error and size of Gaussian z of CIFAR's shape in each type, and the rates of writing and loading it."""
    z, result = gaussian(SHARD, CIFAR), []
    for dtype, bits in TYPES:

        def write(dtype: str = dtype, bits: int | None = bits) -> Path:
            return write_bank(folder / "bank", z, SHARD, dtype, bits)

        def clear() -> None:
            shutil.rmtree(folder / "bank", ignore_errors=True)

        (written,) = minima(rounds, write, before=clear)
        bank = Bank.open(folder / "bank")
        (loaded,) = minima(rounds, bank.load)
        error = np.abs(bank.load()["z"][0].astype(np.float64) - z)
        normal = np.abs(z) > 2.0**-14  # below, float16 has fewer bits
        size = sum(file.stat().st_size for file in bank.path.glob("z/c.*"))
        clear()
        result.append(_printed({
            "what": "precision", "dtype": dtype, "mantissa_bits": bits, "bytes_per_value": size / z.size,
            "smaller": z.nbytes / size, "max_relative_error": float((error[normal] / np.abs(z[normal])).max()),
            "rms_error": float(np.sqrt((error**2).mean())), "write_mb_s": z.nbytes / written / 1e6,
            "load_mb_s": z.nbytes / loaded / 1e6}))  # fmt: skip
    return result


def measure(parent: Path | None = None, rounds: int = 5, seconds: float = 60.0) -> dict[str, Any]:
    """All of it, in a folder below `parent` that is removed."""
    with scratch(parent) as folder:
        types = (("float32", "float32"), ("float16", "float16"), ("float32", "float16"))
        return {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "writing": [writing(folder, given=given, dtype=dtype) for given, dtype in types],
            "reading": [*reading(folder, CIFAR, "float32", rounds=rounds),
                        *reading(folder, CIFAR, "float16", rounds=rounds),
                        *reading(folder, DIGITS, "float32", shards=64, rounds=rounds)],
            "precision": precision(folder),
            "waiting": waits(folder, seconds),
        }  # fmt: skip


def waits(folder: Path, seconds: float) -> dict[str, Any]:
    """The waiting, and the load that it was measured under."""
    return {"load": os.getloadavg()[0], "rows": waiting(folder, seconds)}


@contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="bank-", dir=parent) as name:
        yield Path(name)


def tables(result: dict[str, Any]) -> str:
    """What docs/bank.md shows."""
    by_precision = {f"{row['dtype']}, {row['mantissa_bits'] or 'all'} bits": row for row in result["precision"]}
    lines = [
        "| type and mantissa bits | bytes a value | smaller than float32 | largest relative error | RMS error of z | "
        "write, MB/s | load, MB/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(f"| {name} | {row['bytes_per_value']:.2f} | {row['smaller']:.2f} × | {row['max_relative_error']:.2g} "
          f"| {row['rms_error']:.2g} | {row['write_mb_s']:,.0f} | {row['load_mb_s']:,.0f} |"
          for name, row in by_precision.items()),
        "",
        "Gaussian z of 3 × 32 × 32, one shard; rates in MB of float32, durable writing included. "
        f"{result['processor']}, {result['cores']} cores, load average {result['load']:.0f}.",
        "",
        "## Speed",
        "",
        f"| {SHARD:,} rows, durable | bank, MB/s | raw write and fsync, MB/s | time, bank : raw, fastest shards "
        "| median shards |",
        "|---|---:|---:|---:|---:|",
        *(f"| {row['dtype']}" + ("" if row["given"] == row["dtype"] else f", given as {row['given']}") +
          f" | {row['bank_mb_s']:,.0f} | {row['raw_mb_s']:,.0f} | {row['ratio']:.2f} | {row['median_ratio']:.2f} |"
          for row in result["writing"]),
        "",
        "| shuffled batches of 256 | shape, type | bank, ms | memory map, ms | rate, bank : map |",
        "|---|---|---:|---:|---:|",
        *(f"| {row['what'].removeprefix('read, ')} | {' × '.join(map(str, row['shape']))}, {row['dtype']} "
          f"| {row['bank_ms']:.3f} | {row['memmap_ms']:.3f} | {row['rate']:.0%} |" for row in result["reading"]),
        "",
        *_waiting_table(result["waiting"]),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _waiting_table(waiting: dict[str, Any]) -> list[str]:
    rate, batch = waiting["rows"][0]["rate"], waiting["rows"][0]["batch"]
    return [
        f"| a student at {rate:,.0f} images of 3 × 32 × 32 a second | waits for data | processor time, ms a batch |",
        "|---|---:|---:|",
        *(f"| {row['what']} | {row['waited']:.1%} | {row['cpu_ms']:.1f} |" for row in waiting["rows"]),
        "",
        f"Batches of {batch} from {waiting['rows'][0]['bytes'] / 1e9:.1f} GB, prepared ahead; a step is a sleep. Load "
        f"average {waiting['load']:.0f}.",
    ]


def _printed(row: dict[str, Any]) -> dict[str, Any]:
    print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each training that waits for data")
    parser.add_argument("--waiting", action="store_true", help="measure that alone; other figures stay")
    args = parser.parse_args()
    if args.waiting:
        with scratch(args.dir) as folder:
            result = json.loads(RESULTS.read_text()) | {"waiting": waits(folder, args.seconds)}
    else:
        result = measure(args.dir, args.rounds, args.seconds)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    text = DOCS.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    DOCS.write_text(before + tables(result) + after)


if __name__ == "__main__":
    main()
