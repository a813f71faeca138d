"""Expected times against times taken: only of stages that one run planned, began and ended."""

import pytest

from benchmarks import forecast
from flows.session.runs import RunRecord
from flows.session.session import Session
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from tests.flows.conftest import home, make_all, tiny  # noqa: F401


@pytest.mark.parametrize("during", [True, False])
def test_a_stage_counts_if_it_ran_in_the_run_that_planned_it(tiny, during):  # noqa: F811
    session = Session.open(load(tiny))
    session.store.prepare()
    steps = outline(plan(session.nodes, session.store))
    planned = [{**step, "seconds": 8.0, "measured": 0.9} for step in steps]
    run = RunRecord(session.store.home, session.recipe.model_dump(mode="json"), planned, None)
    if not during:
        run.end("stopped")
        run.facts.update(ended=run.facts["began"] - 2)
        run._write()
    make_all(session.recipe)
    run.release()
    rows = list(forecast.stages(session.store, longer=0))
    assert [row.name for row in rows] == (list(session.nodes) if during else [])
    assert all(row.expected == 8 and row.measured == 0.9 and row.ratio == 8 / row.taken for row in rows)
    assert len(list(forecast.stages(session.store, longer=60))) == 0
    table = forecast.markdown(rows, "command").splitlines()
    assert table[6].startswith(f"| at least 80% of it by rates | {len(rows)} |")
