import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.reporting.pictures import grid, labelled_rows, png
from storage.errors import InputError


def digits(n=7, levels=17):
    return np.random.default_rng(0).integers(levels, size=(n, 1, 8, 8), dtype=np.uint8)


def luminance(grey):
    """Of WCAG 2, for an sRGB grey of 0 to 255."""
    return ((grey / 255 + 0.055) / 1.055) ** 2.4


def test_pixels_of_a_grid():
    u = digits()
    picture = np.asarray(grid(u, columns=3, levels=17))
    assert picture.shape == (3 * 50 - 2, 3 * 50 - 2, 4)
    fifth = picture[50:98, 50:98]  # second row, second column
    grey = np.floor(u[4, 0] / 16 * 255 + 0.5).repeat(6, 0).repeat(6, 1)
    assert (fifth[..., :3] == grey[..., None]).all() and (fifth[..., 3] == 255).all()
    nothing = (255, 255, 255, 0)
    assert (picture[48:50] == nothing).all() and (picture[100:, 50:] == nothing).all()  # gap, and places left over


def test_floats_colours_and_scale():
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    assert grid(x, 2).size == (2 * 64 + 2, 2 * 64 + 2)
    assert grid(digits(), 20).size == (7 * 50 - 2, 48)  # no wider than there are images
    one = np.asarray(grid(torch.tensor([-1.0, 1.0, 0.0]).reshape(1, 3, 1, 1), 1))
    assert one.shape == (48, 48, 4) and (one == [0, 255, 128, 255]).all()


def test_labelled_rows_keep_the_grids():
    u = digits(25, levels=256)
    picture = labelled_rows([("data", u), ("NFE 1", u[:5])])
    block = np.asarray(grid(u, 20))
    pixels = np.asarray(picture)
    right = pixels[8 : 8 + block.shape[0], -8 - block.shape[1] : -8]
    assert (right == block).all()
    captions = pixels[:, : pixels.shape[1] - block.shape[1] - 8]
    ink = captions[captions[..., 3] == 255][:, 0].astype(float)
    for page in (253, 22):  # of the report, light and dark: WCAG's contrast of large text
        light, dark = sorted((luminance(ink.mean()), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3


def test_same_bytes():
    first, second = (png(labelled_rows([("a", digits()), ("bb", digits())])) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).info == {}


@pytest.mark.parametrize("images", [np.zeros((0, 1, 8, 8)), np.zeros((2, 2, 8, 8)), np.zeros((8, 8))])
def test_bad_images(images):
    with pytest.raises(InputError, match="Pictures"):
        grid(images, 2)


def test_bad_numbers():
    with pytest.raises(InputError, match="one column"):
        grid(digits(), 0)
    with pytest.raises(InputError, match="one row"):
        labelled_rows([])
