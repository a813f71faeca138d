import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.pictures import grid, labelled_rows, png
from storage.errors import InputError


def digits(n=7, levels=17):
    return np.random.default_rng(0).integers(levels, size=(n, 1, 8, 8), dtype=np.uint8)


def test_pixels_of_a_grid():
    u = digits()
    picture = np.asarray(grid(u, columns=3, scale=2, levels=17))
    assert picture.shape == (3 * 18 - 2, 3 * 18 - 2, 3)
    fifth = picture[18:34, 18:34]  # second row, second column
    grey = np.floor(u[4, 0] / 16 * 255 + 0.5).repeat(2, 0).repeat(2, 1)
    assert (fifth == grey[..., None]).all()
    assert (picture[16:18] == 255).all() and (picture[36:, 18:] == 255).all()  # gap, and places left over


def test_floats_colours_and_default_scale():
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    assert grid(x, 2).size == (2 * 64 + 2, 2 * 64 + 2)
    assert grid(digits(), 20).size == (7 * 50 - 2, 48)  # no wider than there are images
    one = np.asarray(grid(torch.tensor([-1.0, 1.0, 0.0]).reshape(1, 3, 1, 1), 1, scale=1))
    assert one.tolist() == [[[0, 255, 128]]]


def test_labelled_rows_keep_the_grids():
    u = digits(25)
    picture = labelled_rows([("data", u), ("NFE 1", u[:5])], levels=17)
    block = np.asarray(grid(u, 20, levels=17))
    pixels = np.asarray(picture)
    right = pixels[8 : 8 + block.shape[0], -8 - block.shape[1] : -8]
    assert (right == block).all()
    assert pixels[:, : pixels.shape[1] - block.shape[1] - 8].min() < 100  # captions


def test_same_bytes():
    first, second = (png(labelled_rows([("a", digits()), ("bb", digits())], levels=17)) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).info == {}


@pytest.mark.parametrize("images", [np.zeros((0, 1, 8, 8)), np.zeros((2, 2, 8, 8)), np.zeros((8, 8))])
def test_bad_images(images):
    with pytest.raises(InputError, match="Pictures"):
        grid(images, 2)


def test_bad_numbers():
    with pytest.raises(InputError, match="at least 1"):
        grid(digits(), 0)
    with pytest.raises(InputError, match="one row"):
        labelled_rows([])
