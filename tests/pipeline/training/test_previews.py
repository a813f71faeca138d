"""Pictures of a training that is resumed: one that a disk has harmed is not published."""

from types import SimpleNamespace

import pytest
from PIL import Image

from pipeline.training import _fit
from tests.reliability import damage


@pytest.mark.parametrize("harm", damage.EVERY)
def test_a_damaged_picture_is_left_out_and_the_others_stay(tmp_path, harm):
    job = SimpleNamespace(out=tmp_path, stage="student")
    (tmp_path / _fit.PREVIEWS).mkdir()
    for images in (100, 200):
        _fit._preview(job, images, Image.linear_gradient("L").rotate(images))
    first, second = sorted((tmp_path / _fit.PREVIEWS).iterdir())
    intact = second.read_bytes()
    harm(first)
    _fit._drop_damaged_previews(job)
    assert not first.exists() and second.read_bytes() == intact
