"""Which runs share a table, and what is said of those that may not, or not on equal terms."""

import re

import pytest

from pipeline.reporting.compare import compare
from pipeline.reporting.scores.protocol import ProtocolError
from storage.errors import InputError, MissingError
from tests.pipeline.reporting.compare.runs import FM, OT, run, seeds, students, three


def at(one, **protocol):
    """The run with another protocol."""
    changed = tuple(found.model_copy(update={"protocol": found.protocol | protocol}) for found in one.scores)
    return one.model_copy(update={"scores": changed, "protocol": "f" * 16})


def test_other_protocols_are_refused_field_by_field():
    nfm, fm, ot = three()
    other = at(fm, n_fake=10_000, seed=3).model_copy(update={"floor": 4.2})
    with pytest.raises(ProtocolError) as refused:
        compare([nfm, other, ot])
    told = str(refused.value)
    assert "n_fake: nfm-digits 5,000, fm-digits 10,000, ot-digits 5,000" in told
    assert "seed: nfm-digits 0, fm-digits 3, ot-digits 0" in told and "floor: " in told
    assert "extractor" not in told and "images_seen" not in told and "grid" not in told


def test_a_digest_that_differs_by_itself_is_refused():
    nfm, fm, ot = three()
    with pytest.raises(ProtocolError, match=r"digest: nfm-digits 0{16}, fm-digits f{16}"):
        compare([nfm, fm.model_copy(update={"protocol": "f" * 16}), ot])


def test_seeds_of_the_noise_differ_by_intention():
    comparison = compare(seeds(1.0, 1.1, 0.9))
    assert comparison.seeds == [0, 1, 2]
    assert comparison.protocol == compare(seeds(1.0, 1.1)).protocol  # one digest, whatever the seeds
    assert comparison.protocol != compare(three()).protocol == "0" * 16
    assert "seed" not in comparison.to_json()["shared"] and comparison.to_json()["shared"]["n_fake"] == 5000


def test_each_recipe_has_the_same_seeds():
    with pytest.raises(ProtocolError, match=r"seed: nfm-digits 0 and 1, fm-digits 0 and 1, ot-digits 0\b"):
        compare(seeds(1.0, 1.1)[:-1])


def test_other_fields_may_not_differ_from_seed_to_seed_either():
    first, second = run(seed=0), at(run(seed=1), n_real=99)
    with pytest.raises(ProtocolError, match=r"n_real: fm-digits 1,437 and 99"):
        compare([first, second])


def test_a_recipe_comes_once_at_a_seed():
    with pytest.raises(InputError):
        compare([run(), run()])
    with pytest.raises(MissingError):
        compare([])


def test_paths_may_differ():
    straight, diffusion = run("fm-digits"), run("vp-digits", scores=students(OT, path="vp beta_min 0.1 beta_max 20"))
    assert compare([straight, diffusion]).unequal == []


def test_other_networks_and_trainings_are_said():
    equal, other = (
        {"student": {"network": size, "training.batch": "128"}} for size in ("9 parameters", "5 parameters")
    )
    assert compare([run("fm-digits", trained=equal), run("ot-digits", trained=equal)]).unequal == []
    (line,) = compare([run("fm-digits", trained=equal), run("ot-digits", trained=other)]).unequal
    assert "network" in line and "fm-digits 9 parameters" in line and "ot-digits 5 parameters" in line


def test_unequal_terms_are_said():
    assert compare(three()).unequal == [] == compare(seeds(1.0, 1.2)).unequal
    nfm, fm, _ = three()
    longer = run("ot-digits", scores=students(OT, images_seen=307_200))
    comparison = compare([nfm, fm, longer])
    assert comparison.unequal == [
        "student: images seen in training differ: nfm-digits 153,600; fm-digits 153,600; ot-digits 307,200"
    ]
    told = " ".join(comparison.text().split())
    assert f"Not on equal terms: {comparison.unequal[0]}." in told
    assert comparison.unequal[0] in " ".join(comparison.markdown().split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"machine": "cuda (H100), 8 threads, torch 2.9.1"},
            r"times .* different machines: fm-digits cpu, .*; ot-digits",
        ),
        ({"resumed": ("student",)}, r"student of ot-digits \(seed 0\)"),
    ],
)
def test_times_that_cannot_be_held_against_each_other(changes, said):
    (line,) = compare([run("fm-digits", FM), run("ot-digits", OT, **changes)]).unequal
    assert re.search(said, line)


def test_variance_is_compared_at_equal_pairs():
    few = run("ot-digits").velocity_variance.model_copy(update={"pairs": 300, "within_classes": False})
    (line,) = compare([run("fm-digits"), run("ot-digits", velocity_variance=few)]).unequal
    assert line.startswith("Var(v | x_t, t) was estimated differently: ")
    assert line.endswith("fm-digits 1,437 pairs within classes; ot-digits 300 pairs")


def _at(seed, **stages):
    fingerprints = {stage: f"{stage} {number}" for stage, number in stages.items()}
    return run(seed=seed, fingerprints={"data": "d", "reference": "r", **fingerprints})


def test_seeds_that_share_a_result_are_no_seeds():
    """As where a recipe sets student.seed and evaluation.seed: each of its seeds is one and the same run."""
    with pytest.raises(InputError) as raised:
        compare([_at(0, student=0, evaluation=0), _at(1, student=0, evaluation=0), _at(2, student=2, evaluation=2)])
    assert raised.value.value == "one for seeds 0 and 1 of fm-digits"


def test_a_network_that_seeds_share_is_said():
    shared = [_at(0, student=0, evaluation=0), _at(1, student=0, evaluation=1)]
    (line,) = compare(shared).unequal
    assert line.startswith("seeds 0 and 1 of fm-digits share one student")
    assert compare([_at(0, student=0, evaluation=0), _at(1, student=1, evaluation=1)]).unequal == []
