"""`plan`: the action and reason of each stage, and the estimates."""

import json
from types import SimpleNamespace

from flows.session import forecasts
from flows.session.session import Session
from pipeline.cost.forecast import PartTime, StageTime
from pipeline.recipe.load import load

STAGES = ["data", "reference", "teacher", "bank", "student", "evaluation", "report"]


def test_plan_gives_action_and_reason(flowctl, finished, tiny):
    result = flowctl("plan", tiny, "--set", "student.label_drop=0.2", "--force", "reference", "--json")
    assert result.exit_code == 0
    steps = json.loads(result.stdout)
    assert all({"stage", "action", "reason", "fingerprint"} <= set(step) for step in steps)
    assert [step["stage"] for step in steps if "source" in step] == ["data"]
    assert [step["stage"] for step in steps] == STAGES
    actions = {step["stage"]: step["action"] for step in steps}
    assert actions == dict.fromkeys(STAGES, "reuse") | dict.fromkeys(
        ["reference", "student", "evaluation", "report"], "run"
    )
    reasons = {step["stage"]: step["reason"] for step in steps}
    assert reasons["student"] == "label_drop: 0.1 -> 0.2" and "--force" in reasons["reference"]


def test_plan_until_skips_what_is_not_needed(flowctl, home, tiny):
    steps = json.loads(flowctl("plan", tiny, "--until", "bank", "--json").stdout)
    assert [step["stage"] for step in steps] == ["data", "teacher", "bank"]


def test_plan_estimates_the_stages_ahead(flowctl, home, tiny, monkeypatch):
    def figures(node, measured, processes):
        return SimpleNamespace(parameters=1234567, steps=2, memory_bytes=5e9 / processes, disk_bytes=1e6)

    monkeypatch.setattr("pipeline.cost.estimate.estimate", figures)
    text = flowctl("plan", tiny, "--until", "teacher").stdout
    assert "1,234,567" in text and "5 GB" in text and "2 MB" in text
    assert "2.5 GB" in flowctl("plan", tiny, "--until", "teacher", "--set", "compute.nproc=2").stdout


def test_plan_gives_the_time_of_each_stage_and_of_all(flowctl, home, tiny, monkeypatch):
    part = SimpleNamespace(name="training", amount=10, unit="images")
    nodes = Session.open(load(tiny)).nodes
    times = {
        nodes["data"].fingerprint: StageTime((PartTime(part, 60.0, None),)),
        nodes["teacher"].fingerprint: StageTime((PartTime(part, 540.0, 5.0),)),
        nodes["bank"].fingerprint: None,
    }
    monkeypatch.setattr(forecasts, "stage_times", lambda session, steps, gpu=None: times)
    steps = {step["stage"]: step for step in json.loads(flowctl("plan", tiny, "--until", "bank", "--json").stdout)}
    assert [(steps[name]["seconds"], steps[name]["measured"]) for name in ("data", "teacher")] == [(60, 0), (540, 1)]
    assert "seconds" not in steps["bank"]
    rows = {line.split()[0]: line for line in flowctl("plan", tiny, "--until", "bank").stdout.splitlines() if line}
    assert "1 min 00 s" in rows["data"] and "estimated" in rows["data"]
    assert "9 min 00 s" in rows["teacher"] and rows["bank"].endswith("unknown")
    assert "over 10 min 00 s" in rows["all"] and rows["all"].endswith("measured")  # nine tenths of it


def test_times_on_a_gpu_that_is_not_at_hand(flowctl, home, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(forecasts, "stage_times", lambda session, steps, gpu: asked.append(gpu) or {})
    assert "on H100" in flowctl("plan", tiny, "--on", "H100").stdout
    flowctl("plan", tiny, "--on", "T4", "--json")
    flowctl("plan", tiny, "--on", "L4", "--set", "seed=0,1")
    assert asked == ["H100", "T4", "L4", "L4"]
    unknown = flowctl("plan", tiny, "--on", "H1000")
    assert unknown.exit_code == 2 and "H1000" in unknown.stderr and "A100" in unknown.stderr


def test_the_dag_has_every_stage_edge_and_action(flowctl, finished, tiny):
    lines = flowctl("plan", tiny, "--dag", "--set", "student.label_drop=0.2").stdout.split("\n")
    assert lines[0] == "flowchart LR"
    assert '  teacher["teacher<br/>reuse"]:::reuse' in lines and '  student["student<br/>run"]:::run' in lines
    edges = {tuple(line.strip().split(" --> ")) for line in lines if " --> " in line}
    assert edges == {(source.name, name) for name, node in finished.nodes.items() for source in node.inputs.values()}
