"""The science and the stages. Imports models and storage; knows neither Prefect nor Typer."""

import os

# OpenMP's idle threads sleep instead of spinning: on a busy machine spinning takes the CPU from the thread that all
# wait for (`python -m benchmarks.threads` measures it). OpenMP reads this once, when torch is imported.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY") or "PASSIVE"
