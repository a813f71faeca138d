"""Rounds of reflow: what is held against what, and that a round which fails is said to have failed."""

from pipeline.outputs.results import EvaluationResult, PathResult
from pipeline.reporting.page.rounds import rounds, view
from tests.pipeline.reporting.finished import score

CHAIN = ["student", "reflow-1", "reflow-2"]


def path(model, straightness):
    return PathResult(model=model, straightness=straightness, curvature=0.1, steps=32, paths=256)


def sampled(model, values, **facts):
    return [score(model, nfe, value, **facts) for nfe, value in values.items()]


SCORES = [
    score("teacher", 0, 1.0, "inverse"),
    *sampled("student", {1: 9.0, 2: 5.0, 8: 2.0}),
    *sampled("student", {2: 4.5}, grid="quadratic"),
    *sampled("reflow-1", {1: 4.0, 8: 2.5}),
    *sampled("reflow-2", {1: 4.2, 8: 2.2}),
    *sampled("onestep", {1: 1.0}),
]
PATHS = [path("student", 0.09), path("reflow-1", 0.01), path("reflow-2", 0.02)]


def test_each_round_is_held_against_the_one_before():
    first, second = rounds(CHAIN, SCORES, PATHS)
    assert (first.before, first.model) == ("student", "reflow-1") and first.straightness == (0.09, 0.01)
    assert first.distances == {1: (9.0, 4.0), 8: (2.0, 2.5)} and second.distances == {1: (4.0, 4.2), 8: (2.5, 2.2)}


def test_the_fewest_calls_and_the_straightness_decide():
    first, second = rounds(CHAIN, SCORES, PATHS)
    assert first.verdict is None  # worse at 8 calls, as reflow is
    assert second.verdict == (
        "The student after 2 rounds of reflow is worse than the student after 1 round of reflow: "
        "its paths are less straight, 0.0200 after 0.0100; with 1 network call the distance is "
        "4.20 after 4.00"
    )
    assert rounds(CHAIN, SCORES, [])[1].verdict.endswith("reflow: with 1 network call the distance is 4.20 after 4.00")
    assert rounds(CHAIN, [], PATHS)[1].verdict.endswith("less straight, 0.0200 after 0.0100")
    assert rounds(CHAIN[:2], [], [])[0].verdict is None


def test_the_best_way_of_sampling_counts():
    (only,) = rounds(["student", "reflow-1"], [*SCORES, *sampled("reflow-1", {2: 4.8})], [])
    assert only.distances[2] == (4.5, 4.8)


def test_the_section_of_the_page():
    found = EvaluationResult(
        protocol="x", floor=1.0, scores=tuple(SCORES), curvature=0.1, paths=tuple(PATHS), warnings=()
    )
    made = view(found)
    assert made.columns == ("1", "8") and len(made.verdicts) == 1
    assert [(line.model, line.straightness, line.distances) for line in made.lines] == [
        ("student", "0.0900", ("9.0", "2.0")),
        ("reflow-1", "0.0100", ("4.0", "2.5")),
        ("reflow-2", "0.0200", ("4.2", "2.2")),
    ]
    alone = found.model_copy(update={"scores": tuple(s for s in SCORES if s.model == "student"), "paths": PATHS[:1]})
    assert view(alone) is None
