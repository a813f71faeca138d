"""`verify --repair`: it keeps no shard that was made from other inputs, and disturbs no run that begins meanwhile."""

import types

import pytest

from flows.session import reruns
from flows.session.runs import RunRecord
from flows.session.session import Session
from flows.upkeep.repair import Repairs
from pipeline.engine import dag
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from tests.flows import fakes
from tests.flows.conftest import make_all
from tests.flows.upkeep.test_verify import SHARDS, content, ran, root, store  # noqa: F401 - fixtures
from tests.storage.test_bank_reopen import flip

SHARD = "bank.zarr/z/c.3.0.0.0"


def force(tiny: str, *stages: str) -> None:
    """`flowctl run tiny --force STAGES`."""
    reruns.request([Session.open(load(tiny), stages)])
    make_all(load(tiny))


@pytest.fixture
def another_teacher(tiny, monkeypatch):
    """Makes the teacher again, to other bytes, as on another device."""

    def make():
        working = dag.Stage.module

        def other(job):
            result = fakes.run(job, {})
            (job.out / "payload.txt").write_text("other bytes")
            return result

        with monkeypatch.context() as patch:
            patch.setattr(
                dag.Stage,
                "module",
                lambda stage: types.SimpleNamespace(run=other) if stage.name == "teacher" else working(stage),
            )
            force(tiny, "teacher")

    return make


def test_a_bank_of_an_earlier_teacher_is_encoded_whole(flowctl, store, tiny, ran, another_teacher):  # noqa: F811
    """Shards that are kept would be of the earlier one, those that are encoded of the other."""
    bank = root(store, "bank")
    another_teacher()
    assert ran == []
    flip(bank / SHARD)
    result = flowctl("verify", "--repair")
    assert result.exit_code == 0 and ran == ["bank", *range(SHARDS)], result.output
    repaired = content(bank)
    flip(bank / SHARD)
    ran.clear()
    assert flowctl("verify", "--repair").exit_code == 0 and ran == ["bank", 3]  # it is of this teacher now
    force(tiny, "bank")
    assert content(bank) == repaired


@pytest.mark.parametrize("other", [False, True])
def test_shards_of_a_stopped_repair_stay_for_the_same_teacher_alone(
    flowctl,
    store,  # noqa: F811
    tiny,
    ran,  # noqa: F811
    another_teacher,
    monkeypatch,
    other,
):
    bank = root(store, "bank")
    flip(bank / SHARD)
    with monkeypatch.context() as patch:
        patch.setattr("flows.upkeep.repair.run_stages", lambda session: 1 / 0)
        assert flowctl("verify", "--repair").exit_code == 1 and not bank.exists()
    another_teacher() if other else make_all(load(tiny))
    assert ran == ["bank", *(range(SHARDS) if other else [3])]
    repaired = content(bank)
    force(tiny, "bank")
    assert content(bank) == repaired


@pytest.mark.parametrize(("stage", "file"), [("bank", SHARD), ("student", "Thumbs.db")])
def test_what_a_run_needs_that_began_during_a_repair_is_left_alone(flowctl, store, tiny, monkeypatch, stage, file):  # noqa: F811
    """Of the data, which comes first in both cases: as an input of the bank, or as the first that is damaged."""
    flip(root(store, "data") / "payload.txt")
    (root(store, stage) / file).write_bytes(b"damaged")
    before, repair, began = content(root(store, stage)), Repairs.repair, []

    def then_a_run_begins(self, finding):
        done = repair(self, finding)
        session = Session.open(load(tiny))
        steps = outline(plan(session.nodes, store))
        began.append(RunRecord(store.home, session.recipe.model_dump(mode="json"), steps, None))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Repairs, "repair", then_a_run_begins)
        result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and f"not repaired: {stage}/" in result.stdout and len(began) == 1
    assert content(root(store, stage)) == before
    began[0].end("7 run")
    assert flowctl("verify", "--repair").exit_code == 0 and flowctl("verify").exit_code == 0
