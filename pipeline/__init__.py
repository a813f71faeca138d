"""The science and the stages. Imports models and storage; knows neither Prefect nor Typer."""

import os

# OpenMP's idle threads spin for a moment, then sleep: on a busy machine spinning takes the CPU from the thread that all
# wait for, and on a quiet one waking them takes longer than a small layer (docs/experiments.md, 2026-11-29). OpenMP
# reads both once, when torch is imported; GNU's alone knows the second.
if not os.environ.get("OMP_WAIT_POLICY"):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT") or "10000"
