"""A rate counts for its exact key, and only while its file is intact."""

import json

import pytest

from pipeline.cost.rates import Rates

KEY = {"device": "a", "threads": 2, "network": "n", "batch": 128, "precision": "float32"}


def test_a_rate_is_of_its_exact_key_and_the_latest_counts(tmp_path):
    rates = Rates(tmp_path)
    assert rates.get(KEY) is None
    rates.put(KEY, 300, 2.0)
    assert Rates(tmp_path).get(dict(reversed(KEY.items()))) == 150.0
    for name, other in (("device", "b"), ("threads", 1), ("network", "m"), ("batch", 64), ("precision", "bfloat16")):
        assert rates.get(KEY | {name: other}) is None
    rates.put(KEY, 100, 1.0)
    assert rates.get(KEY) == 100.0


@pytest.mark.parametrize("amount, seconds", [(0, 1.0), (1, 0.0), (-1, 1.0)])
def test_nothing_is_no_rate(tmp_path, amount, seconds):
    Rates(tmp_path).put(KEY, amount, seconds)
    assert Rates(tmp_path).get(KEY) is None


def test_a_damaged_rate_is_none(tmp_path):
    rates = Rates(tmp_path)
    rates.put(KEY, 300, 2.0)
    (path,) = rates.folder.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"per_second": 1e9}))
    assert rates.get(KEY) is None
    path.write_text("{")
    assert rates.get(KEY) is None
