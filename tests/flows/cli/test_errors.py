"""Errors reach the user as one line and an exit code."""

import pytest

from flows.cli.errors import RESUME
from pipeline.recipe.load import InvalidRecipe
from storage.errors import FlowctlError, InputError, Interrupted
from tests.flows.faults import fault
from tests.shared import HANGS

WRONG_INPUT = [
    (("plan", "nfm-digts"), InputError, "nfm-digts"),
    (("plan", "missing.yaml"), InputError, None),
    (("plan", "{tiny}", "--set", "studnet.seed=1"), InvalidRecipe, None),
    (("plan", "{tiny}", "--set", "seed=-1"), InvalidRecipe, None),
    (("plan", "{tiny}", "--set", "seed"), InputError, "seed"),
    (("run", "{tiny}", "--until", "techer"), InputError, "techer"),
    (("run", "{tiny}", "--force", "reprot"), InputError, "reprot"),
    (("run", "{tiny}", "--force", "onestep"), InputError, "onestep"),
    (("run", "{tiny}", "--force", "report", "--until", "teacher"), InputError, "report"),
]


@pytest.mark.parametrize(("words", "kind", "value"), WRONG_INPUT, ids=lambda value: str(value)[:40])
def test_wrong_input_is_one_line_and_2(flowctl, tiny, words, kind, value):
    result = flowctl(*(word.format(tiny=tiny) for word in words))
    error = fault(result)
    assert isinstance(error, kind) and result.exit_code == 2
    assert value is None or error.value == value
    assert result.stderr.count("\n") == 1 and not result.stderr.rstrip().endswith("?.")


def test_a_store_that_cannot_be_written_is_named(flowctl, tiny, home):
    home.write_text("a file where the store should be")
    result = flowctl("run", tiny)
    assert result.exit_code == 2 and str(home) in result.stderr


@pytest.mark.parametrize(
    ("error", "facts", "resume"),
    [
        (FlowctlError("The disk is odd"), ["The disk is odd."], False),
        (FlowctlError("No\n   such 'my  x.yaml'"), ["No such 'my  x.yaml'."], False),  # a path keeps its blanks
        (Interrupted("Stopped"), ["Stopped."], True),
        (KeyError("x"), ["KeyError", "'x'", "--debug"], False),
        (OSError(28, "No space left on device", "/store/a"), ["/store/a: No space left on device"], False),
        (KeyboardInterrupt(), [], True),
    ],
)
def test_any_exception_is_one_line(flowctl, home, monkeypatch, error, facts, resume):
    """A retryable error, and no other, says that the same command resumes."""

    def fail(*_):
        raise error

    monkeypatch.setattr("flows.upkeep.status.unfinished", fail)
    result = flowctl("status")
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert all(fact in result.stderr for fact in facts) and (RESUME in result.stderr) == resume


@pytest.mark.parametrize("words", [("--debug", "plan", "nfm-digts"), ("plan", "nfm-digts", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(flowctl, home, words):
    result = flowctl(*words)
    assert result.exit_code == 2 and "Traceback" in result.stderr and "\nerror: " in result.stderr
    assert "Traceback" not in flowctl("plan", "nfm-digts").stderr


def test_an_unknown_server_is_named(program, tiny):
    process = program("run", tiny, PREFECT_API_URL="http://127.0.0.1:1/api")
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 1 and "http://127.0.0.1:1/api" in said
