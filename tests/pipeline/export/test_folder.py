"""The folder of an export: replaced whole, or left as it was."""

import os

import pytest

from models.load import SAMPLER, WEIGHTS
from pipeline.export._folder import published
from storage.errors import UsageError


@pytest.mark.parametrize("step", range(2))
def test_an_interrupted_replacement_leaves_the_earlier_export(tmp_path, monkeypatch, step):
    out, calls, rename = tmp_path / "out", iter(range(9)), os.rename
    out.mkdir()
    for name in (SAMPLER, WEIGHTS):
        (out / name).touch()
    earlier = paths(tmp_path)

    def interrupted(source, target):
        if next(calls) == step:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), published(out, True) as folder:
        (folder / "new").touch()
        patch.setattr(os, "rename", interrupted)
    assert paths(tmp_path) == earlier
    with published(out, True) as folder:
        (folder / "new").touch()
    assert paths(tmp_path) == ["out", "out/new"]


@pytest.mark.parametrize("force", [False, True])
def test_what_comes_to_be_there_meanwhile_stays(tmp_path, force):
    """Samples and an ONNX network take minutes."""
    out = tmp_path / "out"
    with pytest.raises(UsageError), published(out, force) as folder:
        (folder / "new").touch()
        out.mkdir()
        (out / "thesis.tex").touch()
    assert paths(tmp_path) == ["out", "out/thesis.tex"]


def paths(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
