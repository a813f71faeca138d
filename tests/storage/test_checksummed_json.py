"""Facts that are computed once and read from their file afterwards."""

from __future__ import annotations

import pytest

from storage.checksummed_json import cached, read_checksummed


def test_cached_facts_are_computed_once(tmp_path):
    path = tmp_path / "facts.json"
    assert cached(path, lambda: {"a": 1}) == {"a": 1}
    assert cached(path, lambda: pytest.fail("computed twice")) == {"a": 1}
    path.write_text(path.read_text().replace("1", "2", 1))
    assert cached(path, lambda: {"a": 3}) == {"a": 3} == read_checksummed(path)


def test_a_cache_creates_no_folder_and_needs_no_room(tmp_path, monkeypatch):
    path = tmp_path / "none" / "facts.json"
    assert cached(path, lambda: {"a": 1}) == {"a": 1} and not path.parent.exists()

    def full(*given):
        raise OSError("no space")

    monkeypatch.setattr("storage.checksummed_json.write_json", full)
    assert cached(tmp_path / "facts.json", lambda: {"a": 1}) == {"a": 1}
