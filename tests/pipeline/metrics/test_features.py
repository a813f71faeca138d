import numpy as np
import pytest
import torch

from pipeline.metrics import Features
from storage.errors import InputError


def numbered(n):
    """Rows that say which they are."""
    return torch.arange(n, dtype=torch.float32)[:, None].expand(n, 3).contiguous()


def test_all_rows_in_order_where_they_fit():
    sample = Features(maximum=100)
    for part in numbered(100).split(7):
        sample.update(part)
    assert torch.equal(sample.rows, numbered(100)) and sample.count == 100


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_choice_does_not_depend_on_batches(batch):
    sample, whole = Features(maximum=50, seed=1), Features(maximum=50, seed=1).update(numbered(1000))
    for part in numbered(1000).split(batch):
        sample.update(part)
    assert torch.equal(sample.rows, whole.rows) and sample.count == 1000
    kept = sample.rows[:, 0]
    assert len(kept) == 50 and (kept.diff() > 0).all()  # without replacement, in order
    assert torch.equal(sample.rows, sample.rows)  # looking changes nothing
    assert not torch.equal(kept, Features(50, seed=2).update(numbered(1000)).rows[:, 0])


def test_every_row_has_the_same_chance():
    kept = torch.cat([Features(10, seed=seed).update(numbered(100)).rows[:, 0] for seed in range(1000)])
    counts = np.bincount(kept.long().numpy(), minlength=100)  # 100 each, standard deviation 9.5
    assert ((counts - 100) ** 2 / 90).sum() == pytest.approx(100, abs=50)


def test_looking_on_the_way_changes_nothing():
    one, other = Features(maximum=20), Features(maximum=20)
    for part in numbered(200).split(15):
        one.update(part)
        assert len(other.update(part).rows) <= 20
    assert torch.equal(one.rows, other.rows)


def test_bad_input():
    with pytest.raises(InputError, match="one or more"):
        Features(0)
    with pytest.raises(InputError, match="has had some"):
        _ = Features().rows
    with pytest.raises(InputError, match="one extractor"):
        Features().update(torch.zeros(3, 4)).update(torch.zeros(3, 5))
