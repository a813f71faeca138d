"""CIFAR's archives: read as published, from a file or a server; refused when they are anything else."""

from __future__ import annotations

import hashlib
import os
import pickle
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from pipeline.data.sources import load
from pipeline.data.sources.published import CIFAR
from pipeline.data.sources.unpickle import unpickle
from storage.errors import DataError, DownloadError, RecipeError
from tests.pipeline.data.sources.formats import (
    CIFAR10_CLASSES,
    cifar10_pixels,
    data_config,
    make_cifar10_archive,
    make_tar,
    python2_pickle,
)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    return data_config("cifar10", path=path, checksum=make_cifar10_archive(path, 12))


def changed(tmp_path, changes):
    path = tmp_path / "changed.tar.gz"
    return data_config("cifar10", path=path, checksum=make_cifar10_archive(path, 12, changes))


def test_images_labels_and_classes(archive, tmp_path):
    data = load(archive, tmp_path)
    assert (data.name, data.levels, data.classes) == ("cifar10", 256, CIFAR10_CLASSES)
    assert data.train.images.shape == (60, 3, 32, 32) and data.test.images.shape == (12, 3, 32, 32)
    pixels, labels = cifar10_pixels(2, 12)
    assert data.train.labels[24:36].tolist() == labels and data.train.labels.dtype == np.int64
    red, green, blue = pixels[5].reshape(3, 32, 32)  # three planes, each row by row: the format's own description
    np.testing.assert_array_equal(data.train.images[29], np.stack([red, green, blue]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cifar-10-python.tar.gz"]  # nothing was unpacked


def test_limit(archive, tmp_path):
    archive.limit = 20
    data = load(archive, tmp_path)
    assert data.train.labels.tolist() == list(range(10)) * 2 and len(data.test.images) == 12


def test_checksum_is_verified_before_anything_is_read(archive, tmp_path):
    wrong = data_config("cifar10", path=archive.path)
    with pytest.raises(DataError) as error:
        load(wrong, tmp_path)
    assert error.value.value == archive.checksum
    archive.path.write_bytes(archive.path.read_bytes()[:-1])
    with pytest.raises(DataError) as error:
        load(archive, tmp_path)
    assert error.value.value == "sha256:" + hashlib.sha256(archive.path.read_bytes()).hexdigest()
    archive.path.unlink()
    with pytest.raises(DataError) as error:
        load(archive, tmp_path)
    assert error.value.value == str(archive.path)


class Evil:
    """Its pickle makes a folder when it is loaded by Python's own unpickler."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    evil = Evil(tmp_path / "was here")
    for content in (evil, {b"data": [evil]}):
        config = changed(tmp_path, {"data_batch_3": pickle.dumps(content, protocol)})
        with pytest.raises(DataError) as error:
            load(config, tmp_path)
        assert error.value.value == "posix.mkdir"
    assert not (tmp_path / "was here").exists()
    pickle.loads(pickle.dumps(evil, protocol))
    assert (tmp_path / "was here").exists()  # the attack is a real one


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (b"cos\nsystem\n(U\x02lstR.", "os.system"),
        (b"cposix\nsystem\n(U\x02lstR.", "posix.system"),
        (b"c__builtin__\neval\n(U\x011tR.", "__builtin__.eval"),
        (b"cnumpy\nload\n(U\x01xtR.", "numpy.load"),
        (b"cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
    ],
)
def test_only_arrays_may_be_built(call, named):
    with pytest.raises(DataError) as error:
        unpickle(b"\x80\x02" + call, "batch")
    assert error.value.value == named


@pytest.mark.parametrize("protocol", range(5))
def test_honest_pickles_of_python_3_are_read(protocol):
    value = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2], b"name": "x"}
    read = unpickle(pickle.dumps(value, protocol), "batch")
    np.testing.assert_array_equal(read[b"data"], value[b"data"])
    assert read[b"labels"] == [1, 2]


def test_python_2_text_is_bytes():
    value = {b"a": [1, -5, None, True], b"b": (b"x" * 300, b""), b"c": np.arange(8, dtype=np.uint8).reshape(2, 4)}
    read = unpickle(python2_pickle(value), "batch")
    np.testing.assert_array_equal(read.pop(b"c"), value.pop(b"c"))
    assert read == value


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"test_batch": None}, "no test_batch"),
        ({"batches.meta": None}, "no batches.meta"),
        ({"data_batch_2": b""}, "data_batch_2"),
        ({"data_batch_2": b"\x80\x02}(U\x04dat"}, "data_batch_2"),
        ({"data_batch_2": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xU\x03hex\x86R."}, "hex"),
        ({"data_batch_2": python2_pickle([1])}, "list"),
        ({"data_batch_2": python2_pickle({b"labels": [1]})}, "data: NoneType"),
        ({"data_batch_2": python2_pickle({b"data": PIXELS, b"labels": b"12"})}, "labels: bytes"),
        ({"data_batch_2": python2_pickle({b"data": PIXELS, b"labels": [1]})}, "1 labels"),
        ({"data_batch_2": python2_pickle({b"data": PIXELS, b"labels": [1, 10]})}, "10"),
        ({"data_batch_2": python2_pickle({b"data": PIXELS, b"labels": [1, b"x"]})}, "b'x'"),
        ({"data_batch_2": python2_pickle({b"data": PIXELS[:, :9], b"labels": [1, 1]})}, "uint8 (2, 9)"),
    ],
)
def test_an_archive_of_another_content_is_refused(tmp_path, changes, value):
    with pytest.raises(DataError) as error:
        load(changed(tmp_path, changes), tmp_path)
    assert value in str(error.value.value)


def test_a_damaged_archive_with_its_own_checksum_is_refused(archive, tmp_path):
    whole = archive.path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:5000] + bytes(100) + whole[5100:], b"", b"no archive at all"):
        archive.path.write_bytes(data)
        archive.checksum = "sha256:" + hashlib.sha256(data).hexdigest()
        with pytest.raises(DataError):
            load(archive, tmp_path)


def test_size_shrinks_by_area(archive, tmp_path):
    whole = load(archive, tmp_path).train.images.astype(int)
    archive.size = 16
    blocks = whole.reshape(60, 3, 16, 2, 16, 2).sum((3, 5))
    np.testing.assert_array_equal(load(archive, tmp_path).train.images, (blocks + 2) // 4)  # mean of 4, halves up
    archive.size = 33
    with pytest.raises(RecipeError) as error:
        load(archive, tmp_path)
    assert error.value.value == 33


def test_cifar100_has_fine_labels(tmp_path):
    rng, path = np.random.RandomState(0), tmp_path / "cifar-100-python.tar.gz"
    members = {"meta": {b"fine_label_names": [b"class %d" % i for i in range(100)], b"coarse_label_names": [b"x"]}}
    for name, count in (("train", 200), ("test", 100)):
        pixels = rng.randint(0, 256, (count, 3072)).astype(np.uint8)
        labels = [(7 * i) % 100 for i in range(count)]
        members[name] = {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [0] * count}
    files = {f"cifar-100-python/{name}": python2_pickle(value) for name, value in members.items()}
    data = load(data_config("cifar100", path=path, checksum=make_tar(path, files)), tmp_path)
    assert (data.name, len(data.classes), data.classes[42]) == ("cifar100", 100, "class 42")
    assert data.train.labels.tolist() == members["train"][b"fine_labels"]
    np.testing.assert_array_equal(data.test.images.reshape(100, 3072), members["test"][b"data"])


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of the folder served/, counting requests, in the place of the official one."""
    (tmp_path / "served").mkdir()
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "served"))
    Thread(target=httpd.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{httpd.server_port}/cifar-10-python.tar.gz"
    monkeypatch.setitem(CIFAR, "cifar10", CIFAR["cifar10"]._replace(url=url))
    monkeypatch.setattr("pipeline.data.fetching.RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "*")
    yield requests
    httpd.shutdown()
    httpd.server_close()


def test_download_once(server, tmp_path):
    checksum = make_cifar10_archive(tmp_path / "served/cifar-10-python.tar.gz", 12)
    config = data_config("cifar10", checksum=checksum)
    assert len(load(config, tmp_path / "cache").train.images) == 60
    assert len(load(config, tmp_path / "cache").train.images) == 60
    assert len(server) == 1
    cached = tmp_path / "cache/cifar-10-python.tar.gz"
    cached.write_bytes(cached.read_bytes()[:100])  # damaged since: fetched again
    assert len(load(config, tmp_path / "cache").train.images) == 60
    assert len(server) == 2


def test_download_of_something_else_or_nothing(server, tmp_path):
    with pytest.raises(DownloadError):
        load(data_config("cifar10"), tmp_path / "cache")
    make_tar(tmp_path / "served/cifar-10-python.tar.gz", {"x": b"another file"})
    with pytest.raises(DownloadError):
        load(data_config("cifar10"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
