"""What goes wrong reaches the user as one line and an exit code."""

import pytest

from storage.errors import FlowctlError

WRONG_INPUT = [
    (("plan", "nfm-digts"), "Did you mean 'nfm-digits'?"),
    (("plan", "missing.yaml"), "must exist"),
    (("plan", "{tiny}", "--set", "studnet.seed=1"), "Did you mean 'student'?"),
    (("plan", "{tiny}", "--set", "seed=-1"), "seed must be greater than or equal to 0, got -1"),
    (("plan", "{tiny}", "--set", "seed"), "--set section.field=value"),
    (("run", "{tiny}", "--until", "techer"), "Did you mean 'teacher'?"),
    (("run", "{tiny}", "--force", "reprot"), "Did you mean 'report'?"),
    (("run", "{tiny}", "--force", "onestep"), "Its stages: data, reference"),
    (("run", "{tiny}", "--force", "report", "--until", "teacher"), "up to teacher"),
    (("show", "teecher/x"), "show takes"),
    (("results", "{tiny}"), "need a finished evaluation"),
    (("sample", "{tiny}"), "not made yet"),
    (("sample", "{tiny}", "--model", "onestep"), "It has teacher, student"),
    (("sample", "{tiny}", "--out", "x.gif"), ".png"),
    (("sample", "{tiny}", "--solver", "heum"), "Did you mean 'heun'?"),
    (("verify", "nfm-digts"), "Did you mean 'nfm-digits'?"),
]


@pytest.mark.parametrize(
    ("words", "said"), WRONG_INPUT, ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else ""
)
def test_wrong_input_is_one_line_and_2(flowctl, tiny, words, said):
    result = flowctl(*(word.format(tiny=tiny) for word in words))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_store_that_cannot_be_written_is_named(flowctl, tiny, home):
    home.write_text("a file where the store should be")
    result = flowctl("run", tiny)
    assert result.exit_code == 2 and str(home) in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FlowctlError("The disk is odd."), 1, "error: The disk is odd. Then run the same command again\n"),
        (KeyError("x"), 1, "error: KeyError: 'x'. This should not happen: --debug shows where it did\n"),
        (OSError(28, "No space left on device", "/store/a"), 1, "error: /store/a: No space left on device\n"),
        (
            KeyboardInterrupt(),
            1,
            "error: Stopped at once; run the same command again to go on from what was saved last\n",
        ),
    ],
)
def test_any_exception_is_one_line(flowctl, home, monkeypatch, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("flows.upkeep.status.unfinished", fail)
    result = flowctl("status")
    assert (result.exit_code, result.stderr) == (code, said)


@pytest.mark.parametrize("words", [("--debug", "plan", "nfm-digts"), ("plan", "nfm-digts", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(flowctl, home, words):
    result = flowctl(*words)
    assert result.exit_code == 2 and "Traceback" in result.stderr and "\nerror: " in result.stderr
    assert "Traceback" not in flowctl("plan", "nfm-digts").stderr


def test_an_unknown_server_is_named(flowctl, tiny, monkeypatch):
    monkeypatch.setattr("flows.session.settings.configure", lambda debug: None)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    result = flowctl("run", tiny)
    assert result.exit_code == 1 and "PREFECT_API_URL=http://127.0.0.1:1/api" in result.stderr
