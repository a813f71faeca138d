"""The folder of an export: replaced whole, or left as it was."""

import os

import pytest

from pipeline.export._folder import published


@pytest.mark.parametrize("step", range(2))
def test_an_interrupted_replacement_leaves_the_earlier_export(tmp_path, monkeypatch, step):
    out, calls, rename = tmp_path / "out", iter(range(9)), os.rename
    out.mkdir()
    (out / "earlier").touch()

    def interrupted(source, target):
        if next(calls) == step:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), published(out) as folder:
        (folder / "new").touch()
        patch.setattr(os, "rename", interrupted)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/earlier"]
    with published(out) as folder:
        (folder / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/new"]
