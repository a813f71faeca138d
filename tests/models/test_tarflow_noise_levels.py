"""One flow of the images at every noise level: its blocks are given the level, and a level is no other row's."""

from dataclasses import replace

import pytest
import torch

from models.tarflow import GaussSeidelJacobi, Sequential, decode
from tests.models.test_tarflow import LABELS, SMALL, images, jacobian, random_flow

LEVELLED = replace(SMALL, noise_std=0.2)
ETA = torch.tensor([0.05, 0.2, 0.2, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_each_row_has_its_own_level_and_the_configs_where_none_is_passed(labels):
    flow, x = random_flow(LEVELLED), images()
    z, logdet = flow(x, labels, ETA)
    for row, eta in enumerate(ETA):
        alone, alone_logdet = flow(x[row : row + 1], None if labels is None else labels[row : row + 1], eta[None])
        torch.testing.assert_close(z[row : row + 1], alone)
        torch.testing.assert_close(logdet[row : row + 1], alone_logdet)
    ours, _ = flow(x, labels)
    off = (z - ours).flatten(1).abs().amax(1)
    assert off[1:3].max() < 1e-12 and off[[0, 3]].min() > 0.01
    assert torch.equal(flow.encode(x, labels), flow.eval()(x, labels)[0])


def test_its_log_determinant_is_that_of_the_jacobian():
    config = replace(LEVELLED, channels=1, size=4, blocks=3, classes=0)
    flow, x = random_flow(config, std=0.15), images(config, batch=1)
    _, expected = torch.linalg.slogdet(jacobian(flow, x))
    assert flow(x)[1].item() == pytest.approx(expected.item(), abs=1e-8)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("schedule", [Sequential(), GaussSeidelJacobi(segments=4, tolerance=0)], ids=str)
def test_decoding_inverts_encoding_at_the_level_of_the_config(classes, schedule):
    config = replace(LEVELLED, classes=classes)
    flow, x, labels = random_flow(config), images(config), LABELS if classes else None
    assert (decode(flow, flow.encode(x, labels), labels, schedule) - x).abs().max() < 1e-10


def test_levels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one noise level"):
        random_flow()(images(), None, ETA)
    for level in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="noise_std must be"):
            replace(SMALL, noise_std=level)
