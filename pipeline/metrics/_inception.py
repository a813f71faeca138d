"""The Inception network as an extractor of features, its weights fetched once or given as a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.inception import FEATURES, SIDE, InceptionV3
from models.precision import ieee
from pipeline.data.fetching import fetch, read_tensors
from pipeline.data.levels import quantise
from storage.atomic import sha256_file
from storage.errors import DataError, InputError

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
PUBLISHED = "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_INCEPTION_BATCH = 64  # images, of which the widest layer holds 5.5 MB each


class Inception(nn.Module):
    """Inception v3 of the Frechet Inception Distance, see `models.inception.InceptionV3`, for images in [-1, 1].

    A distance in its features is the FID only with the published weights. The checksum of the file that the weights
    came from is part of the state, so that a saved extractor still knows.
    """

    accuracy = None  # there are no held-out classes to measure it on

    def __init__(self) -> None:
        super().__init__()
        self.network = InceptionV3()
        self.digest: Tensor
        self.register_buffer("digest", torch.zeros(32, dtype=torch.uint8))  # SHA-256, zeros before weights are loaded
        self.eval().requires_grad_(False)

    @property
    def checksum(self) -> str:
        """Of the file that the weights came from: "sha256:" and 64 digits."""
        return f"sha256:{bytes(self.digest.tolist()).hex()}"

    @property
    def metric(self) -> str:
        """The name of a Frechet distance in these features."""
        return "FID" if self.checksum == PUBLISHED else "FD-inception"

    @property
    def facts(self) -> dict[str, str]:
        """The protocol's fields of the extractor."""
        return {
            "weights": self.checksum,
            "layer": f"pool3, {FEATURES} features",
            "input": "256 levels, rounded half up; grey as three equal channels",
            "resized": f"{SIDE}x{SIDE}, bilinear as in TensorFlow 1 (no half-pixel centres, no smoothing)",
            "precision": "float32 without TF32",
        }

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1], C being 3 or, for grey images, 1, to (B, 2048). Rounds to 256 levels first.

        Raises:
            InputError: another number of channels, or x holds NaN.
        """
        if x.shape[1] not in (1, 3):
            raise InputError("Images for Inception must have 1 or 3 channels", x.shape[1], "Use another extractor.")
        levels = torch.from_numpy(quantise(x.cpu().numpy())).to(x.device).expand(-1, 3, -1, -1)
        # cuDNN's convolutions use TF32 by default.
        with ieee(x.device, "conv"):
            return torch.cat([self.network(part) for part in levels.split(_INCEPTION_BATCH)])

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(n, 2048) features, on any device, to (n, 1008) logits on the CPU, for `Confidence`."""
        return self.network.logits(features.to(self.digest.device)).cpu()


def load_inception(path: Path | None = None, checksum: str | None = None, cache_dir: Path | None = None) -> Inception:
    """The network with its weights, on the CPU, frozen, in evaluation mode.

    Args:
        path: the weights, .safetensors or else .pth, with the names and shapes of the published ones; None fetches
            those, 96 MB.
        checksum: "sha256:" and 64 digits of the file at `path`, if it is another than the published one.
        cache_dir: directory of downloaded files; by default the user's cache.

    Raises:
        DataError: no file or no network; a file of another checksum, format or architecture. Nothing in a .pth is
            executed: it is read as tensors only.
    """
    if path is None:
        path = fetch(URL, PUBLISHED, "reference.weights", cache_dir)
    path = Path(path)
    expected = checksum or PUBLISHED
    if not path.is_file():
        raise DataError("Inception's weights must be a file", str(path), f"Check the path, or download it from {URL}.")
    checksum = f"sha256:{sha256_file(path)}"
    if checksum != expected:
        remedy = f"It is truncated or another file: fetch it again from {URL}, or state its own checksum."
        raise DataError(f"{path} must have the checksum {expected}", checksum, remedy)
    extractor = Inception()
    _load(extractor.network, path)
    extractor.digest.copy_(torch.tensor(list(bytes.fromhex(checksum.removeprefix("sha256:")))))
    return extractor


def _load(network: nn.Module, path: Path) -> None:
    """Set all weights; no name may be missing, none left over."""
    remedy = f"Use the file that {URL} gives."
    tensors = read_tensors(path, remedy)
    # Batch norm's counters are of no use here, and only some versions of torch have saved them.
    own = {name: tuple(value.shape) for name, value in network.state_dict().items() if not _counter(name)}
    given = {name: value for name, value in tensors.items() if not _counter(name)}
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in given.items()}
    if shapes != own:
        name = min((name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name)), key=str)
        rule = f"{path} must have the tensors of the published Inception v3: {name} {own.get(name, 'is none of them')}"
        raise DataError(rule, shapes.get(name, "nothing of this name"), remedy)
    network.load_state_dict(given, strict=False)


def _counter(name: object) -> bool:
    return str(name).endswith("num_batches_tracked")
