"""The bytes of the library, without its copies in memory."""

import functools
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save

from pipeline.outputs.tensorfile import TYPES, write_tensors

CHILD = """
import sys, torch
from pathlib import Path
from pipeline.outputs.tensorfile import write_tensors

tensors = {str(number): torch.full((2**20, 4), float(number)) for number in range(16)}  # 256 MB

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

before = peak()
write_tensors(Path(sys.argv[1]), tensors)
print(peak() - before)
"""


def every_type():
    generator = torch.Generator().manual_seed(0)
    return {f"{name}.{i}": (8 * torch.rand(3, i, 5, generator=generator)).to(name) for name in TYPES for i in (2, 0)}


@pytest.mark.parametrize(
    "tensors",
    [
        every_type(),
        {'é "quoted"': torch.tensor(3.5), "b": torch.arange(7)},
        {"channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "t": torch.randn(3, 4).T},
        {"a parameter": torch.nn.Parameter(torch.randn(3))},
        {},
    ],
)
def test_the_file_is_that_of_the_library(tmp_path, tensors):
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_tensors(tmp_path / "a", tensors)
    assert (tmp_path / "a").read_bytes() == save(plain)
    write_tensors(tmp_path / "b", tensors, {"sha256": "0" * 64})
    assert (tmp_path / "b").read_bytes() == save(plain, {"sha256": "0" * 64})
    read = load_file(tmp_path / "b")
    assert read.keys() == plain.keys() and all(torch.equal(read[name], plain[name]) for name in plain)


def test_it_is_readable_to_whom_new_files_are(tmp_path):
    write_tensors(tmp_path / "a", {"a": torch.zeros(3)})
    (tmp_path / "b").touch()
    assert os.stat(tmp_path / "a").st_mode == os.stat(tmp_path / "b").st_mode
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_tensors_are_not_copied_into_memory(tmp_path):
    child = subprocess.run([sys.executable, "-c", CHILD, tmp_path / "a"], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 2**26  # a quarter of the tensors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    full = functools.partial(open, "/dev/full", "wb")
    monkeypatch.setattr("pipeline.outputs.tensorfile.open", lambda *_: full(), raising=False)
    with pytest.raises(OSError) as raised:
        write_tensors(tmp_path / "a", {"a": torch.zeros(2**16)})
    assert raised.value.errno == 28 and not os.listdir(tmp_path)
