"""Between two noises: on the sphere, at equal angles."""

from dataclasses import replace

import pytest
import torch

from pipeline.evaluation.evaluator import SamplerUnderTest
from pipeline.evaluation.gallery import ROW_IMAGES, _most_calls, caption, rows_in_turn, spherical
from pipeline.metrics.neighbours import STORED_SAMPLES
from pipeline.stages import evaluation


def test_the_great_circle_in_the_plane_is_known():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    angles = torch.linspace(0, 1, 7) * torch.pi / 2
    torch.testing.assert_close(spherical(a, b, torch.linspace(0, 1, 7)), torch.stack([angles.cos(), angles.sin()], 1))


def test_points_lie_on_the_sphere_at_equal_angles_and_the_ends_are_the_ends():
    a, b = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    b = b * a.norm() / b.norm()
    between = spherical(a, b, torch.linspace(0, 1, 11)).flatten(1)
    torch.testing.assert_close(between[[0, -1]], torch.stack([a, b]).flatten(1))
    torch.testing.assert_close(between.norm(dim=1), a.norm().expand(11))
    turns = (between[1:] * between[:-1]).sum(1) / a.norm() ** 2
    torch.testing.assert_close(turns, turns[:1].expand(10))
    chord = torch.lerp(a.flatten(), b.flatten(), 0.5)
    assert chord.norm() < 0.8 * a.norm()  # where the straight line leads


def test_noises_in_one_direction_have_the_chord_for_a_circle():
    a = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spherical(a, 2 * a, torch.tensor([0.5])), 1.5 * a[None])


def entry(model, nfe, walk=print, **facts):
    return SamplerUnderTest(model, "euler", nfe, facts, print, walk)


def test_each_model_is_walked_at_its_most_calls():
    made = [
        entry("teacher", 0, None),
        entry("student", 1),
        entry("student", 8),
        entry("student", 0),
        entry("onestep", 1),
    ]
    assert [(one.model, one.nfe) for one, _ in _most_calls(made)] == [("student", 8), ("onestep", 1)]


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        ([2, 0, 0, 1, 1, 2, 0, 2], [1, 3, 0, 2, 4, 5]),
        ([1, 1, 0, 1, 1, 1], [2, 0, 1, 3, 4, 5]),  # no second 0: the first left takes its place
        ([0, 1], [0, 1]),
    ],
)
def test_classes_run_in_turn_over_the_samples_that_were_scored(labels, rows):
    assert rows_in_turn(None if labels is None else torch.tensor(labels), 6).tolist() == rows


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (entry("student", 0), "student, adaptive NFE"),
        (entry("reflow-1", 4, guidance=1.5), "student after 1 round of reflow, NFE 4, guidance 1.5"),
        (entry("teacher", 0), "teacher"),
    ],
)
def test_captions(one, words):
    assert caption(one, [one]) == words


@pytest.mark.parametrize(
    "field, values",
    [
        ("solver", ("euler", "heun")),
        ("grid", ("uniform", "edm")),
        ("temperature", (None, 1.1)),
        ("ema", ("last", "best")),
    ],
)
def test_rows_of_one_model_have_different_captions(field, values):
    rows = []
    for value in values:
        for nfe in (1, 8):
            one = entry("student", nfe, **({} if field == "solver" or value is None else {field: value}))
            rows.append(replace(one, solver=value) if field == "solver" else one)
    assert len({caption(one, rows) for one in rows}) == len(rows)


def test_pictures_are_of_samples_that_are_stored():
    """The second class first appears where none is."""
    labels = torch.zeros(STORED_SAMPLES + 500, dtype=torch.int64)
    labels[STORED_SAMPLES + 100 :] = 1
    rows = evaluation._rows_shown(None, labels, len(labels))
    assert len(rows) == ROW_IMAGES and rows.max() < STORED_SAMPLES
