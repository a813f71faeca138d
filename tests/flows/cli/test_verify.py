"""`verify`: damaged files by name, and the exit code."""

from storage.errors import FlowctlError, MissingError
from tests.flows.faults import fault


def test_verify_names_the_damaged_file(flowctl, finished, tiny):
    result = flowctl("verify")
    assert result.exit_code == 0 and "7 artifacts, 9 files" in result.stdout
    root = finished.store.find("teacher", finished.nodes["teacher"].fingerprint).root
    (root / "payload.txt").write_text("teacher ['dada']\n")  # the same length
    for words in (("verify",), ("verify", tiny)):
        result = flowctl(*words)
        assert type(fault(result)) is FlowctlError and result.exit_code == 1
        assert [line for line in result.stdout.splitlines() if line.startswith("damaged: ")] == [
            f"damaged: {root}: payload.txt: SHA-256 differs from the recorded one"
        ]
    (root / "artifact.json").write_text("{}")
    assert f"{root}: artifact.json: " in flowctl("verify").stdout


def test_verify_of_an_unknown_name(flowctl, tiny):
    error = fault(flowctl("verify", "nfm-digts"))
    assert type(error) is MissingError and error.value == "nfm-digts"
