import math

import numpy as np
import pytest
import torch

from pipeline.metrics import Confidence
from storage.errors import InputError


def inception_score(logits, splits=10, seed=0):
    """(value, std) as the paper defines the score, from all logits (n, classes) at once."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(logits)))
    scores = []
    for part in logits.double().log_softmax(dim=1)[order].tensor_split(splits):
        p = part.exp()
        scores.append((torch.special.xlogy(p, p) - torch.special.xlogy(p, p.mean(0))).sum(1).mean().exp().item())
    return float(np.mean(scores)), float(np.std(scores))


def measured(logits, splits=10, seed=0):
    return Confidence(len(logits), splits, seed).update(torch.arange(len(logits)), logits).score()


def sure(classes):
    """Logits of a classifier that is sure of these classes, of 10."""
    return torch.nn.functional.one_hot(torch.as_tensor(classes), 10) * 1e4


def test_sure_of_all_classes_alike_is_their_number():
    for splits in (1, 10):
        score = measured(sure(np.arange(4000) % 10), splits)
        assert score.value == pytest.approx(10, rel=0.02 if splits > 1 else 1e-12)
    assert measured(sure(np.arange(4000) % 10), 1).std == 0


def test_all_alike_or_unsure_is_one():
    assert measured(sure([3] * 50)).value == 1
    assert measured(torch.zeros(50, 10)).value == pytest.approx(1)


def test_by_hand():
    # p = (.8, .2) and (.4, .6), mean (.6, .4).
    p = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64)
    first = 0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4)
    second = 0.4 * math.log(0.4 / 0.6) + 0.6 * math.log(0.6 / 0.4)
    assert measured(p.log() + 5, splits=1).value == pytest.approx(math.exp((first + second) / 2), rel=1e-12)


def test_splits_against_a_loop():
    logits = torch.randn(103, 10, generator=torch.Generator().manual_seed(0)) * 3
    order = np.random.default_rng(4).permutation(103)
    scores = []
    for rows in np.array_split(order, 5):
        p = logits[rows].double().softmax(1).numpy()
        scores.append(
            math.exp(np.mean([sum(q * math.log(q / m) for q, m in zip(row, p.mean(0), strict=True)) for row in p]))
        )
    found = measured(logits, splits=5, seed=4)
    assert (found.value, found.std) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9)
    assert found.std > 0 and found.splits == 5


@pytest.mark.parametrize("classes", [np.repeat(np.arange(10), 100), np.tile(np.arange(10), 100)])
def test_order_of_the_images_does_not_matter(classes):
    # Dealt as they come or round the splits, one of these would leave each split with a single class: a score of 1.
    assert measured(sure(classes)).value > 9


# -- in one pass -------------------------------------------------------------------------------------------------


def some_logits(n=103, classes=7):
    return 3 * torch.randn(n, classes, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 13, 103])
def test_in_one_pass_it_is_the_score_of_all(batch):
    logits = some_logits()
    rows = torch.randperm(len(logits), generator=torch.Generator().manual_seed(1))
    running = Confidence(len(logits), splits=10, seed=5)
    for part in rows.split(batch):
        running.update(part, logits[part])
    value, std = inception_score(logits, splits=10, seed=5)
    assert running.score().value == pytest.approx(value, rel=1e-12)
    assert running.score().std == pytest.approx(std, rel=1e-9)


def test_ranks_add_up():
    logits, (value, _) = some_logits(), inception_score(some_logits(), splits=5)
    parts = [
        Confidence(len(logits), splits=5).update(rows, logits[rows])
        for rows in (torch.arange(0, 103, 2), torch.arange(1, 103, 2))
    ]
    assert Confidence(len(logits), splits=5).merge(parts[1]).merge(parts[0]).score().value == pytest.approx(value)


def test_missing_images_are_noticed():
    logits = some_logits()
    with pytest.raises(InputError, match="got 50"):
        Confidence(103).update(torch.arange(50), logits[:50]).score()
    with pytest.raises(InputError, match="finite"):
        Confidence(103).update(torch.arange(1), torch.full((1, 7), torch.nan))
    for splits in (0, 4):
        with pytest.raises(InputError, match=rf"got \(3, {splits}\)"):
            Confidence(3, splits=splits)
