"""Networks of artifacts: what is damaged is told with what helps."""

import types

import pytest

from models import load
from models.tarflow import Jacobi, Sequential, TarFlowConfig
from models.unet import UNetConfig
from pipeline.outputs import networks
from storage.errors import DamageError


@pytest.mark.parametrize(
    "shape",
    [
        UNetConfig(channels=1, size=8, base=8, multipliers=(1,), attention=(), head_channels=8),
        TarFlowConfig(channels=1, size=4, patch=2, width=8, blocks=2, layers=(1, 2), head_dim=8),
    ],
)
def test_damaged_weights_are_told_with_what_mends_them(tmp_path, monkeypatch, shape):
    networks.save_network(networks.build(shape, 0), tmp_path)
    artifact = types.SimpleNamespace(
        root=tmp_path, path=tmp_path.joinpath, files=[types.SimpleNamespace(path=networks.weights_file(None))]
    )
    assert networks.load_network(artifact).config == shape
    (tmp_path / networks.weights_file(None)).write_bytes((tmp_path / networks.weights_file(None)).read_bytes()[:-4])
    with pytest.raises(DamageError) as raised:
        networks.load_network(artifact)
    assert str(tmp_path) in raised.value.what

    for kind, text in ((MemoryError, ""), (RuntimeError, "can't allocate memory")):  # which is no damage

        def full(path, kind=kind, text=text):
            raise kind(text)

        monkeypatch.setattr(load, "load_file", full)
        with pytest.raises(kind):
            networks.load_network(artifact)


def test_an_average_that_no_schedule_was_calibrated_with_is_decoded_exactly():
    jacobi = Jacobi(max_iterations=2)
    artifact = types.SimpleNamespace(
        metrics={"schedule": [Sequential().to_dict(), jacobi.to_dict()]}, config={"training": {"ema": 100}}
    )
    assert networks.schedules_of(artifact) == [Sequential(), jacobi]
    assert networks.schedules_of(artifact, "half-life-100") == [Sequential(), jacobi]  # the first, by its other name
    assert networks.schedules_of(artifact, "power-0.1") == [Sequential()] * 2
