"""Runs for comparisons, without a second of training."""

from pipeline.outputs.results import VelocityVariance
from pipeline.reporting.compare import SeedRun
from tests.pipeline.reporting.finished import SWEEP, score

NFM = dict(SWEEP)
FM = dict(zip(SWEEP, (87, 20.5, 8.5, 4.1, 2.5, 1.8), strict=True))
OT = dict(zip(SWEEP, (55, 32, 26, 25, 25, 26), strict=True))


def students(sweep, **protocol):
    return [score("student", nfe, value, **protocol) for nfe, value in sweep.items()]


def run(recipe="fm-digits", sweep=FM, seed=0, scores=None, scale=1.0, **changes):
    """A recipe at a seed, its scores multiplied by `scale`, on noise of that seed."""
    found = [
        one.model_copy(update={"value": scale * one.value, "protocol": one.protocol | {"seed": seed}})
        for one in scores or students(sweep)
    ]
    variance = VelocityVariance(mean=0.4 * scale, times=(0.5,), values=(0.4 * scale,), pairs=1437, within_classes=True)
    return SeedRun(
        **{
            "recipe": recipe,
            "seed": seed,
            "protocol": f"{seed:016x}",
            "floor": 8.52,
            "scores": tuple(found),
            "curvature": 1e-3 * scale,
            "transport_cost": 1.7,
            "velocity_variance": variance,
            "noise": None,
            "teacher_bits": None,
            "seconds": {"data": 1.0, "student": 66.0, "evaluation": 20.0},
            "resumed": (),
            "machine": "cpu, 2 threads, torch 2.9.1",
            "fingerprints": {"student": f"{seed:012x}"},
            **changes,
        }
    )


def three():
    """NFM with its teacher and one-step student, independent coupling, OT: one seed."""
    teacher = score("teacher", 0, 6.12, "inverse", guidance=0.0, denoised=True, noise=0.2, images_seen=179200)
    onestep = [score("onestep", 1, 6.61, images_seen=102400), score("onestep", 2, 6.93, images_seen=102400)]
    return [
        run(
            "nfm-digits",
            scores=[teacher, *students(NFM), *onestep],
            transport_cost=1.2,
            seconds={"teacher": 100.0, "bank": 9.0, "student": 66.0, "pairs": 5.0, "onestep": 41.0},
        ),
        run("fm-digits", FM),
        run("ot-digits", OT, transport_cost=1.5),
    ]


def seeds(*scales, **changes):
    """The three of `three`, once for each scale."""
    return [
        one.model_copy(
            update={
                "seed": seed,
                "protocol": f"{seed:016x}",
                "fingerprints": {"student": f"{seed:012x}"},
                "curvature": one.curvature * scale,
                **changes,
                "scores": tuple(
                    found.model_copy(update={"value": scale * found.value, "protocol": found.protocol | {"seed": seed}})
                    for found in one.scores
                ),
            }
        )
        for one in three()
        for seed, scale in enumerate(scales)
    ]
