"""The files of a reference: what is damaged is told with what mends it."""

import types

import pytest
import torch

from pipeline.outputs.reference import EXTRACTOR, REAL, load_extractor, load_features
from storage.errors import DamageError


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_reference_is_told_with_its_place(tmp_path, content):
    artifact = types.SimpleNamespace(root=tmp_path, path=tmp_path.joinpath, config={"extractor": "pixels"})
    if content is not None:
        for name in (EXTRACTOR, REAL):
            (tmp_path / name).write_bytes(content)
    for load in (lambda: load_features(artifact, "train"), lambda: load_extractor(artifact, None, torch.device("cpu"))):
        with pytest.raises(DamageError) as raised:
            load()
        assert str(tmp_path) in raised.value.what and "--force reference" in raised.value.remedy
