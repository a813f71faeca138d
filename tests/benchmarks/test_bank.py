"""The benchmark runs, on hardly any work, and its table says what was measured. No figure is judged here."""

import pytest

from benchmarks import bank


def test_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bank, "SHARD", 64)
    monkeypatch.setattr("storage.bank.layout.CHUNK_BYTES", 2**12)
    written = bank.writing(tmp_path, bank.DIGITS, "float32", "float16", shards=2)
    assert written["bytes"] == 64 * 64 * 2 and written["ratio"] > 0
    read = bank.reading(tmp_path, bank.DIGITS, shards=8, batch=16, rounds=1)
    assert [row["what"] for row in read] == ["read, resident", "read, streaming", "read, streaming, first epoch"]
    kept = bank.precision(tmp_path, rounds=1)
    exact, half, ten, eight, six = kept[:5]
    assert exact["rms_error"] == 0 and exact["smaller"] == pytest.approx(1, abs=0.01)
    for row, bits in ((half, 10), (ten, 10), (eight, 8), (six, 6)):
        assert row["max_relative_error"] == pytest.approx(2.0 ** -(bits + 1), rel=0.02)
    assert six["bytes_per_value"] < eight["bytes_per_value"] < ten["bytes_per_value"] < 2.1
    waits = bank.waiting(tmp_path, seconds=0.2, rate=2000, batch=16, rows=64, draws=2)
    assert [row["what"].split(",")[0] for row in waits] == ["resident", "streamed", "streamed"]
    assert all(0 <= row["waited"] < 1 and row["images_s"] <= 2100 for row in waits)
    assert list(tmp_path.iterdir()) == []
    result = {"writing": [written], "reading": read, "precision": kept, "waiting": {"load": 0.1, "rows": waits}}
    text = bank.tables({**result, "processor": "this one", "cores": 2, "load": 0.1})
    lines = text.splitlines()
    assert len({line.count("|") for line in lines if line.startswith("| float") and "bits" in line}) == 1
    assert "float16, given as float32" in text and "1 × 8 × 8" in text
    assert "ratio" in capsys.readouterr().out
