"""The metrics beside the Frechet distance: those of their own modules, from one pass in any batches on any ranks."""

import pickle

import pytest
import torch

from pipeline.metrics import MetricSuite, kid, manifold, sliced_w2
from pipeline.metrics import _suite as module
from pipeline.recipe.sections import FEWEST
from storage.errors import InputError
from tests.pipeline.metrics.test_inception_score import inception_score

ALL = ("kid", "precision-recall", "inception-score", "sliced-wasserstein")
REAL = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
MADE = torch.randn(120, 6, generator=torch.Generator().manual_seed(1)) + 0.3
WEIGHTS = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))


def logits(features):
    return features @ WEIGHTS


def panel(names=ALL, metric="FID", seed=3, **changes):
    return MetricSuite(names, metric, REAL, len(MADE), **{"logits": logits, "seed": seed, **changes})


def measured(made, parts):
    """One collection for each part of the sample numbers, as ranks have them, merged."""
    collections = []
    for rows in parts:
        mine = made.collect()
        for few in rows.split(7):
            made.update(mine, few, MADE[few])
        collections.append(pickle.loads(pickle.dumps(mine)))
    first, *rest = collections
    for other in rest:
        first.merge(other)
    return {item.metric: item for item in made.measured(first)}


def test_each_is_the_metric_of_its_module():
    found = measured(panel(), [torch.arange(120)])
    assert list(found) == ["KID", "precision", "recall", "density", "coverage", "IS", "SW2-inception"]
    distance, shares, (value, std) = kid(REAL, MADE, 3), manifold(REAL, MADE), inception_score(logits(MADE), 10, 3)
    assert (found["KID"].value, found["KID"].error) == (distance.value, distance.standard_error)
    assert [found[name].value for name in ("precision", "recall", "density", "coverage")] == [
        shares.precision,
        shares.recall,
        shares.density,
        shares.coverage,
    ]
    assert found["IS"].value == pytest.approx(value) and found["IS"].error == pytest.approx(std / 3)
    assert found["SW2-inception"].value == sliced_w2(REAL, MADE, 256, 3)
    assert found["precision"].facts["neighbours"] == 3 and found["coverage"].facts["neighbours"] == 5
    assert found["KID"].facts["subsets"] == "10 of 9 of each side, none in two"


@pytest.mark.parametrize(
    ("name", "measure"), [("kid", kid), ("precision-recall", manifold), ("sliced-wasserstein", sliced_w2)]
)
def test_a_recipe_asks_for_as_many_features_as_the_metric_needs(name, measure):
    assert set(FEWEST) == set(ALL)
    measure(REAL[: FEWEST[name]], MADE)
    with pytest.raises(InputError):
        measure(REAL[: FEWEST[name] - 1], MADE)


@pytest.mark.parametrize("kept", [50, 1000])
def test_who_makes_what_in_which_order_changes_nothing(monkeypatch, kept):
    monkeypatch.setattr(module, "FEATURE_ROWS", kept)
    made, order = panel(), torch.randperm(120, generator=torch.Generator().manual_seed(9))
    alone = measured(made, [torch.arange(120)])
    for parts in ([order], [torch.arange(0, 120, 2), torch.arange(1, 120, 2)], order.split(41)):
        again = measured(made, parts)
        assert {name: item.value for name, item in again.items() if name != "IS"} == {
            name: item.value for name, item in alone.items() if name != "IS"
        }
        assert again["IS"].value == pytest.approx(alone["IS"].value, rel=1e-12)
    assert f"{min(kept, 120)} generated" in alone["KID"].facts["features_kept"]


def test_what_is_kept_is_bounded_and_drawn_from_all(monkeypatch):
    monkeypatch.setattr(module, "FEATURE_ROWS", 30)
    made = panel()
    mine = made.collect()
    made.update(mine, torch.arange(120), MADE)
    (rows,), (features,) = mine.rows, mine.features
    assert len(rows) == 30 and features.dtype == torch.float32 and torch.equal(features, MADE[rows])
    assert rows.min() < 40 and rows.max() > 80 and not torch.equal(rows, torch.arange(30))


def test_other_extractors_have_names_of_their_own():
    assert list(measured(panel(metric="FD-classifier"), [torch.arange(120)]))[::5] == ["KD-classifier", "IS-classifier"]
    assert "SW2-classifier" in measured(panel(metric="FD-classifier"), [torch.arange(120)])
    assert "KD-inception" in measured(panel(metric="FD-inception"), [torch.arange(120)])  # not the published weights


def test_distances_are_measured_to_held_out_features_too():
    held_out = torch.randn(40, 6, generator=torch.Generator().manual_seed(4))
    suite = panel(held_out=held_out)
    values, alone = (measured(one, [torch.arange(120)]) for one in (suite, panel()))
    to_held_out = kid(held_out, MADE, 3)
    assert (values["KID"].value_held_out, values["KID"].error_held_out) == (
        to_held_out.value,
        to_held_out.standard_error,
    )
    assert values["SW2-inception"].value_held_out == sliced_w2(held_out, MADE, 256, 3)
    assert {name: item.value for name, item in values.items()} == {name: item.value for name, item in alone.items()}
    assert all(item.value_held_out is None for name, item in values.items() if name not in ("KID", "SW2-inception"))
    assert suite.held_out_distances() == {
        "KID": kid(REAL, held_out, 3).value,
        "SW2-inception": sliced_w2(REAL, held_out, 256, 3),
    }
    few = panel(held_out=held_out[:19])  # KID needs twenty
    assert list(few.held_out_distances()) == ["SW2-inception"]
    assert measured(few, [torch.arange(120)])["KID"].value_held_out is None


def test_floors_are_of_two_halves_of_the_real_ones():
    floors = panel().floors()
    assert list(floors) == ["KID", "precision", "recall", "density", "coverage", "SW2-inception"]
    assert floors["SW2-inception"] < sliced_w2(REAL, MADE + 1)
    assert floors["density"] == pytest.approx(1, abs=0.3)


def test_missing_samples_and_missing_classes_are_refused():
    made = panel(("kid",))
    mine = made.collect()
    made.update(mine, torch.arange(60), MADE[:60])
    with pytest.raises(InputError, match="got 60"):
        made.measured(mine)
    with pytest.raises(InputError, match="got 'FID'"):
        panel(logits=None)
    assert panel(("inception-score",)).collect().features == []


def test_a_metric_without_a_branch_gets_no_other_ones_number():
    with pytest.raises(NotImplementedError):
        panel(["kid"])._against("mmd", REAL, REAL)
