"""Other bytes under one fingerprint: which of them a remote keeps, and that it keeps them whole."""

from datetime import timedelta

import pytest

from flows.session import remotes
from pipeline.engine import execute as execution
from storage.artifact import Artifact
from storage.atomic import write_text
from storage.remote import Remote
from tests.flows import fakes
from tests.flows.conftest import finished, flowctl, home, make_all, tiny  # noqa: F401 - fixtures
from tests.storage.test_remote import FINGERPRINT, contents, fetched, publish, remote, same  # noqa: F401 - a fixture
from tests.storage.test_remote_cli import sent  # noqa: F401 - a fixture
from tests.storage.test_remote_errors import read_only, serving


def test_an_artifact_made_anew_replaces_the_old_one_and_one_reused_does_not(remote, tmp_path):  # noqa: F811
    artifacts = [publish(tmp_path / str(number), seed=number)[1] for number in range(2)]
    remote.send(artifacts[0])
    assert remote.send(artifacts[1]) is None and same(remote.find("teacher", FINGERPRINT), artifacts[0])
    assert remote.send(artifacts[1], replace=True) > 0 and same(remote.find("teacher", FINGERPRINT), artifacts[1])
    assert contents(fetched(remote, tmp_path / "three").root) == contents(artifacts[1].root)


def test_what_was_made_later_replaces_what_is_there_whoever_sends_it(remote, tmp_path):  # noqa: F811
    """The upload right after it was made may have failed: each later call finds out by itself, and none goes back."""
    first, later = (publish(tmp_path / str(day), seed=day, day=day)[1] for day in (9, 10))
    remote.send(first)
    assert remote.send(later) > 0 and same(remote.find("teacher", FINGERPRINT), later)
    assert remote.send(first) is None and remote.send(later) is None
    assert same(remote.find("teacher", FINGERPRINT), later)
    again = publish(tmp_path / "again", seed=10, day=11)[1]  # a repair to the same bytes is nothing to send
    assert remote.send(again) is None and same(remote.find("teacher", FINGERPRINT), later)
    assert contents(fetched(remote, tmp_path / "three").root) == contents(later.root)


def test_the_manifest_is_that_of_the_files_that_were_sent(remote, tmp_path):  # noqa: F811
    """Another process makes the artifact anew, in place, as soon as the last byte is on its way."""
    _, artifact = publish(tmp_path)
    moments = []

    def replaced(size: int) -> None:
        moments.append(size)  # one for each of these small files, when it is there
        if len(moments) == len(artifact.files):
            assert publish(tmp_path, seed=1)[1].root == artifact.root

    remote.send(artifact, moment=replaced)
    assert moments and Artifact.read(artifact.root).files != artifact.files
    assert same(remote.find("teacher", FINGERPRINT), artifact) and remote.flaws(artifact) == {}


@pytest.fixture
def tomorrow(monkeypatch):
    """Stages write other bytes than before, a day later."""

    def later(created, *words, **facts):
        return provenance(created + timedelta(days=1), *words, **facts)

    provenance = execution.provenance
    monkeypatch.setattr(execution, "provenance", later)
    monkeypatch.setattr(fakes, "write_text", lambda path, text: write_text(path, text + "anew"))


@pytest.mark.parametrize("way", ["a run that could not send", "a run without a remote", "verify --repair"])
def test_what_was_made_anew_is_sent_by_the_next_run(sent, server, finished, flowctl, tiny, tomorrow, monkeypatch, way):  # noqa: F811
    node, store = finished.nodes["teacher"], finished.store
    old = store.find("teacher", node.fingerprint)
    if way == "verify --repair":
        old.path("payload.txt").write_text("x")
        assert "repaired: teacher/tiny-" in flowctl("verify", tiny, "--repair").stdout
    else:
        store.discard(old.root)
        make_all(finished.recipe)
    anew = store.find("teacher", node.fingerprint)
    if way == "a run that could not send":
        with serving(read_only) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            finished.remote = Remote(sent.url)
            remotes.send(finished, anew, replace=True)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        assert "access is refused" in finished.unsent["teacher"]
    assert same(sent.find("teacher", node.fingerprint), old) and anew.files != old.files
    run = flowctl("run", tiny)
    assert run.exit_code == 0 and run.stderr.count(": sent ") == 1 and "teacher: sent " in run.stderr
    assert same(sent.find("teacher", node.fingerprint), anew) and sent.flaws(anew) == {}
    assert "sent" not in flowctl("run", tiny).stderr
