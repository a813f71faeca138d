"""`--force` given again: after an interruption the same command resumes, after a good end it reruns."""

import json
import shutil
import time

import pytest

from flows.orchestration.sweeps import open_sweep
from flows.session import reruns
from flows.session.recording import record_reused, recording, run_stages
from flows.session.runs import RunRecord
from flows.session.session import Session
from pipeline.engine.plan import plan
from pipeline.recipe.load import load
from pipeline.recipe.sweep import Point
from storage.errors import FlowctlError

DONE = {"data": "reused", "teacher": "reused", "bank": "reused", "student": "reused"}


@pytest.fixture
def run(tiny, monkeypatch):
    """As `flowctl run`, without Prefect: `run("teacher", fails="bank")` forces one stage; the outcomes by stage."""

    def call(*force, fails=None, changes=()):
        monkeypatch.setenv("FAKES", json.dumps({fails: {"fail": "StageFailed"}} if fails else {}))
        session = Session.open(load(tiny, changes), force, "student")
        session.store.prepare()
        steps = plan(session.nodes, session.store, reruns.not_yet_rerun([session]))
        if all(step.action == "reuse" for step in steps):
            record_reused(session, steps)
            return DONE
        reruns.request([session])
        try:
            with recording(session, steps):
                run_stages(session)
        except FlowctlError:
            assert fails is not None
        return {stage: outcome.action for stage, outcome in session.outcomes.items()}

    return call


@pytest.fixture
def lose(tiny):
    """Remove a stage's artifact."""

    def call(stage):
        session = Session.open(load(tiny))
        shutil.rmtree(session.store.find(stage, session.nodes[stage].fingerprint).root)

    return call


def test_the_same_command_does_not_rerun_a_stage_twice_before_it_ends_well(run):
    assert run("teacher", fails="bank")["teacher"] == "run"
    assert run("teacher", fails="student") == {"data": "reused", "teacher": "reused", "bank": "resumed"}
    assert run(fails="student")["teacher"] == "reused"
    assert run("teacher") == DONE | {"student": "resumed"}
    assert run("teacher") == DONE | {"teacher": "run"}
    assert run(fails="student", changes=["student.label_drop=0.3"])["teacher"] == "reused"  # another run of that name
    assert run("teacher") == DONE | {"teacher": "run"}


def test_after_the_clock_was_set_back_each_force_still_reruns_once(run, monkeypatch):
    assert run("teacher", fails="bank")["teacher"] == "run"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    assert run("teacher") == DONE | {"bank": "resumed", "student": "run"}
    assert run("teacher") == DONE | {"teacher": "run"}
    assert run("teacher", fails="bank") == DONE | {"teacher": "run"}


def test_of_several_stages_each_is_rerun_once(run, lose):
    run()
    lose("student")
    assert run("data", "bank", fails="bank") == {"data": "run", "teacher": "reused"}
    assert run("data", "bank", fails="student") == {"data": "reused", "teacher": "reused", "bank": "resumed"}
    assert run("data", "bank") == DONE | {"student": "resumed"}
    assert run("data", "bank") == DONE | {"data": "run", "bank": "run"}


def test_another_command_reruns(run):
    run("teacher", fails="bank")
    assert run("teacher", fails="bank", changes=["name=other"])["teacher"] == "run"
    assert run("data", "teacher", fails="bank")["teacher"] == "run"


def test_a_run_that_was_killed_after_its_last_stage_is_over_once_it_is_resumed(run, monkeypatch):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "end", lambda record, outcome: record.release())
        assert run("teacher") == DONE | {"teacher": "run"}
    assert run("teacher") == DONE
    assert run("teacher") == DONE | {"teacher": "run"}


def test_a_sweep_resumes_too(run, tiny):
    rates = [f"student.training.lr={rate}" for rate in (0.1, 0.2)]
    recipes = [(load(tiny, [rate, f"name=tiny{number}"]), Point((), {})) for number, rate in enumerate(rates)]
    runs = open_sweep(recipes, ["teacher"], "student")
    ahead = [[(step.node.name, step.reason) for step in one.steps] for one in runs]
    assert [("teacher", "forced by --force") in steps for steps in ahead] == [True, True]
    runs[0].session.store.prepare()
    reruns.request([one.session for one in runs])
    for number, fails in ((0, "student"), (1, None)):  # its children, without --force
        run(fails=fails, changes=[rates[number], f"name=tiny{number}"])
    actions = [[step.action for step in one.steps] for one in open_sweep(recipes, ["teacher"], "student")]
    assert actions == [["reuse", "reuse", "reuse", "resume"], ["reuse"] * 4]
    run(changes=[rates[0], "name=tiny0"])
    assert [one.steps[1].action for one in open_sweep(recipes, ["teacher"], "student")] == ["run", "run"]


def test_a_sweep_that_was_stopped_between_two_children_resumes(run, tiny):
    rates = [f"student.training.lr={rate}" for rate in (0.1, 0.2)]
    recipes = [(load(tiny, [rate, f"name=tiny{number}"]), Point((), {})) for number, rate in enumerate(rates)]
    runs = open_sweep(recipes, ["teacher"], "student")
    runs[0].session.store.prepare()
    reruns.request([one.session for one in runs])
    run(changes=[rates[0], "name=tiny0"])  # the second child was never started
    assert [one.steps[1].action for one in open_sweep(recipes, ["teacher"], "student")] == ["reuse", "reuse"]
    assert run("teacher", changes=[rates[0], "name=tiny0"])["teacher"] == "run"  # one of them is another command
    assert [one.steps[1].action for one in open_sweep(recipes, ["teacher"], "student")] == ["reuse", "reuse"]


def test_a_run_up_to_an_earlier_stage_ends_no_request(run, tiny):
    assert run("teacher", fails="bank")["teacher"] == "run"
    session = Session.open(load(tiny), (), "teacher")
    record_reused(session, plan(session.nodes, session.store))
    assert run("teacher") == DONE | {"bank": "resumed", "student": "run"}
