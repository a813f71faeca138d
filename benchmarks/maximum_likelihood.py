"""What flow matching replaced: the same network as a continuous normalizing flow, fitted by maximum likelihood.

    OMP_NUM_THREADS=1 python -m benchmarks.maximum_likelihood

Both sides get the same data, network, batches and averaging of weights, and CPU seconds in turns; each has the learning
rate that suits it best. Held-out likelihood is measured by `pipeline.flow_matching.likelihood`, off the clock. Writes
benchmarks/results/maximum-likelihood.json and .md, and docs/maximum-likelihood.png.

Maximum likelihood (Chen et al. 2018, arXiv 1806.07366; Grathwohl et al. 2019, arXiv 1810.01367) differentiates through
all steps of the solver here. `odeint_adjoint`, which saves memory instead, is timed too.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from torch import Generator, Tensor, nn

from benchmarks.publish import publish
from benchmarks.timing import processor
from pipeline.flow_matching.likelihood import log_density
from pipeline.flow_matching.paths import LINEAR
from pipeline.flow_matching.solvers import CountedField
from pipeline.flow_matching.times import LogitNormal
from pipeline.reporting.pictures import default_style

RADIUS, STD = 1.4, 0.15  # of the eight Gaussians; together about unit variance in each direction
BATCH, HELD_OUT = 256, 4000
LEARNING_RATES = {"flow matching": 1e-2, "maximum likelihood": 3e-2}  # best of 0.003, 0.01, 0.03 in short trials
TRAINING_TOLERANCE = 1e-3  # of dopri5 while training; 1e-5 when measuring
TARGETS = (0.5, 0.2, 0.1, 0.05)  # nats below the true density of held-out data

Rows = list[dict[str, Any]]


# --- data, network


def centres() -> Tensor:
    """(8, 2), evenly on a circle."""
    angles = torch.arange(8) * (math.pi / 4)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], 1)


def draw(count: int, source: Generator) -> Tensor:
    """(count, 2) points of the mixture."""
    which = torch.randint(8, (count,), generator=source)
    return centres()[which] + STD * torch.randn(count, 2, generator=source)


def true_log_density(x: Tensor) -> Tensor:
    """log p of the mixture at x (B, 2): (B,) nats."""
    squares = (x[:, None] - centres().to(x)).square().sum(2) / STD**2  # (B, 8)
    return torch.logsumexp(-squares / 2, 1) - math.log(8 * 2 * math.pi * STD**2)


class Velocity(nn.Module):
    """A plain network for v(x, t) in the plane: (B, 2), (B,) to (B, 2)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t[:, None]], 1))


# --- the two objectives


def flow_matching_loss(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, source: Generator) -> Tensor:
    """The student's objective, with independent coupling and the default times."""
    z = torch.randn(x.shape, generator=source)
    t = LogitNormal().sample(len(x), source)
    return (network(LINEAR.interpolate(x, z, t), t) - LINEAR.target_velocity(x, z, t)).square().mean()


class Augmented(nn.Module):
    """The field of (x, l) with dl/dt = div v, whose graph can be differentiated again."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x = state[0]
        if not (torch.is_grad_enabled() and x.requires_grad):  # at the start, and on the adjoint's way there
            x = x.detach().requires_grad_()
        with torch.enable_grad():
            v = self.network(x, t.expand(len(x)))
            rows = [torch.autograd.grad(v[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
        return v, sum(rows)


def likelihood_loss(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, adjoint: bool = False) -> Tensor:
    """-log p(x) in nats, mean over the batch (B, 2), with the exact divergence and dopri5."""
    solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    tolerance = {"rtol": TRAINING_TOLERANCE, "atol": TRAINING_TOLERANCE}
    times = torch.tensor([0.0, 1.0])
    z, integral = solve(Augmented(network), (x, x.new_zeros(len(x))), times, method="dopri5", **tolerance)
    return (0.5 * z[-1].square().sum(1) + math.log(2 * math.pi) - integral[-1]).mean()


# --- the race


@dataclass
class Side:
    """One training method: its clock, and its progress by time."""

    name: str
    network: nn.Module
    loss: Callable[[CountedField, Tensor, Generator], Tensor]
    seconds: float = 0.0  # of this process on the CPU, while training
    steps: int = 0
    curve: Rows = field(default_factory=list)
    networks: list[nn.Module] = field(default_factory=list)  # the averaged network at each row of the curve

    def __post_init__(self) -> None:
        self.source = torch.Generator().manual_seed(1)
        self.counted = CountedField(self.network)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATES[self.name])

    def step(self) -> float:
        """One step; its loss."""
        begin = time.process_time()
        loss = self.loss(self.counted, draw(BATCH, self.source), self.source)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        # An average over up to 1000 steps, fewer at first.
        weight = max(1e-3, 9 / (10 + self.steps))
        with torch.no_grad():
            for average, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                average.lerp_(now, weight)
        self.seconds += time.process_time() - begin
        return float(loss.detach())

    def train_until(self, seconds: float) -> None:
        while self.seconds < seconds:
            self.step()

    def measure(self, held_out: Tensor) -> None:
        """Append to the curve: by how many nats the averaged network falls short of the true density."""
        measured = log_density(self.averaged, held_out)
        short = true_log_density(held_out).double() - measured.log_density
        self.curve.append(
            {
                "seconds": self.seconds,
                "steps": self.steps,
                "training_calls": self.counted.calls,
                "nats_short": float(short.mean()),
                "standard_error": float(short.std()) / len(short) ** 0.5,
                "calls_to_measure": measured.calls,
            }
        )
        self.networks.append(copy.deepcopy(self.averaged))

    def reached(self, target: float) -> dict[str, Any] | None:
        """The first row of the curve that is as good as that."""
        return next((row for row in self.curve if row["nats_short"] <= target), None)


def sides() -> tuple[Side, Side]:
    """Both ways to train, from the same weights."""
    torch.manual_seed(0)
    network = Velocity()
    return (
        Side("flow matching", network, flow_matching_loss),
        Side("maximum likelihood", copy.deepcopy(network), lambda v, x, _: likelihood_loss(v, x)),
    )


def race(budget: float) -> tuple[Side, Side]:
    """Train both in turns, up to `budget` CPU seconds each or the last target, measuring at each factor sqrt(2)."""
    both, held_out, mark = sides(), draw(HELD_OUT, torch.Generator().manual_seed(2)), budget / 2**7
    while mark <= budget * 1.001:
        for side in both:
            if side.reached(TARGETS[-1]) is None:
                side.train_until(mark)
                side.measure(held_out)
                print(side.name, side.curve[-1], flush=True)
        mark *= 2**0.5
    return both


def step_seconds(network: nn.Module, repeats: int = 5) -> dict[str, float]:
    """Median CPU seconds of a loss and its gradient on this network, taking turns."""
    source = torch.Generator().manual_seed(3)
    losses = {
        "flow matching": lambda x: flow_matching_loss(network, x, source),
        "maximum likelihood, through the solver": lambda x: likelihood_loss(network, x),
        "maximum likelihood, adjoint": lambda x: likelihood_loss(network, x, adjoint=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(repeats + 1):  # the first is to warm up
        x = draw(BATCH, source)
        for name, loss in losses.items():
            begin = time.process_time()
            loss(x).backward()
            taken[name].append(time.process_time() - begin)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


# --- report


def summary(both: tuple[Side, Side]) -> dict[str, Any]:
    """All that is written down."""
    fast, slow = both
    targets = []
    for target in TARGETS:
        rows = [side.reached(target) for side in both]
        ratio = rows[1]["seconds"] / rows[0]["seconds"] if all(rows) else None
        targets.append({"nats_short": target, fast.name: rows[0], slow.name: rows[1], "ratio": ratio})
    return {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.maximum_likelihood",
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "shared": True,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchdiffeq": torchdiffeq.__version__,
        },
        "parameters": sum(p.numel() for p in fast.network.parameters()),
        "settings": {
            "batch": BATCH,
            "held_out": HELD_OUT,
            "learning_rates": LEARNING_RATES,
            "training_tolerance": TRAINING_TOLERANCE,
            "radius": RADIUS,
            "std": STD,
        },
        "targets": targets,
        "step_seconds": step_seconds(slow.network),
        "curves": {side.name: side.curve for side in both},
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a page for people."""
    machine = result["machine"]
    lines = [
        "# Flow matching compared with maximum likelihood",
        "",
        f"`{result['command']}` on {machine['processor']}, {machine['threads']} thread, Python "
        f"{machine['python']}, torch {machine['torch']}, torchdiffeq {machine['torchdiffeq']}. CPU seconds "
        "of the process, on a machine shared with other work: only the ratios mean anything, and those to within "
        "the factor of 1.4 between measurements. One seed.",
        "",
        "| held-out nats short of the truth | flow matching, s (steps) | maximum likelihood, s (steps) | ratio |",
        "|---:|---:|---:|---:|",
    ]
    for row in result["targets"]:
        cells = [
            f"{measured['seconds']:.1f} ({measured['steps']})" if measured else "not reached"
            for measured in (row["flow matching"], row["maximum likelihood"])
        ]
        ratio = f"{row['ratio']:.0f}" if row["ratio"] else "–"
        lines.append(f"| {row['nats_short']} | {' | '.join(cells)} | {ratio} |")
    lines += [
        "",
        "| at the end | CPU s | steps | nats short | network calls a step | calls to measure at 1e-5 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, curve in result["curves"].items():
        last = curve[-1]
        lines.append(
            f"| {name} | {last['seconds']:.0f} | {last['steps']} | {last['nats_short']:.3f} ± "
            f"{last['standard_error']:.3f} | {last['training_calls'] / last['steps']:.1f} "
            f"| {last['calls_to_measure']} |"
        )
    per_step = result["step_seconds"]
    lines += [
        "",
        "| one loss and its gradient, on the final network of maximum likelihood | ms | ratio |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {1000 * seconds:.1f} | {seconds / per_step['flow matching']:.0f} |"
        for name, seconds in per_step.items()
    ]
    return "\n".join(lines) + "\n"


def figure(both: tuple[Side, Side], side_points: int = 120) -> Any:
    """The true density, both sides' when the first of them was done, and maximum likelihood's at its own end."""
    from matplotlib.figure import Figure

    fast, slow = both
    line = torch.linspace(-2.1, 2.1, side_points)
    points = torch.cartesian_prod(line, line)
    same_time = len(fast.curve) - 1  # both were measured at the same seconds, as long as both ran
    panels = [("truth", true_log_density(points))]
    for side, i in ((fast, -1), (slow, same_time), (slow, -1)):
        title = f"{side.name}\n{side.curve[i]['seconds']:.0f} s, {side.curve[i]['nats_short']:.3f} nats short"
        panels.append((title, log_density(side.networks[i], points, rtol=1e-4, atol=1e-4).log_density))
    drawing = Figure(figsize=(10, 2.9), layout="constrained")
    for axes, (title, values) in zip(drawing.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(values.exp().view(side_points, side_points).T, origin="lower", vmin=0, vmax=1.2, cmap="magma")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=64.0, help="CPU seconds of training for each side")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--picture", type=Path, default=Path("docs/maximum-likelihood.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    both = race(args.budget)
    result = summary(both)
    publish(args.out, "maximum-likelihood", result, markdown(result))
    print(markdown(result))
    with default_style():
        figure(both).savefig(args.picture, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
