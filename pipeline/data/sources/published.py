"""The published data sets: addresses, checksums and classes. Light: planning imports it."""

from __future__ import annotations

from typing import NamedTuple

from storage.checksummed_json import json_digest

_FASHION = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"


class IdxSet(NamedTuple):
    """Four files of the IDX format, gzipped; `checksums` are SHA-256 of these files, in the order of `IDX_FILES`."""

    url: str
    checksums: tuple[str, str, str, str]
    classes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of the four checksums."""
        return f"sha256:{json_digest(self.checksums)}"


class CifarSet(NamedTuple):
    """An archive of Python pickles: members of both splits, of the class names, and the keys in them."""

    url: str
    checksum: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names: bytes
    labels: bytes


IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

IDX = {
    "mnist": IdxSet(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        (
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        tuple("0123456789"),
    ),
    "fashion-mnist": IdxSet(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        (
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        tuple(_FASHION.split(", ")),
    ),
}

CIFAR = {
    "cifar10": CifarSet(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        b"label_names",
        b"labels",
    ),
    "cifar100": CifarSet(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ("train",),
        ("test",),
        "meta",
        b"fine_label_names",
        b"fine_labels",
    ),
}
