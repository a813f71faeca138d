import pytest
import torch

from pipeline.metrics import neighbours
from pipeline.metrics.neighbours import judged, nearest
from storage.errors import InputError


def images(n, seed):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_nearest_by_brute_force(monkeypatch):
    queries, train = images(37, 0), images(50, 1)
    full = (queries[:, None] - train[None]).square().flatten(2).mean(2).sqrt()  # (M, N)
    for at_once in (2**24, 200, 1):
        monkeypatch.setattr(neighbours, "_DISTANCES_IN_MEMORY", at_once)
        distances, rows = nearest(queries, [train])
        torch.testing.assert_close(distances, full.min(1).values)
        assert torch.equal(rows, full.argmin(1))


def test_copies_are_at_distance_zero():
    train = images(50, 1)
    distances, rows = nearest(train[10:20], [train])
    assert torch.equal(rows, torch.arange(10, 20)) and distances.max() == 0
    assert len(nearest(train[:0], [train])[0]) == 0


def test_memorisation_tells_copies_from_new_images():
    train = images(500, 1)
    held_out, new, copies = (
        nearest(queries, [train])[0]
        for queries in (images(200, 2), images(300, 3), torch.cat([train[:150] + 0.01, images(150, 3)]))
    )
    fresh, copied = judged(new, held_out), judged(copies, held_out)
    assert (
        fresh.samples[1] == pytest.approx(fresh.held_out[1], rel=0.05) and abs(fresh.copies - 0.05) < 0.06
    )  # 3 sigma of 300 samples and of 200 held-out images
    assert copied.copies == pytest.approx(0.525, abs=0.035) and copied.samples[0] == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("known", [12, 200])  # of 200 held-out images
def test_copies_are_seen_though_held_out_images_are_training_images_too(known):
    """Their own distance of 0 is no threshold: none is below it."""
    train = images(500, 1)
    held_out = torch.cat([train[:known], images(200 - known, 2)])
    new, copies = (
        judged(nearest(x, [train])[0], nearest(held_out, [train])[0]) for x in (images(300, 3), train[-100:])
    )
    assert copies.copies == 1 and new.copies < 0.11 and (new.near > 0) == (known < 200)


def test_bad_input():
    with pytest.raises(InputError, match="one size"):
        nearest(images(3, 0), [torch.zeros(5, 17)])
    with pytest.raises(InputError, match="one size"):
        nearest(images(3, 0), [images(0, 0)])


def test_training_images_may_come_in_parts():
    queries, train = images(37, 0), images(50, 1)
    train[31] = train[4]  # the first of equal ones counts, in whichever part
    queries[0] = train[4]
    whole = nearest(queries, [train])
    for size in (1, 7, 50):
        parts = nearest(queries, train.split(size))
        assert torch.equal(parts[0], whole[0]) and torch.equal(parts[1], whole[1])
    assert whole[1][0] == 4 and whole[0][0] == 0
    with pytest.raises(InputError, match="one size"):
        nearest(queries, [])
