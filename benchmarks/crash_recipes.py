"""The recipes of the crash harness: every kind of stage, tiny, by `recipe: stage`."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from benchmarks.matrix import STUDENT_ONLY
from pipeline.engine.dag import Node, build
from pipeline.recipe.load import load
from pipeline.recipe.recipe import Recipe

STUDENT = [
    "data.limit=200",
    "reference.extractor=pixels",
    "compute.threads=1",
    "compute.device=cpu",
    "compute.checkpoint_seconds=0.02",
    "student.network.base=8",
    "student.network.multipliers=[1, 1]",
    "student.network.head_channels=8",
    "student.network.blocks=1",
    "student.training.images=1280",
    "student.training.batch=64",
    "student.training.warmup=64",
    "student.training.ema=128",
    "student.training.averages=[{width: 0.1}]",
    "evaluation.samples=64",
    "evaluation.student=[{solver: euler, nfe: [1, 2]}, {solver: heun, nfe: [3]}]",
    "evaluation.likelihood=null",
]
TEACHER = [
    "teacher.width=16",
    "teacher.blocks=2",
    "teacher.layers=1",
    "teacher.head_dim=8",
    "teacher.training.images=2048",
    "teacher.training.batch=64",
    "teacher.training.warmup=64",
    "teacher.training.ema=128",
    "teacher.preview_samples=4",
    "bank.draws_per_image=4",
    "bank.whiten=false",  # so that a bank is stopped in its shards
    "bank.shard=64",
]
PAIRS = "pairs: {count: 256, nfe: 2, shard: 64, drop_longest: 0.1}"
TRAINING = "training: {images: 1024, batch: 64, lr: 1.0e-3, warmup: 64, ema: 128}"
RECIPES = {
    "NFM": (
        "nfm-digits",
        [
            *STUDENT,
            *TEACHER,
            "pairs.count=512",
            "pairs.nfe=2",
            "pairs.shard=64",
            "onestep.training.images=1024",
            "onestep.training.batch=64",
            "onestep.training.warmup=64",
            "onestep.training.ema=128",
            "evaluation.onestep=[{solver: euler, nfe: [1]}]",
            "evaluation.likelihood={images: 4, probes: 2, tolerance: 0.1}",
        ],
    ),
    "LOOM": ("loom-digits", [*STUDENT, "student.coupling={kind: loom, batch: 48, noises_per_image: 2}"]),
    "LOOM before": ("loom-digits", [*STUDENT, "student.coupling={kind: loom, refine: before, epochs: 6}"]),
    "semidiscrete": ("sd-digits", [*STUDENT, "potentials.batch=64", "potentials.passes=12"]),
    "MeanFlow": (  # with scores while it trains
        "nfm-digits-meanflow",
        [
            *STUDENT,
            *TEACHER,
            "student.quality={points: 3, samples: 96, solver: jump, nfe: 2}",
            "evaluation.student=[{solver: jump, nfe: [1, 2]}]",
        ],
    ),
    "reflow": (
        "nfm-digits-reflow",
        [
            *STUDENT,
            *TEACHER,
            *STUDENT_ONLY,
            f"reflow=[{{{PAIRS}, mix: {{forward: 0.1}}, {TRAINING}}}]",
            "evaluation.reflow=[{solver: euler, nfe: [1]}]",
        ],
    ),
    "bank on the disk": (
        "nfm-digits",
        [*STUDENT, *TEACHER, *STUDENT_ONLY, "student.seed=1", "compute.bank_memory_share=1e-9"],
    ),
}


@cache
def recipe_of(name: str) -> Recipe:
    """Loaded once: an attempt is a fork, and finds it loaded."""
    return load(*RECIPES[name])


def nodes(recipes: Collection[str] = tuple(RECIPES)) -> dict[str, Node]:
    """Every stage once, by `recipe: stage`, each after its inputs."""
    chosen: dict[str, Node] = {}
    seen = set()
    for recipe in recipes:
        for node in build(recipe_of(recipe)).values():
            if (node.name, node.fingerprint) not in seen:
                seen.add((node.name, node.fingerprint))
                chosen[f"{recipe}: {node.name}"] = node
    return chosen
