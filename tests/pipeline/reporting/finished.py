"""Artifacts of a finished recipe, as the report and the comparison find them, without a second of training."""

import hashlib
import json
import math

from PIL import Image

from pipeline.outputs.results import (
    BankResult,
    DataResult,
    EvaluationResult,
    MemorisationResult,
    PairsResult,
    PathResult,
    ReferenceResult,
    Score,
    StudentResult,
    TeacherResult,
)
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.load import load
from pipeline.reporting.scores.protocol import OF_A_ROW
from storage.artifact import MANIFEST, Artifact, Provenance, record_files
from storage.atomic import write_json

SHARED = {
    "metric": "FD-classifier",
    "extractor": "classifier-0f1e2d3c4b5a",
    "reference": "5b7d0c9e1f20",
    "data": "digits",
    "split": "train",
    "n_real": 1437,
    "n_fake": 5000,
    "quantised": "17 levels, rounded half up",
    "resized": "no",
    "labels": "in the proportions of the training split",
    "seed": 0,
}
HELD_OUT = {"FD-classifier": 5.315}
SWEEP = {1: 91.04, 2: 7.645, 4: 6.71, 8: 6.28, 16: 6.02, 64: 5.9}
INPUTS = {
    "reference": ("data",),
    "teacher": ("data",),
    "bank": ("data", "teacher"),
    "student": ("data", "bank"),
    "pairs": ("data", "student"),
    "onestep": ("data", "student", "pairs"),
    "evaluation": ("data", "reference", "teacher", "student", "onestep"),
}


def score(model, nfe, value, solver="euler", seconds=1.5, **protocol):
    facts = {"guidance": 1.0, "images_seen": 153600, "ema": "half-life-10000"}
    if model != "teacher":
        facts = {"grid": "uniform", **facts}
    return Score(
        model=model,
        solver=solver,
        nfe=nfe,
        metric="FD-classifier",
        value=value,
        seconds=seconds,
        protocol=SHARED | facts | protocol,
    )


def scores(sweep=None):
    teacher = score("teacher", 0, 6.12, "inverse", 14.2, guidance=0.0, denoised=True, noise=0.2, images_seen=179200)
    return [
        teacher,
        *(score("student", nfe, value, seconds=0.4 * nfe) for nfe, value in (sweep or SWEEP).items()),
        score("onestep", 1, 6.61, images_seen=102400),
        score("onestep", 2, 6.93, images_seen=102400),
    ]


def evaluation(root, name="nfm-digits", found=None, floor=8.52, warnings=(), **changes):
    found = scores() if found is None else found
    shared = {key: value for key, value in found[0].protocol.items() if key not in OF_A_ROW}
    digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]
    result = EvaluationResult(
        protocol=digest, floor=floor, held_out=dict(HELD_OUT), scores=tuple(found), curvature=1.8e-4, warnings=warnings
    )
    return artifact(root, "evaluation", name, result, **changes)


def artifact(root, stage, name, result, config=None, inputs=(), seconds=1.0, resumed=0, files=None):
    """Publish, in short: payload, manifest, and the artifact as it is read back."""
    identity = hashlib.sha256(f"{stage} of {name}".encode()).hexdigest()
    folder = root / stage / f"{name}-{identity[:12]}"
    folder.mkdir(parents=True)
    for path, data in (files or {}).items():
        (folder / path).write_bytes(data)
    provenance = Provenance(
        created="2026-01-31T09:41:07+00:00",
        wall_seconds=seconds,
        python="3.12.7",
        command=["/opt/venv/bin/flowctl", "run", "nfm-digits"],
        platform="Linux-6.1-x86_64",
        packages={"torch": "2.9.1", "numpy": "2.3.4", "prefect": "3.6.1"},
        git_revision="e9e9c9f0d6a5b4c3",
        device="cpu",
        threads=2,
        resumed=resumed,
    )
    made = Artifact(
        stage=stage,
        stage_version=1,
        name=name,
        fingerprint=identity,
        config=config or {},
        inputs={role: hashlib.sha256(f"{role} of {name}".encode()).hexdigest() for role in inputs},
        metrics=result.model_dump(mode="json"),
        files=record_files(folder),
        provenance=provenance,
    )
    write_json(folder / MANIFEST, made.model_dump(mode="json"))
    return Artifact.read(folder)


def picture(folder, width=40, height=16):
    path = folder / f"{width}x{height}.png"
    folder.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((width, height)).save(path)
    return path.read_bytes()


def history(start, end, images):
    """A loss that falls fast, then slowly, with some noise that is the same each time."""
    lines = [
        {
            "images": images * k // 200,
            "loss": end + (start - end) * math.exp(-k / 12) + 0.01 * math.sin(k * k),
            "lr": 1e-3,
            "gradient_norm": 0.3,
        }
        for k in range(1, 201)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def spread(n, std, sliced):
    return {
        "n": n,
        "mean": -0.0021,
        "std": std,
        "dimension_mean": [-0.081, 0.002, 0.077],
        "dimension_std": [0.61, 1.004, 1.32],
        "dimension_kurtosis": [-0.6, 0.08, 2.41],
        "dimensions_off": 0.031,
        "sliced_w2": sliced,
        "floor": 0.0312,
    }


def rich(root):
    """A recipe whose evaluation shows everything that one can: further metrics, a round of reflow, copies, pictures."""
    made = recipe(root)
    reflowed = StudentResult.model_validate(made["onestep"].metrics).model_copy(update={"coupling": "reflow"})
    straight = [
        PathResult(model=model, straightness=s, curvature=s / 10, steps=32, paths=256)
        for model, s in (("student", 0.0173), ("reflow-1", 0.0021))
    ]
    nearness = [
        MemorisationResult(
            model=model,
            solver="euler",
            nfe=nfe,
            samples=(0.1, 0.26, 0.5),
            held_out=(0.1, 0.27, 0.5),
            near=0.12,
            copies=0.012,
            generated=1000,
            real=359,
            train=1438,
        )
        for model, nfe in (("student", 64), ("onestep", 1))
    ]
    found = [*scores(), *(score("reflow-1", nfe, value) for nfe, value in ((1, 6.9), (2, 6.8), (8, 6.4)))]
    others = [
        one.model_copy(update={"metric": metric, "value": one.value * scale, "error": error})
        for metric, scale, error in (("KD-classifier", 1e-3, 2e-4), ("precision", 0.1, None))
        for one in found
    ]
    result = EvaluationResult(
        protocol="0123456789abcdef",
        floor=8.52,
        scores=(*found, *others),
        curvature=1.8e-4,
        floors={"KD-classifier": 1e-4, "precision": 0.9},
        paths=tuple(straight),
        memorisation=tuple(nearness),
        warnings=("5000 samples: the distance is biased upwards",),
    )
    files = {
        f"{name}.png": picture(root / "png", 60 + 2 * i)
        for i, name in enumerate(("samples", "trajectories", "interpolations", "neighbours"))
    }
    order = [role for role in made if role != "evaluation"]
    place = order.index("student") + 1
    added = {
        "pairs-1": made["pairs"],
        "reflow-1": artifact(
            root,
            "reflow-1",
            "nfm-digits",
            reflowed,
            files={"history.jsonl": history(0.3, 0.1, 102400)},
            config=made["onestep"].config,
        ),
    }
    shown = {role: made[role] for role in order[:place]} | added | {role: made[role] for role in order[place:]}
    return shown | {
        "evaluation": artifact(
            root / "rich", "evaluation", "nfm-digits", result, files=files, config=made["evaluation"].config
        )
    }


def recipe(
    root,
    name="nfm-digits",
    classes=tuple("0123456789"),
    warnings=(),
    bank_warnings=(),
    two_sample=None,
    without=(),
    pictures=None,
):
    """All inputs of the report stage by role; `without` leaves out roles, as recipes without a teacher do."""
    settings = load("nfm-digits")
    pictures = pictures or {
        "teacher": {"samples.png": picture(root / "png")},
        "bank": {"noise.png": picture(root / "png", 50)},
        "evaluation": {"samples.png": picture(root / "png", 60)},
    }
    trained = {
        "teacher": history(1.4, -0.9, 179200),
        "student": history(1.1, 0.52, 153600),
        "onestep": history(0.2, 0.05, 102400),
    }
    results = {
        "data": DataResult(name="digits", train=1437, test=360, channels=1, size=8, levels=17, classes=classes),
        "reference": ReferenceResult(
            extractor=SHARED["extractor"],
            metric=SHARED["metric"],
            facts={"resized": "no"},
            features=64,
            accuracy=0.9835,
            images=1437,
            split_half=8.52,
            held_out=HELD_OUT["FD-classifier"],
        ),
        "teacher": TeacherResult(
            images_seen=179200,
            steps=700,
            loss=-0.8812,
            parameters=412_345,
            bits_per_dim=2.8145,
            bits_per_dim_train=2.6925,
            schedule=[],
            dequantisation="gaussian, std 0.2 (density of noisy images)",
        ),
        "bank": BankResult(
            rows=1437,
            draws=8,
            sigma_f=1.02345,
            noise=0.2,
            warnings=tuple(bank_warnings),
            gaussianity={
                "dimensions": 64,
                "train": spread(1437, 1.0, 0.0655),
                "held_out": spread(360, 1.013, 0.0891),
                "transport_cost": {"total": 76.3, "per_dimension": 1.1925, "independent": 1.5241},
                "two_sample": two_sample,
                "class_leak": {"accuracy": 0.125, "chance": 0.1, "standard_error": 0.004, "decisions": 718},
            },
        ),
        "student": StudentResult(
            images_seen=153600,
            steps=1200,
            loss=0.5231,
            parameters=1_023_105,
            coupling="nfm",
            transport_cost=1.1925,
            class_leak={"accuracy": 0.1234, "chance": 0.1, "standard_error": 0.004, "decisions": 718},
        ),
        "pairs": PairsResult(
            count=12000, nfe=8, solver="euler, uniform grid, 8 calls, guidance 1.0", straightness=0.01725
        ),
        "onestep": StudentResult(
            images_seen=102400, steps=800, loss=0.0513, parameters=1_023_105, coupling="distil", transport_cost=1.1803
        ),
    }
    seconds = {
        "data": 0.4,
        "reference": 6.2,
        "teacher": 101.7,
        "bank": 8.8,
        "student": 66.2,
        "pairs": 5.1,
        "onestep": 41.3,
        "evaluation": 24.6,
    }
    made = {}
    for role in (role for role in seconds if role not in without):
        config = fingerprint_fields(settings.sections()[role])
        common = {
            "config": config,
            "inputs": [r for r in INPUTS.get(role, ()) if r not in without],
            "seconds": seconds[role],
            "files": dict((pictures or {}).get(role, {})),
        }
        if role == "evaluation":
            found = [s for s in scores() if s.model not in without]
            made[role] = evaluation(root, name, found, warnings=warnings, **common)
            continue
        if role in trained:
            common["files"]["history.jsonl"] = trained[role]
        made[role] = artifact(root, role, name, results[role], resumed=int(role == "student"), **common)
    return made
