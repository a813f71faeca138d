"""Networks of artifacts: what is damaged is told with what helps."""

import types

import pytest

from models.tarflow import TarFlowConfig
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
def test_damaged_weights_are_told_with_what_mends_them(tmp_path, shape):
    networks.save_network(networks.build(shape, 0), tmp_path)
    artifact = types.SimpleNamespace(
        root=tmp_path, path=tmp_path.joinpath, files=[types.SimpleNamespace(path=networks.WEIGHTS)]
    )
    assert networks.load_network(artifact).config == shape
    (tmp_path / networks.WEIGHTS).write_bytes((tmp_path / networks.WEIGHTS).read_bytes()[:-4])
    with pytest.raises(DamageError, match="its network cannot be read"):
        networks.load_network(artifact)
