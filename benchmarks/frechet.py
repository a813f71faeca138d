"""How fast the Frechet distance is: against the matrix square root, and accumulating against keeping all features.

    python -m benchmarks.frechet [--quick] [--threads 1]

writes benchmarks/results/frechet.json and .md. Two sets of 50,000 correlated samples of 2,048 features, the sizes of
an FID. One process, medians over runs, the two sides taking turns, with their results asserted equal to 1e-3. Where
torchmetrics can be imported (it is no dependency), its ways are measured too.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.publish import publish
from benchmarks.timing import Bench, Rows, processor
from pipeline.metrics import Moments, frechet_distance

CHUNK = 500  # samples that come at a time, as from an extractor
Statistics = tuple[np.ndarray, np.ndarray]  # mean (F,) and covariance (F, F)


# --- features


def features(samples: int, dimension: int, seed: int, shift: float) -> Iterator[Tensor]:
    """Chunks of (CHUNK, F) float32: not negative, correlated, of a spectrum that decays, as Inception's are."""
    mix = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dimension + 1)[:, None] ** -0.5
    weights = 0.3 * scale * torch.randn(dimension, dimension, generator=mix)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, samples, CHUNK):
        yield (torch.randn(min(CHUNK, samples - start), dimension, generator=generator) @ weights + shift).relu_()


# --- the distance


def by_square_root(a: Statistics, b: Statistics) -> float:
    """As in the code published with the FID: the square root of the product of both covariances, its real part."""
    root = sqrtm(a[1] @ b[1])
    shift = a[0] - b[0]
    return float(shift @ shift + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root.real))


def distances(bench: Bench, a: Moments, b: Moments) -> Rows:
    """Ours against others, from the same means and covariances."""
    pair = [(m.mean, m.covariance) for m in (a, b)]
    others: dict[str, Callable[[], float]] = {f"scipy {scipy.__version__}, sqrtm": lambda: by_square_root(*pair)}
    try:
        from torchmetrics import __version__ as version
        from torchmetrics.image.fid import _compute_fid
    except ImportError:
        pass
    else:
        tensors = [torch.from_numpy(array) for side in pair for array in side]
        others[f"torchmetrics {version}, eigvals"] = lambda: float(_compute_fid(*tensors))
    value = frechet_distance(a, b)
    return [
        row(bench, name, lambda: frechet_distance(a, b), work, relative(work(), value)) for name, work in others.items()
    ]


# --- the statistics


def at_once(chunks: list[Tensor]) -> Statistics:
    """As in the code published with the FID: all features in float64, then numpy's mean and covariance."""
    whole = torch.cat(chunks).double().numpy()
    return whole.mean(0), np.cov(whole, rowvar=False)


def accumulated(chunks: list[Tensor]) -> Moments:
    moments = Moments(chunks[0].shape[1])
    for chunk in chunks:
        moments.update(chunk)
    return moments


def statistics(bench: Bench, chunks: list[Tensor], ours: Moments) -> Rows:
    """Ours, chunk by chunk, against others, from the same features."""
    mean, covariance = at_once(chunks)
    error = max(relative(mean, ours.mean), relative(covariance, ours.covariance))
    rows = [
        row(
            bench,
            f"numpy {np.__version__}, mean and cov of all",
            lambda: accumulated(chunks),
            lambda: at_once(chunks),
            error,
        )
    ]
    try:
        from torchmetrics import __version__ as version
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError:
        return rows

    class Passed(torch.nn.Module):
        """In the place of the network: the features are there already."""

        def forward(self, x: Tensor) -> Tensor:
            return x

    def summed() -> Statistics:
        metric = FrechetInceptionDistance(feature=Passed(), input_img_size=chunks[0].shape[1:])
        metric.set_dtype(torch.float64)
        for chunk in chunks:
            metric.update(chunk, real=True)
        n, total = metric.real_features_num_samples, metric.real_features_sum
        scatter = metric.real_features_cov_sum - total[:, None] * total[None] / n
        return (total / n).numpy(), (scatter / (n - 1)).numpy()

    mean, covariance = summed()
    error = max(relative(mean, ours.mean), relative(covariance, ours.covariance))
    return [*rows, row(bench, f"torchmetrics {version}, sums of products", lambda: accumulated(chunks), summed, error)]


# --- measuring


def relative(actual: Any, ours: Any) -> float:
    """The largest difference, in units of the largest of ours."""
    error = float(np.abs(np.asarray(actual) - ours).max() / np.abs(ours).max())
    assert error <= 1e-3, f"both sides must agree to 1e-3, not {error}"
    return error


def row(
    bench: Bench, name: str, ours: Callable[[], object], other: Callable[[], object], error: float
) -> dict[str, Any]:
    ours_s, other_s = bench.medians(ours, other)
    times = f"({other_s:.3f} s -> {ours_s:.3f} s), difference {error:.1e}"
    print(f"{name:45} {other_s / ours_s:6.2f}x  {times}", flush=True)
    return {"against": name, "other_s": other_s, "ours_s": ours_s, "ratio": other_s / ours_s, "difference": error}


def markdown(result: dict[str, Any]) -> str:
    """The result as a page for people."""
    machine = result["machine"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    lines = [
        f"# Frechet distance of {result['dimension']:,} features, {result['samples']:,} samples on a side",
        "",
        f"{machine['processor']}, {threads}, torch {machine['torch']}. Medians of {result['repeats']} runs, the two "
        "sides of each row taking turns. Differences are relative. "
        f"Load average before the start: {machine['load']:.1f}.",
    ]
    for title, key in (
        ("The distance, from means and covariances", "distance"),
        ("Mean and covariance of one side, from features in float32", "statistics"),
    ):
        lines += [
            "",
            f"## {title}",
            "",
            "| against | its time, s | ours, s | ratio | difference |",
            "|---|---|---|---|---|",
        ]
        for r in result[key]:
            times = f"{r['other_s']:.3f} | {r['ours_s']:.3f} | {r['ratio']:.2f}"
            lines.append(f"| {r['against']} | {times} | {r['difference']:.1e} |")
    memory = f"{result['state_mib']:.0f} MiB whatever the number of samples"
    lines += ["", f"Ours keeps {memory}; all features in float64 are {result['features_mib']:.0f} MiB."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 features of 2,000 samples, once")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(args.threads)
    threadpool_limits(args.threads)  # and those of numpy and scipy

    samples, dimension = (2_000, 256) if args.quick else (50_000, 2_048)
    bench = Bench("cpu", repeats=1 if args.quick else 3)
    chunks = list(features(samples, dimension, seed=1, shift=0.0))
    real, generated = accumulated(chunks), Moments(dimension)
    for chunk in features(samples, dimension, seed=2, shift=0.02):
        generated.update(chunk)
    result: dict[str, Any] = {
        "machine": {"processor": processor(), "threads": args.threads, "torch": torch.__version__, "load": load},
        "repeats": bench.repeats,
        "quick": args.quick,
        "samples": samples,
        "dimension": dimension,
        "value": frechet_distance(real, generated),
        "distance": distances(bench, real, generated),
        "statistics": statistics(bench, chunks, real),
        "state_mib": 8 * dimension * (dimension + 1) / 2**20,
        "features_mib": 8 * dimension * samples / 2**20,
    }
    publish(args.out, "frechet", result, markdown(result))


if __name__ == "__main__":
    main()
