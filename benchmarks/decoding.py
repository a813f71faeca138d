"""Jacobi decoding of a trained teacher, against our own sequential decoding."""

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import Bench, Rows
from models.tarflow import DecodingWork, Jacobi, Schedule, Sequential, TarFlow, TarFlowConfig, calibrate, decode
from pipeline.metrics import Moments, Pixels, frechet_distance
from pipeline.stages.teacher import CALIBRATION_CALL

TEACHER = TarFlowConfig(channels=1, size=32, patch=2, width=64, blocks=4, layers=2, head_dim=32)
TEACHER_NOISE = 0.1


def digits() -> Tensor:
    """scikit-learn's 1797 digits, enlarged from 8 to 32 pixels: (1797, 1, 32, 32) in [-1, 1]."""
    from sklearn.datasets import load_digits

    small = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    return F.interpolate(small, size=(32, 32), mode="bilinear")


def trained_teacher(data: Tensor, seconds: float) -> TarFlow:
    """Train for about so long, so as to be no longer trivial to decode."""
    torch.manual_seed(0)
    flow = TarFlow(TEACHER).to(data.device)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-3, betas=(0.9, 0.95))
    begin, step = time.perf_counter(), 0
    while (done := (time.perf_counter() - begin) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30) * (1 - done)
        x = data[torch.randint(len(data), (32,), device=data.device)]
        loss = -flow.log_prob(x + TEACHER_NOISE * torch.randn_like(x)).mean() / TEACHER.dims
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        step += 1
    print(f"teacher: {step} steps, {loss.item():.3f} nats per dimension", flush=True)
    return flow.eval()


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets of images by their 8 x 8 averages."""
    return frechet_distance(*(Moments.of(Pixels().features(images)) for images in (a, b)))


def decode_all(
    flow: TarFlow, z: Tensor, batch: int, schedule: Schedule | tuple[Schedule, ...]
) -> tuple[Tensor, list[float]]:
    """All of z in batches, and the mean number of network calls of each block, in the order of decoding."""
    images, calls = [], torch.zeros(flow.config.blocks)
    chunks = z.split(batch)
    for chunk in chunks:
        work = DecodingWork()
        images.append(decode(flow, chunk, schedule=schedule, work=work))
        calls += torch.tensor([float(w.calls) for w in work.blocks])
    return torch.cat(images), [round(c, 1) for c in (calls / len(chunks)).tolist()]


def jacobi(bench: Bench, quick: bool) -> Rows:
    """Rows on sampling a trained teacher, by Jacobi decoding and by the calibrated schedule, over our sequential."""
    data = digits().to(bench.device)
    flow = trained_teacher(data, seconds=10 if quick else 120)
    torch.manual_seed(1)
    z = torch.randn(32 if quick else 256, 1, 32, 32, device=bench.device)
    exact, _ = decode_all(flow, z, 64, Sequential())
    noisy = data + TEACHER_NOISE * torch.randn_like(data)
    halves = noisy[torch.randperm(len(noisy), device=noisy.device)].chunk(2)
    own = frechet(*halves)
    rows: Rows = []
    for batch in [1, 4] if quick else [1, 16]:
        trial = z[:batch]
        for tolerance in (0.03, 0.1):
            calibrated = calibrate(flow, torch.randn_like(trial), tolerance=tolerance, call_cost=CALIBRATION_CALL)
            for what, schedule in (("Jacobi", Jacobi(tolerance)), ("calibrated", calibrated)):
                fast, calls = decode_all(flow, z, batch, schedule)
                sequential_s, fast_s = bench.medians(
                    lambda trial=trial: decode(flow, trial),
                    lambda trial=trial, schedule=schedule: decode(flow, trial, schedule=schedule),
                )
                rows.append(
                    {"what": what, "batch": batch, "tolerance": tolerance, "ratio": sequential_s / fast_s}
                    | {"sequential_s": sequential_s, "fast_s": fast_s, "calls_per_block": calls}
                    | {"rms_error": (fast - exact).square().mean().sqrt().item()}
                    | {"fd": frechet(fast, noisy), "fd_sequential": frechet(exact, noisy)}
                    | {"fd_data_halves": own}
                )
                if what == "calibrated":
                    rows[-1]["schedule"] = [s.to_dict() for s in schedule]
                print({k: v for k, v in rows[-1].items() if k != "schedule"}, flush=True)
    return rows
