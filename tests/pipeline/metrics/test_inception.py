"""The Inception extractor: weights read from a file or fetched, verified; images in [-1, 1] taken as 8 bits."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.data.fetching import read_tensors
from pipeline.data.levels import to_unit
from pipeline.metrics import Confidence, Inception, features, load_inception
from pipeline.metrics import _inception as module
from storage.errors import DownloadError, InputError
from tests.models.inception_weights import random_weights


@pytest.fixture(scope="module")
def weights():
    return random_weights()


@pytest.fixture(scope="module")
def published(weights, tmp_path_factory):
    """A file like the published one: as torch saved it in 2018, without the counters of batch norm."""
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def flat(weights):
    """Tensors of the same names and shapes, each of one number: a file of them is small."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in weights.items()}


@pytest.fixture(scope="module")
def light(flat, published, tmp_path_factory):
    """A file like the published one, of such tensors."""
    path = tmp_path_factory.mktemp("light") / published.name
    torch.save(flat, path, _use_new_zipfile_serialization=False)
    assert path.stat().st_size < 2**20
    return path


@pytest.fixture(scope="module")
def extractor(published):
    return load_inception(published, checksum(published))


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def grey_levels(count=2, channels=3, side=16):
    return np.random.default_rng(0).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def test_the_pinned_checksum_is_the_one_in_the_file_name():
    name = module.URL.rsplit("/", 1)[1]
    assert module.PUBLISHED.startswith("sha256:" + name.removesuffix(".pth").rsplit("-", 1)[1])
    assert len(bytes.fromhex(module.PUBLISHED.removeprefix("sha256:"))) == 32


def test_all_tensors_arrive(extractor, weights):
    state = extractor.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert not extractor.training and not any(p.requires_grad for p in extractor.parameters())


def test_other_formats_of_the_same_tensors(weights, extractor, tmp_path):
    images = torch.from_numpy(to_unit(grey_levels(1)))
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
        for name in weights
        if name.endswith("running_mean")
    }
    torch.save(weights | counters, tmp_path / "new.pth")
    save_file(weights, tmp_path / "new.safetensors")
    for name in ("new.pth", "new.safetensors"):
        other = load_inception(tmp_path / name, checksum(tmp_path / name))
        assert torch.equal(other.features(images), extractor.features(images))
        assert other.checksum != extractor.checksum


def test_features_see_exactly_the_stored_grey_levels(extractor):
    levels = grey_levels()
    found = features(extractor, torch.from_numpy(to_unit(levels)))
    assert found.shape == (2, 2048) and found.dtype == torch.float32
    assert torch.equal(found, extractor.network(torch.from_numpy(levels)))
    coarse = levels // 16  # images of 16 levels stretch over 0..255
    found = extractor.features(torch.from_numpy(to_unit(coarse, levels=16)))
    assert torch.equal(found, extractor.network(torch.from_numpy(coarse * 17)))


def test_grey_images_are_three_equal_channels(extractor):
    grey = torch.from_numpy(to_unit(grey_levels(channels=1)))
    assert torch.equal(extractor.features(grey), extractor.features(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(InputError, match="got 4"):
        extractor.features(torch.zeros(1, 4, 8, 8))
    with pytest.raises(InputError, match="NaN"):
        extractor.features(torch.full((1, 3, 8, 8), torch.nan))


def test_many_images_are_taken_in_parts(extractor, monkeypatch):
    monkeypatch.setattr(module, "_INCEPTION_BATCH", 2)
    images = torch.from_numpy(to_unit(grey_levels(3)))
    torch.testing.assert_close(extractor.features(images)[2], extractor.features(images[2:])[0], rtol=1e-4, atol=1e-4)


def test_autocast_around_it_changes_nothing(extractor):
    images = torch.from_numpy(to_unit(grey_levels(1)))
    plain = extractor.features(images)
    before = torch.backends.cudnn.conv.fp32_precision
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor.features(images), plain)
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_logits_lead_to_a_score(extractor):
    f = extractor.features(torch.from_numpy(to_unit(grey_levels(3))))
    logits = extractor.logits(f)
    assert logits.shape == (3, 1008)
    assert torch.equal(logits, f @ extractor.network.fc.weight.T)
    assert 1 <= Confidence(3, splits=1).update(torch.arange(3), logits).score().value <= 3


def test_only_the_published_weights_give_the_fid(extractor, published, monkeypatch):
    assert extractor.metric == "FD-inception" and extractor.facts["weights"] == checksum(published)
    monkeypatch.setattr(module, "PUBLISHED", checksum(published))
    assert load_inception(published).metric == "FID"
    saved = Inception()
    assert saved.metric == "FD-inception"
    saved.load_state_dict(extractor.state_dict())
    assert saved.metric == "FID" and saved.checksum == extractor.checksum


# --- what is refused


def test_another_file_must_state_its_checksum(published):
    with pytest.raises(InputError, match=r"checksum sha256:6726825d.*its own checksum"):
        load_inception(published)
    with pytest.raises(InputError, match="checksum sha256:0000"):
        load_inception(published, "sha256:" + "0" * 64)
    with pytest.raises(InputError, match="must be a file"):
        load_inception(published.parent)
    with pytest.raises(InputError, match="must be a file"):
        load_inception(published.with_name("nothing.pth"))


class Evil:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pth_is_not_run(tmp_path):
    evil = Evil(tmp_path / "was here")
    torch.save({"fc.bias": evil}, tmp_path / "new.pth")
    torch.save({"fc.bias": evil}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(evil))
    for name in ("new", "old", "bare"):
        path = tmp_path / f"{name}.pth"
        with pytest.raises(InputError, match="tensors and nothing else"):
            load_inception(path, checksum(path))
    assert not (tmp_path / "was here").exists()
    torch.load(tmp_path / "new.pth", weights_only=False)
    assert (tmp_path / "was here").exists()  # the attack is a real one


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_that_are_no_weights(light, tmp_path, name):
    path = tmp_path / name
    whole = light.read_bytes()
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    cuts = [whole[: len(whole) * part // 40] for part in range(1, 40)]
    for content in (b"", b"no weights at all", *cuts, (tmp_path / "empty.zip").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="tensors and nothing else"):
            read_tensors(path, "Fetch it again.")
    with pytest.raises(InputError, match="tensors and nothing else"):
        load_inception(path, checksum(path))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"fc.bias": None}, r"fc\.bias \(1008,\).*nothing of this name"),
        ({"AuxLogits.fc.bias": torch.zeros(3)}, r"AuxLogits\.fc\.bias is none of them.*\(3,\)"),
        ({"fc.weight": torch.zeros(1000, 2048)}, r"fc\.weight \(1008, 2048\).*\(1000, 2048\)"),
        ({"fc.bias": "text"}, r"fc\.bias \(1008,\)"),
        ({7: torch.zeros(2)}, r"7 is none of them"),
    ],
)
def test_other_architectures(flat, tmp_path, changes, rule):
    path = tmp_path / "other.pth"
    torch.save({name: value for name, value in (flat | changes).items() if value is not None}, path)
    with pytest.raises(InputError, match=rule):
        load_inception(path, checksum(path))


def test_a_tensor_alone_is_no_network(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(InputError, match="tensors by name"):
        load_inception(tmp_path / "tensor.pth", checksum(tmp_path / "tensor.pth"))


# --- fetching


@pytest.fixture
def server(light, monkeypatch):
    """A web server of the file, counting requests, in the place of the real one."""
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=light.parent))
    Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{httpd.server_port}/{light.name}")
    monkeypatch.setattr("pipeline.data.fetching.RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "*")
    yield requests
    httpd.shutdown()
    httpd.server_close()


def test_fetched_once_and_verified(server, light, tmp_path, monkeypatch):
    with pytest.raises(DownloadError):
        load_inception(cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(module, "PUBLISHED", checksum(light))
    assert [load_inception(cache_dir=tmp_path).metric for _ in range(2)] == ["FID", "FID"]
    assert len(server) == 2


def test_nothing_to_fetch(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "URL", module.URL.replace("6726825d", "elsewhere"))
    with pytest.raises(DownloadError):
        load_inception(cache_dir=tmp_path)
