"""The command line as others' scripts rely on it: nothing here changes by accident."""

import pytest
import typer.main

from flows.cli import app

OPTIONS = {
    "run": {
        "RECIPE",
        "--set",
        "--force",
        "--until",
        "--smoke-test",
        "--nproc",
        "--nnodes",
        "--node-rank",
        "--rdzv-endpoint",
        "--remote",
        "--jobs",
    },
    "plan": {"RECIPE", "--set", "--force", "--until", "--remote", "--dag", "--on", "--json"},
    "list": {"--remote"},
    "show": {"RECIPE|ARTIFACT", "--set", "--explain", "--schema", "--reference", "--json"},
    "status": {"--json"},
    "runs": {"--metric", "--where", "--sort", "--json", "--csv"},
    "results": {"[RECIPE]", "--set", "--metric", "--sort", "--best", "--json"},
    "report": {"RECIPE", "--set", "--open"},
    "compare": {"RECIPE RECIPE ...", "--seeds", "--run", "--set", "--plot", "--html", "--markdown", "--json"},
    "diff": {"A", "B", "--json"},
    "sample": {
        "RECIPE",
        "--set",
        "--model",
        "--steps",
        "--solver",
        "--class",
        "--guidance",
        "--seed",
        "--count",
        "--ema",
        "--grid",
        "--out",
    },
    "fid": {"FOLDER|FILE.npz", "--against", "--json"},
    "export": {"RECIPE", "--out", "--set", "--model", "--ema", "--onnx", "--force"},
    "verify": {"[RECIPE|ARTIFACT]", "--repair", "--remote"},
    "gc": {"--yes", "--older-than"},
    "rm": {"RECIPE|ARTIFACT", "--yes"},
    "deploy": {"[RECIPE ...]", "--pool", "--schedule", "--set"},
    "ui": {"--port"},
    "bank": set(),
}

INSPECT = {"--set", "--out", "--json"}


def test_commands_and_options_are_frozen():
    group = typer.main.get_command(app)
    found = {
        name: {
            parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]
            for parameter in command.params
        }
        for name, command in group.commands.items()
    }
    assert found == OPTIONS
    inspect = group.commands["bank"].commands["inspect"]
    assert {parameter.opts[0] for parameter in inspect.params if parameter.param_type_name == "option"} == INSPECT
    assert {parameter.opts[0] for parameter in group.params} == {"--debug", "--version"}


def test_version_is_said(flowctl):
    result = flowctl("--version")
    assert result.exit_code == 0 and result.stdout.startswith("flowctl ")


@pytest.mark.parametrize(
    "words",
    [
        ("plan",),
        ("plan", "nfm-digits", "--froce", "data"),
        ("paln", "nfm-digits"),
        ("ui", "--port", "0"),
        ("sample", "nfm-digits", "--model", "tacher"),
    ],
)
def test_wrong_usage_ends_with_2(flowctl, home, words):
    assert flowctl(*words).exit_code == 2


def test_every_command_explains_itself(flowctl):
    for name in OPTIONS:
        result = flowctl(name, "--help")
        assert result.exit_code == 0 and "Usage" in result.stdout
