"""Rounds of reflow wherever commands name stages: plan, run, status, sample, export, diff, gc, verify."""

import json

import pytest

from flows.session.runs import records
from pipeline.recipe.load import load
from storage.atomic import write_json
from storage.errors import UsageError
from storage.store import Store
from tests.flows.conftest import make_all
from tests.flows.faults import fault
from tests.pipeline.engine.test_dag import TWO_ROUNDS as STAGES

ROUND = "{pairs: {count: 8, nfe: 2}, training: {images: 8, batch: 4, lr: 0.1, ema: 4}}"
RECIPE = f"""
extends: TINY
name: rounds
reflow: [{ROUND}, {ROUND}]
pairs: {{count: 8, nfe: 2}}
onestep: {{mode: distil, training: {{images: 8, batch: 4, lr: 0.1, ema: 4}}}}
"""


@pytest.fixture
def rounds(tiny, tmp_path) -> str:
    path = tmp_path / "rounds.yaml"
    path.write_text(RECIPE.replace("TINY", tiny))
    return str(path)


@pytest.fixture
def made(rounds):
    return make_all(load(rounds))


def test_plan_shows_every_round_and_until_stops_after_one(flowctl, made, rounds):
    steps = json.loads(flowctl("plan", rounds, "--json").stdout)
    steps = steps if isinstance(steps, list) else steps["stages"]
    assert [(step["stage"], step["action"]) for step in steps] == [(stage, "reuse") for stage in STAGES]
    shown = flowctl("plan", rounds, "--until", "reflow-1", "--force", "pairs-1")
    assert shown.exit_code == 0, shown.output
    assert "reflow-1" in shown.stdout and "pairs-2" not in shown.stdout and "forced by --force" in shown.stdout


@pytest.mark.parametrize(
    ("stage", "hint"),
    [("reflow-3", "Its stages: data"), ("reflow-0", "Did you mean 'reflow-"), ("pairs-12", "Did you mean 'pairs")],
)
def test_a_round_that_is_not_there_is_named(flowctl, rounds, stage, hint):
    result = flowctl("plan", rounds, "--until", stage)
    assert result.exit_code == 2 and stage in result.stderr and hint in result.stderr


def test_status_knows_the_work_of_a_round(flowctl, home, rounds, made):
    node = made.nodes["reflow-2"]
    store = Store(home)
    for root in store.directories(node.name, node.fingerprint):
        store.discard(root)
    work = store.work(node.name, node.fingerprint)
    work.mkdir(parents=True)
    write_json(work / "saved.json", {"done": 4, "total": 8, "unit": "images"})
    (item,) = json.loads(flowctl("status", "--json").stdout)
    assert (item["stage"], item["state"], item["done"]) == ("reflow-2", "stopped", 4)


def test_networks_of_rounds_can_be_sampled_and_exported(flowctl, made, rounds, tmp_path, monkeypatch):
    seen = {}
    with monkeypatch.context() as patch:
        patch.setattr(
            "flows.views.samples.draw", lambda recipe, request, name: seen.update(request=request) or (0, 0, 17)
        )
        patch.setattr("flows.views.sample_files.write", lambda out, *_: None)
        result = flowctl("sample", rounds, "--model", "reflow-2", "--out", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert (seen["request"].model, seen["request"].steps) == ("reflow-2", None)

    monkeypatch.setattr("pipeline.export.export", lambda subject, *_: seen.update(subject=subject))
    result = flowctl("export", rounds, "--model", "reflow-2", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert seen["subject"].model == "reflow-2"
    assert list(seen["subject"].lineage) == [stage for stage in STAGES[:9] if stage != "reference"]
    for words in (("sample", rounds), ("export", rounds, "--out", tmp_path / "out")):
        error = fault(flowctl(*words, "--model", "reflow-3"))
        assert type(error) is UsageError and "teacher, student, reflow-1, reflow-2, onestep" in error.remedy
    assert flowctl("sample", rounds, "--model", "pairs-1").exit_code == 2  # no network


def test_what_rounds_need_is_kept_and_what_they_are_made_of_is_told(flowctl, made, tiny, rounds):
    result = flowctl("diff", tiny, rounds)
    assert result.exit_code == 0, result.output
    assert result.stdout.index("pairs-1") < result.stdout.index("reflow-1") < result.stdout.index("pairs-2")
    result = flowctl("verify", rounds)
    assert result.exit_code == 0, result.output
    listed = flowctl("list")
    assert listed.exit_code == 0 and "reflow-2" in listed.stdout


@pytest.mark.slow
def test_a_run_has_a_task_for_each_stage_of_a_round(flowctl, rounds, home, prefect_server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setattr("flows.session.settings.configure", lambda debug: None)
    result = flowctl("run", rounds, "--until", "reflow-2")
    assert result.exit_code == 0, result.output
    expected = [stage for stage in STAGES[:9] if stage != "reference"]
    assert [line.partition(" …")[0] for line in result.stderr.splitlines()] == [f"{stage}: run" for stage in expected]
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        (*_, facts) = records(home)
        assert client.read_flow_run(facts["flow_run"]).state.message == "8 run"
    kept = flowctl("gc")
    assert kept.exit_code == 0 and "reflow" not in kept.stdout
