"""The digits' feature space: accurate, repeatable, and a Frechet distance in it orders what the eye would order."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from pipeline.metrics import (
    Moments,
    _classifier,
    build_classifier,
    features,
    frechet_distance,
    split_half,
    train_classifier,
)
from pipeline.metrics._classifier import _halves, _shifted
from storage.errors import InputError


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = torch.tensor(data.images / 8 - 1, dtype=torch.float32)[:, None]
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    return images[train], data.target[train], images[test], data.target[test]


@pytest.fixture(scope="module")
def network(digits):
    return train_classifier(*digits, seed=1)


def test_accuracy(network):
    assert network.accuracy > 0.97


def test_features_are_standardised(network, digits):
    f = features(network, digits[0])
    assert f.shape == (1437, 64) and f.dtype == torch.float32
    torch.testing.assert_close(f.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(f.std(0), torch.ones(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(features(network, digits[0][:7]), f[:7], atol=1e-5, rtol=0)


def test_features_are_without_tf32_and_autocast(network, digits):
    x, seen = digits[0][:8], []
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    plain, before = features(network, x), [setting.fp32_precision for setting in settings]
    hook = network.layers.register_forward_hook(lambda *_: seen.append({each.fp32_precision for each in settings}))
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(features(network, x), plain)
    finally:
        hook.remove()
    assert seen == [{"ieee"}] and [setting.fp32_precision for setting in settings] == before


def test_frechet_distance_orders_corruptions(network, digits):
    x = digits[0]
    real = Moments.of(features(network, x))
    generator = torch.Generator().manual_seed(0)

    def distance(images):
        return frechet_distance(Moments.of(features(network, images)), real)

    noisy = [distance(x + eta * torch.randn(x.shape, generator=generator)) for eta in (0.1, 0.2, 0.4)]
    blurred = distance(F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1))
    shuffled = distance(x.flatten(1)[:, torch.randperm(64, generator=generator)].view_as(x))
    floor = split_half(features(network, x), splits=10)
    assert distance(x) < 1e-6 < noisy[0] < noisy[1] < floor < noisy[2] < blurred
    assert distance(digits[2]) < 2 * floor and shuffled > 20 * floor


def test_same_seed_same_weights_and_no_trace_in_the_global_state(digits, monkeypatch):
    monkeypatch.setattr(_classifier, "_STEPS", 20)
    monkeypatch.setattr(_classifier, "_EPOCHS", 1)
    small = (digits[0][:200], digits[1][:200], digits[2][:50], digits[3][:50])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (train_classifier(*small, seed=2).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_can_be_loaded_again(network, digits):
    again = build_classifier(1, 8, 10)
    again.load_state_dict(network.state_dict())
    assert torch.equal(features(again, digits[2]), features(network, digits[2]))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 11), (3, 32, 32)])
def test_any_size(shape):
    assert features(build_classifier(shape[0], 8, 5), torch.zeros(3, *shape)).shape == (3, 64)


@pytest.mark.parametrize("side", [2, 3, 7, 8])
def test_products_with_matrices_are_the_means_of_four_parts(side):
    x = torch.randn(2, 3, side, side + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = _halves(side, x) @ x @ _halves(side + 1, x).T
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, 2))


def test_shifts_keep_the_image_but_for_its_edges():
    x = torch.arange(36.0).reshape(1, 1, 6, 6).expand(200, 1, 6, 6)
    moved = _shifted(x, torch.Generator().manual_seed(0))
    assert set(moved[:, 0, 2, 2].tolist()) == {7, 8, 9, 13, 14, 15, 19, 20, 21}
    assert moved.min() == 0 and moved.max() == 35


def test_needs_labels_and_size(digits):
    with pytest.raises(InputError, match="got None"):
        train_classifier(digits[0], None, digits[2], None)
    with pytest.raises(InputError, match="got 1"):
        train_classifier(digits[0], digits[1] * 0, digits[2], digits[3])
    with pytest.raises(InputError, match="got 7"):
        build_classifier(1, 7, 10)
