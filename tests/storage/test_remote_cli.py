"""The command line with a remote: stages that need no training, a real S3 server."""

import json
import shutil
from pathlib import Path

import obstore
import pytest

from flows import api
from flows.session.recording import recording, run_stages
from pipeline.engine.plan import plan
from storage.artifact import MANIFEST, SCHEMA, Artifact, NewerFormat
from storage.errors import Interrupted
from storage.remote import Remote
from storage.store import Store
from tests.flows.conftest import finished, flowctl, home, program, tiny  # noqa: F401 - fixtures
from tests.flows.faults import fault
from tests.storage.test_remote import contents
from tests.storage.test_remote_errors import read_only, serving

STAGES = ("data", "reference", "teacher", "bank", "student", "evaluation", "report")


def actions(answer) -> list[str]:
    assert answer.exit_code == 0, answer.output
    return [step["action"] for step in json.loads(answer.stdout)]


def every(home_: Path) -> dict[str, dict[str, bytes]]:
    """The bytes of all artifacts of a store."""
    return {root.relative_to(home_).as_posix(): contents(root) for root in Store(home_).roots()}


@pytest.fixture
def sent(bucket, finished, flowctl, tiny, monkeypatch):  # noqa: F811
    """A finished recipe, in the store and on the remote that the environment names."""
    assert flowctl("run", tiny, "--remote", bucket).exit_code == 0
    monkeypatch.setenv("FLOWCTL_REMOTE", bucket)
    return Remote(bucket)


def test_what_is_there_already_is_sent_once(bucket, finished, flowctl, tiny):  # noqa: F811
    first, second = (flowctl("run", tiny, "--remote", bucket) for _ in range(2))
    assert first.exit_code == second.exit_code == 0 and "Nothing to run: all 7 stages" in first.stdout
    assert [f"{stage}: sent" in first.stderr for stage in STAGES] == [True] * 7 and "sent" not in second.stderr
    assert [stage for stage, _ in Remote(bucket).keys()] == sorted(STAGES)  # noqa: SIM118
    assert flowctl("run", tiny).exit_code == 0


def test_another_machine_fetches_all_of_it(sent, home, program, flowctl, tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path / "other"))
    assert actions(flowctl("plan", tiny, "--json")) == ["fetch"] * 7
    assert [row["action"] for row in api.load(tiny, {}).plan()] == ["fetch"] * 7
    shown = flowctl("plan", tiny).stdout
    assert sent.url in shown and "Estimates" not in shown
    process = program("run", tiny)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [f"{stage}: fetched" in err for stage in STAGES] == [True] * 7 and "Report: " in out
    assert every(tmp_path / "other") == every(home)
    assert not (tmp_path / "other" / "prefect").exists()  # there was nothing to orchestrate
    record = json.loads(next((tmp_path / "other" / "runs").glob("*.json")).read_text())  # and yet gc knows of the run
    assert record["outcome"] == "7 fetched" and len(record["plan"]) == 7
    assert actions(flowctl("plan", tiny, "--json")) == ["reuse"] * 7


def check_unsent(last: str, bucket: str) -> None:
    assert last.startswith(
        f"error: All stages are finished, but these could not be sent to {bucket}: {', '.join(STAGES)} (s3://"
    )
    assert "access is refused (403, AccessDenied)" in last and "resume" in last


@pytest.mark.slow
def test_a_run_that_cannot_send_makes_everything_and_says_what_is_left(bucket, home, program, flowctl, tiny):  # noqa: F811
    with serving(read_only) as url:
        process = program("run", tiny, "--remote", bucket, AWS_ENDPOINT_URL=url)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    check_unsent(err.strip().splitlines()[-1], bucket)
    assert err.count("not sent: ") == 7 and "report: run" in err
    assert actions(flowctl("plan", tiny, "--json")) == ["reuse"] * 7
    again = flowctl("run", tiny, "--remote", bucket)
    assert again.exit_code == 0 and again.stderr.count(": sent ") == 7


@pytest.mark.slow
def test_what_the_remote_lacks_is_made_and_sent(sent, home, program, flowctl, tiny, tmp_path, monkeypatch):  # noqa: F811
    for stage, fingerprint in sent.keys():  # noqa: SIM118
        if stage in ("evaluation", "report"):
            sent.retract(stage, fingerprint)
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path / "other"))
    assert actions(flowctl("plan", tiny, "--json")) == ["fetch"] * 5 + ["run"] * 2
    process = program("run", tiny)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err.count(": fetched") == 5 and err.count(": run") == 2 and "report: sent 0 B" in err
    assert "outside of a flow" not in err  # progress is told inside it, from any thread
    record = json.loads(next((tmp_path / "other" / "runs").glob("*.json")).read_text())
    assert record["outcome"] == "5 fetched, 2 run"
    assert actions(flowctl("plan", tiny, "--json")) == ["reuse"] * 7
    assert flowctl("verify", "--remote").stdout.startswith("7 artifacts")


def test_what_could_not_be_sent_is_sent_by_the_same_command(bucket, server, finished, flowctl, tiny, monkeypatch):  # noqa: F811
    with serving(read_only) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        failed = flowctl("run", tiny, "--remote", bucket)
    assert failed.exit_code == 1 and failed.stderr.count("not sent: ") == 7
    check_unsent(failed.stderr.strip().splitlines()[-1], bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    again = flowctl("run", tiny, "--remote", bucket)
    assert again.exit_code == 0 and again.stderr.count(": sent ") == 7


def test_a_stop_while_sending_leaves_what_is_sent(bucket, finished, tiny, monkeypatch):  # noqa: F811
    remote, sent = Remote(bucket), []
    finished.remote = remote
    monkeypatch.setattr(finished.display, "note", lambda text: sent.append(text) or finished.stop.request("Ctrl-C"))
    steps = plan(finished.nodes, finished.store)
    with recording(finished, steps), pytest.raises(Interrupted, match="before stage reference"):
        run_stages(finished)
    assert len(sent) == 1 and "data: sent" in sent[0]
    assert remote.find("data", finished.nodes["data"].fingerprint) is not None
    assert remote.find("reference", finished.nodes["reference"].fingerprint) is None


def test_a_remote_that_is_down_is_said_before_anything_is_made(bucket, home, flowctl, tiny, monkeypatch):  # noqa: F811
    from storage.remote import _address

    monkeypatch.setattr(_address, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for command in ("plan", "run"):
        answer = flowctl(command, tiny, "--remote", bucket)
        assert answer.exit_code == 1 and not Store(home).roots()
        assert answer.stderr.startswith(f"error: {bucket}: no answer in 7 attempts (connection refused). Check the net")
        assert answer.stderr.count("\n") == 1
    answer = flowctl("run", tiny, "--remote", "http://bucket")
    assert answer.exit_code == 2 and "http://bucket" in answer.stderr


def test_list_shows_what_is_there(sent, flowctl, monkeypatch):  # noqa: F811
    listed = flowctl("list", "--remote")
    assert listed.exit_code == 0
    lines = listed.stdout.splitlines()
    assert [line.partition("/")[0] for line in lines[1:8]] == sorted(STAGES) and lines[-1].endswith(sent.url)
    assert f"{sent.url}/artifacts/teacher/" in listed.stdout and "teacher/tiny-" in listed.stdout
    monkeypatch.delenv("FLOWCTL_REMOTE")
    assert "export FLOWCTL_REMOTE=" in flowctl("list", "--remote").stderr


def damage(remote: Remote) -> Artifact:
    """One byte of the teacher on the remote; its manifest."""
    stage, fingerprint = next(key for key in remote.keys() if key[0] == "teacher")  # noqa: SIM118
    artifact = remote.find(stage, fingerprint)
    size = artifact.files[0].size
    key = remote.address(artifact, artifact.files[0].path).removeprefix(remote.url + "/")
    obstore.put(remote._store, key, b"x" * size)
    return artifact


def test_verify_reads_every_byte_and_repair_sends_it_again(sent, flowctl):  # noqa: F811
    assert "7 artifacts" in flowctl("verify", "--remote").stdout
    artifact = damage(sent)
    where = sent.address(artifact, artifact.files[0].path)
    found = flowctl("verify", "--remote")
    assert found.exit_code == 1 and f"damaged: {where}: its bytes are not those recorded" in found.stdout
    assert "1 of 7 artifacts damaged" in found.stderr
    assert flowctl("verify", "data", "--remote").exit_code == 2
    assert flowctl("verify", artifact.fingerprint[:12], "--remote").exit_code == 1
    repaired = flowctl("verify", f"teacher/tiny-{artifact.fingerprint[:12]}", "--remote", "--repair")
    assert repaired.exit_code == 0 and "sent again from" in repaired.stdout
    assert flowctl("verify", "--remote").exit_code == 0


@pytest.mark.parametrize("here", [True, False])
def test_what_a_newer_version_wrote_is_neither_replaced_nor_removed(sent, home, flowctl, here):  # noqa: F811
    stage, fingerprint = next(key for key in sent.keys() if key[0] == "teacher")  # noqa: SIM118
    key = f"artifacts/{stage}/{fingerprint}/{MANIFEST}"
    facts = json.loads(obstore.get(sent._store, key).bytes().to_bytes())
    newer = json.dumps(facts | {"schema_version": SCHEMA + 1, "checksum": None}).encode()
    obstore.put(sent._store, key, newer)
    if not here:
        shutil.rmtree(home / "artifacts" / "teacher")
    for words in ((), ("--repair",)):
        assert type(fault(flowctl("verify", "--remote", *words))) is NewerFormat
        assert obstore.get(sent._store, key).bytes().to_bytes() == newer


def test_a_damaged_object_behind_a_torn_manifest_is_sent_again_too(sent, flowctl):  # noqa: F811
    """Without a manifest it cannot be checked, and it has its size."""
    artifact = damage(sent)
    obstore.put(sent._store, "/".join(("artifacts", "teacher", artifact.fingerprint, MANIFEST)), b"{")
    assert "sent again" in flowctl("verify", "--remote", "--repair").stdout
    assert not sent.flaws(sent.manifest("teacher", artifact.fingerprint))


def test_damage_beside_what_a_newer_version_wrote_is_found_and_repaired(sent, flowctl):  # noqa: F811
    key = next("/".join(("artifacts", *key, MANIFEST)) for key in sent.keys() if key[0] == "bank")  # noqa: SIM118
    facts = json.loads(obstore.get(sent._store, key).bytes().to_bytes())
    obstore.put(sent._store, key, json.dumps(facts | {"schema_version": SCHEMA + 1, "checksum": None}).encode())
    artifact = damage(sent)
    for words in ((), ("--repair",)):
        result = flowctl("verify", "--remote", *words)
        assert result.exit_code == 1 and "damaged: " in result.stdout
    assert not sent.flaws(sent.manifest("teacher", artifact.fingerprint))


def test_repair_takes_out_what_this_store_does_not_have(sent, home, flowctl, tiny):  # noqa: F811
    artifact = damage(sent)
    shutil.rmtree(home / "artifacts" / "teacher")
    assert "fetch" in actions(flowctl("plan", tiny, "--json"))
    assert "removed" in flowctl("verify", "--remote", "--repair").stdout
    assert sent.find("teacher", artifact.fingerprint) is None
    assert "fetch" not in actions(flowctl("plan", tiny, "--json"))
    assert "not complete" in flowctl("list", "--remote").stdout or len(sent.keys()) == 6
