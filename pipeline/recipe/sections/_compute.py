"""Where and how fast a recipe runs."""

from __future__ import annotations

import os

from pydantic import Field, model_validator

from pipeline.recipe.sections._base import Config, Positive


class Compute(Config):
    """Where and how fast; nothing here can change a result beyond rounding, and nothing here is fingerprinted."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    nproc: Positive = Field(1, description="processes on this machine that share a stage, one for each GPU")
    nnodes: Positive = Field(1, description="machines that share a stage; each runs the same command")
    node_rank: int = Field(0, ge=0, description="which of them this is; 0 keeps the books")
    rendezvous: str | None = Field(None, pattern=r"^[^\s:/]+:\d+$", description="host:port where machines meet")
    threads: Positive | None = Field(None, description="CPU threads of each process; its share of all unless given")
    inference_batch: Positive = Field(512, description="images at once in encoding, sampling and features")
    checkpoint_seconds: float = Field(15.0, gt=0)
    compile: bool = False

    @model_validator(mode="after")
    def _machines_can_meet(self) -> Compute:
        if self.nnodes > 1 and self.rendezvous is None:
            raise ValueError("several machines need a place to meet: set rendezvous to host:port of the first")
        if self.node_rank >= self.nnodes:
            raise ValueError(f"node_rank counts from 0 to nnodes - 1 = {self.nnodes - 1}, got {self.node_rank}")
        return self

    @property
    def cores(self) -> int:
        """CPU threads of each process: as asked for, else its share of those that may be used."""
        if self.threads is not None:
            return self.threads
        there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, there // self.nproc)

    @property
    def world(self) -> int:
        """Processes that share a stage, on all machines."""
        return self.nproc * self.nnodes
