"""Which rows of real features a reference keeps."""

import numpy as np
import pytest
import torch

from pipeline.stages import reference


def test_all_rows_in_order_where_they_fit():
    assert torch.equal(reference._chosen(1437, 0), torch.arange(1437))


def test_the_rows_that_references_were_made_of():
    # Another choice would part the scores of references already stored from those of new ones.
    chosen = reference._chosen(50_000, 3)
    assert len(chosen) == reference.FEATURE_ROWS and (chosen.diff() > 0).all()  # without replacement, in order
    assert chosen[:5].tolist() == [0, 4, 7, 9, 20] and int(chosen.sum()) == 251_514_589
    assert not torch.equal(chosen, reference._chosen(50_000, 4))


def test_every_row_has_the_same_chance(monkeypatch):
    monkeypatch.setattr(reference, "FEATURE_ROWS", 10)
    kept = torch.cat([reference._chosen(100, seed) for seed in range(1000)])
    counts = np.bincount(kept.numpy(), minlength=100)  # 100 each, standard deviation 9.5
    assert ((counts - 100) ** 2 / 90).sum() == pytest.approx(100, abs=50)
