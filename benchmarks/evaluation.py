"""Cost of measuring relative to sampling: features, moments and further metrics, in the pass that generates.

    python -m benchmarks.evaluation [--quick] [--device cuda] [--threads 1] [--most 5]

writes benchmarks/results/evaluation.json and .md. Networks of the sizes of nfm-digits and nfm-cifar10 with random
weights (Inception's too: time does not depend on them), sampled in the recipe's ways, with up to --most calls. One run:
each batch is generated, then measured, so both meet the same machine. --quick is the digits alone.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.publish import publish
from benchmarks.timing import Rows, processor
from models.unet import UNetConfig
from pipeline.data.levels import as_stored
from pipeline.flow_matching.sampling import starting_noise, student_samples
from pipeline.metrics import Inception, MetricSuite, Moments, build_classifier, features, frechet_distance
from pipeline.outputs import networks
from pipeline.recipe.load import load
from pipeline.recipe.sections import Evaluation, Sweep
from pipeline.reporting.text.numbers import fixed

METRICS = ("kid", "precision-recall", "inception-score", "sliced-wasserstein")


@dataclass(frozen=True)
class Case:
    """A recipe's student, its extractor, and the number of images for each NFE."""

    recipe: str
    shape: tuple[int, int, int]
    levels: int
    extractor: Callable[[], nn.Module]
    images: int
    batch: int


def cases(device: str, quick: bool) -> list[Case]:
    digits = Case("nfm-digits", (1, 8, 8), 17, lambda: build_classifier(1, 8, 10), 256 if quick else 1024, 256)
    images = (2048, 256) if device.startswith("cuda") else (4, 4)
    return [digits] if quick else [digits, Case("nfm-cifar10", (3, 32, 32), 256, Inception, *images)]


# --- measuring


class Clock:
    """Seconds of pieces of work, added up by name."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.spent = device, {}

    def __call__(self, name: str, work: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        result = work(*given)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - began
        return result


def measure(case: Case, device: torch.device, most: int | None) -> dict[str, Any]:
    """Seconds at each number of calls, and of what comes once after all images; numbers of calls up to `most`."""
    recipe = load(case.recipe)
    channels, size, _ = case.shape
    torch.manual_seed(0)
    config = UNetConfig(channels=channels, size=size, classes=10, **recipe.student.network.model_dump(exclude={"kind"}))
    network = networks.build(config, 0).to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    extractor = case.extractor().to(device).eval().requires_grad_(False)
    wide = features(extractor, torch.zeros(1, *case.shape)).shape[1]
    real = torch.randn(max(case.images, 20), wide)
    panel = MetricSuite(METRICS, "FID", real, case.images, extractor.logits, device=device)
    warm = starting_noise(0, torch.arange(case.batch), case.shape, device)
    student_samples(network, warm, None, Sweep(nfe=(1,)), 1)
    features(extractor, torch.zeros(case.batch, *case.shape))
    rows = []
    for how, nfe in ways(recipe.evaluation, most):
        clock, moments, buffer = Clock(device), Moments(wide), panel.collect()
        for numbers in torch.arange(case.images).split(case.batch):
            images = clock("sampling", generated, case, network, numbers, how, nfe, device)
            extracted = clock("features", features, extractor, images.to(device))
            clock("moments", moments.update, extracted)
            clock("further", panel.update, buffer, numbers, extracted)
        rows.append({"solver": how.solver, "calls": nfe, "images": case.images, **clock.spent})
    clock = Clock(device)
    clock("Fréchet distance", frechet_distance, Moments.of(real), moments)
    if case.images >= 20:  # KID needs as many
        clock("further metrics", panel.measured, buffer)
    return {
        "recipe": case.recipe,
        "features": wide,
        "parameters": sum(p.numel() for p in network.parameters()),
        "rows": rows,
        "once": clock.spent,
        "left_out": [nfe for _, nfe in ways(recipe.evaluation, None) if most is not None and nfe > most],
    }


def ways(evaluation: Evaluation, most: int | None) -> list[tuple[Sweep, int]]:
    """The student's sweeps of a recipe, call by call; adaptive solvers are left out, for they know when to stop."""
    return [(how, nfe) for how in evaluation.student for nfe in how.nfe if most is None or nfe <= most]


def generated(case: Case, network: nn.Module, rows: Tensor, how: Sweep, nfe: int, device: torch.device) -> Tensor:
    """Samples at their grey levels, as an evaluation makes them."""
    labels = (rows % 10).to(device)
    x, _ = student_samples(network, starting_noise(0, rows, case.shape, device), labels, how, nfe)
    return as_stored(x, case.levels)


def overhead(rows: Rows, *names: str) -> float:
    """Time of these relative to the time of sampling."""
    return sum(row[name] for row in rows for name in names) / sum(row["sampling"] for row in rows)


def projected(rows: Rows, more: Sequence[int]) -> float:
    """`overhead` of features and moments, if these further NFE took the mean time of one call each."""
    call = sum(row["sampling"] for row in rows) / sum(row["calls"] for row in rows)
    one = sum(row[name] for row in rows for name in ("features", "moments")) / len(rows)
    return one * (len(rows) + len(more)) / (call * (sum(row["calls"] for row in rows) + sum(more)))


# --- telling


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    lines = [
        "# Cost of measuring relative to sampling",
        "",
        f"{machine['processor']}, {machine['device']}, {threads}, torch {machine['torch']}. One run, random "
        f"weights. Load average before the start: {machine['load']:.1f}. Milliseconds per image; further metrics "
        "are KID, precision and its like, Inception Score and sliced Wasserstein, on the same features.",
    ]
    for case in result["cases"]:
        rows = case["rows"]
        lines += [
            "",
            f"## {case['recipe']}: {case['parameters']:,} parameters, {case['features']:,} features",
            "",
            "| solver | calls | sampling | features | moments | further metrics | features and moments, share of "
            "sampling |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for row in rows:
            shown = " | ".join(
                fixed(1e3 * row[name] / row["images"], 3) for name in ("sampling", "features", "moments", "further")
            )
            lines.append(
                f"| {row['solver']} | {row['calls']} | {shown} | "
                f"{fixed(100 * overhead([row], 'features', 'moments'), 1)} % |"
            )
        once = "; ".join(f"{name} {fixed(seconds, 2)} s" for name, seconds in case["once"].items())
        whole, further = (fixed(100 * overhead(rows, *names), 1) for names in (("features", "moments"), ("further",)))
        lines += [
            "",
            f"All of these: {whole} % of the time of sampling for the Fréchet distance, {further} % more for "
            f"the further metrics. Once for each, after its {rows[0]['images']:,} images: {once}.",
        ]
        if case["left_out"]:
            lines += [
                "",
                f"With the recipe's ways of up to {max(case['left_out'])} calls, which were left out: "
                f"{fixed(100 * projected(rows, case['left_out']), 1)} %, at the mean time of a call here.",
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the digits alone, 256 images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--most", type=int, help="leave out more calls than this")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    load_before = os.getloadavg()[0]
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    result = {
        "machine": {
            "processor": processor(),
            "device": name,
            "threads": args.threads,
            "torch": torch.__version__,
            "load": load_before,
        },
        "quick": args.quick,
        "cases": [measure(case, device, args.most) for case in cases(args.device, args.quick)],
    }
    text = markdown(result)
    print(text)
    publish(args.out, "evaluation", result, text)


if __name__ == "__main__":
    main()
