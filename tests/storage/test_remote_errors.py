"""What a remote that cannot be used says: one line, with the rule or the cause, and the remedy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storage.errors import InputError, UsageError
from storage.inspection import inspect_artifact
from storage.remote import Remote, RemoteError, _address, default_remote
from tests.storage.test_remote import FINGERPRINT, publish, same

Answer = tuple[int, bytes]
MISSING = 404, b"<Error><Code>NoSuchKey</Code></Error>"
NOTHING = 200, b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'


def error(status: int, code: str) -> Answer:
    return status, f"<Error><Code>{code}</Code><Message>words</Message></Error>".encode()


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, bytes], Answer]) -> Iterator[str]:
    """A server whose every answer is that of `answer`; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            status, body = answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def read_only(handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
    """An empty bucket that may only be read."""
    if handler.command != "GET":
        return error(403, "AccessDenied")
    return NOTHING if "list-type" in handler.path else MISSING


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    """Little patience, as many attempts."""
    monkeypatch.setattr(_address, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(_address, "LONGEST_WAIT", 0.02)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "s3:/bucket",
        "gs://bucket",
        "s3://",
        "s3://key:secret@bucket/x",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/./x",
        "s3://bucket/x?y=z",
        "s3://bucket/x#y",
        "file:///etc",
        "s3://bucket/%2e%2e",
        "s3://bucket/x\n",
    ],
)
def test_a_url_is_that_of_a_bucket_or_a_place_in_one(url, keys):
    with pytest.raises(InputError, match="A remote must be s3://bucket or s3://bucket/prefix"):
        Remote(url)


@pytest.mark.parametrize(
    "endpoint", ["notaurl", "ftp://host", "http://", "https://h:port", "http://[::1", "http://a b"]
)
def test_a_server_that_is_no_url_is_named_and_not_the_remote(keys, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError) as raised:
        Remote("s3://bucket")
    assert raised.value.rule.startswith("AWS_ENDPOINT_URL") and raised.value.value == endpoint


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/a/b c/", "s3://my.bucket-1/a/b c"),
    ],
)
def test_a_slash_at_the_end_makes_no_difference(url, plain, keys):
    assert Remote(url).url == plain


def test_the_environment_names_a_remote_and_an_option_another(keys, monkeypatch):
    assert default_remote() is None
    monkeypatch.setenv("FLOWCTL_REMOTE", "s3://bucket")
    assert default_remote().url == "s3://bucket" and default_remote("s3://other").url == "s3://other"
    monkeypatch.setenv("FLOWCTL_REMOTE", "")
    assert default_remote() is None


def test_without_the_extra_the_remedy_is_its_installation(keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(InputError, match=r"obstore must be installed.*pip install -e '\.\[s3\]'"):
        Remote("s3://bucket")


ANSWERS = {
    "no bucket": (error(404, "NoSuchBucket"), r"there is no such bucket\. Create it, or correct the URL"),
    "refused": (error(403, "AccessDenied"), r"access is refused \(403, AccessDenied\)\. Check AWS_ACCESS_KEY_ID"),
    "wrong key": (error(403, "SignatureDoesNotMatch"), r"access is refused \(403, SignatureDoesNotMatch\)\. Check"),
    "unknown": (error(401, "Unauthorized"), r"access is refused \(401, Unauthorized\)"),
    "busy": (error(503, "SlowDown"), r"the server answers 503, SlowDown to each of 7 attempts\. Try again later"),
    "broken": (error(500, "InternalError"), r"the server answers 500, InternalError to each of 7 attempts"),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("call", ["find", "keys", "send", "flaws"])
def test_what_the_server_refuses_is_said_in_one_line(quick, monkeypatch, tmp_path, kind, call):
    answer, words = ANSWERS[kind]
    _, artifact = publish(tmp_path)
    with serving(lambda handler, body: answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        remote = Remote("s3://bucket/place")
        calls = {
            "find": lambda: remote.find("teacher", FINGERPRINT),
            "keys": remote.keys,
            "send": lambda: remote.send(artifact),
            "flaws": lambda: remote.flaws(artifact),
        }
        with pytest.raises(RemoteError, match=rf"s3://bucket/place: {words}") as raised:
            calls[call]()
    assert "\n" not in str(raised.value) and "Debug" not in str(raised.value)


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [("http://127.0.0.1:1", r"connection refused"), ("http://no-such-host.invalid", r"unknown host")],
)
def test_a_network_that_is_down_is_tried_again_and_then_said(quick, monkeypatch, endpoint, why):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(
        RemoteError,
        match=rf"no answer in 7 attempts \({why}\)\. Check the network and AWS_ENDPOINT_UR"
        r"L, or unset FLOWCTL_REMOTE to work without it",
    ):
        Remote("s3://bucket").find("teacher", FINGERPRINT)


def test_without_keys_it_says_which_to_set(quick, monkeypatch):
    """The last place where keys are looked for is the metadata service of a cloud's machine: here, there is none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(RemoteError, match=r"no keys were found\. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Remote("s3://bucket").find("teacher", FINGERPRINT)


@pytest.mark.parametrize("failures", [1, 5])
def test_what_fails_for_a_moment_is_tried_again(quick, monkeypatch, failures):
    asked = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        asked.append(handler.path)
        return error(503, "SlowDown") if len(asked) <= failures else MISSING

    with serving(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert Remote("s3://bucket").find("teacher", FINGERPRINT) is None
    assert len(asked) == failures + 1


def test_a_part_travels_with_its_checksum(quick, monkeypatch, tmp_path):
    """So that the server refuses what was torn on its way."""
    sent = {}

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
        if handler.command == "PUT":
            sent[handler.path] = handler.headers["x-amz-checksum-sha256"]
            return 200, b""
        return read_only(handler, body)

    _, artifact = publish(tmp_path)
    with serving(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        Remote("s3://bucket").send(artifact)
    paths = list(sent)
    assert len(paths) == len(artifact.files) + 1 and paths[-1].endswith(f"{FINGERPRINT}/artifact.json")
    assert all(len(value) == 44 for value in sent.values())


def test_an_upload_that_is_refused_can_be_made_later(quick, server, bucket, monkeypatch, tmp_path):
    _, artifact = publish(tmp_path)
    with serving(read_only) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(RemoteError, match=r"access is refused \(403, AccessDenied\)"):
            Remote(bucket).send(artifact)
    assert not inspect_artifact(artifact.root).flaws
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    remote = Remote(bucket)
    assert remote.send(artifact) > 0 and same(remote.find("teacher", FINGERPRINT), artifact)
