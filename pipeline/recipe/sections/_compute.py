"""Where and how fast a recipe runs."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.recipe.sections._base import Config, Positive
from pipeline.recipe.sections._cpus import openmp_threads, usable_cpus
from pipeline.recipe.sections._memory import usable_memory


class Compute(Config):
    """Where and how fast. Nothing here is fingerprinted, and nothing changes a result beyond rounding, with two
    exceptions: `nproc` and `nnodes` where a network has dropout, as each process draws its own masks; and
    `inference_batch` for dopri5 and Jacobi decoding, which choose their steps for a whole batch, as scores state."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: a GPU if torch finds one, else the CPU; cpu; cuda; cuda:1 for the second GPU",
    )
    nproc: Positive = Field(1, description="processes on this machine that share a stage, one for each GPU")
    nnodes: Positive = Field(1, description="machines that share a stage; each runs the same command")
    node_rank: int = Field(0, ge=0, description="rank of this machine; rank 0 plans, writes and records")
    rendezvous: str | None = Field(None, pattern=r"^[^\s:/]+:\d+$", description="host:port where machines meet")
    threads: Positive | None = Field(
        None,
        le=2**15,
        description="CPU threads of each process; default: OMP_NUM_THREADS, else its share of the usable CPUs",
    )
    inference_batch: Positive = Field(
        512, le=2**20, description="images at once in sampling, its features and a teacher's bits"
    )
    checkpoint_seconds: float = Field(
        15.0, gt=0, description="seconds between checkpoints of a training, more where writing one takes long"
    )
    compile: bool = Field(False, description="compile networks that are trained: slower to start, then faster")
    deterministic: bool = Field(
        True, description="on a GPU: kernels that give the same bits each time; false allows faster ones"
    )
    bank_memory_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of this machine's memory for banks in training; larger banks are read from the disk as "
        "training goes, in the same order",
    )

    @model_validator(mode="after")
    def _machines_can_meet(self) -> Compute:
        if self.nnodes > 1 and self.rendezvous is None:
            raise ValueError("several machines need a place to meet: set rendezvous to host:port of the first")
        if self.rendezvous is not None and not 0 < int(self.rendezvous.rpartition(":")[2]) < 2**16:
            raise ValueError(f"the port of rendezvous must lie in 1 to 65535, got {self.rendezvous}")
        if self.node_rank >= self.nnodes:
            raise ValueError(f"node_rank counts from 0 to nnodes - 1 = {self.nnodes - 1}, got {self.node_rank}")
        return self

    @property
    def cores(self) -> int:
        """CPU threads of each process."""
        return self.threads_and_why()[0]

    def threads_and_why(self) -> tuple[int, str]:
        """CPU threads of each process, and what decides: the recipe, OMP_NUM_THREADS, or a share of the usable CPUs."""
        if self.threads is not None:
            return self.threads, "compute.threads"
        if (threads := openmp_threads()) is not None:
            return threads, "OMP_NUM_THREADS"
        cpus, why = usable_cpus()
        return max(1, cpus // self.nproc), why if self.nproc == 1 else f"{why}, {self.nproc} processes"

    @property
    def bank_bytes(self) -> int:
        """Memory for banks, in bytes, of each process."""
        return int(self.bank_memory_share * usable_memory() / self.nproc)

    @property
    def world(self) -> int:
        """Processes that share a stage, on all machines."""
        return self.nproc * self.nnodes
