"""Small JSON files that other processes may be writing, or a crash has damaged."""

import pytest

from storage.atomic import read_facts, write_json


def test_facts_are_read_as_written(tmp_path):
    write_json(tmp_path / "facts.json", {"a": [1, 2]})
    assert read_facts(tmp_path / "facts.json") == {"a": [1, 2]}


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"[1]", b"[[1, 2]]", b"null", b"3", b"\xff\xfe", None])
def test_no_facts_where_there_is_no_object(tmp_path, data):
    if data is not None:
        (tmp_path / "facts.json").write_bytes(data)
    assert read_facts(tmp_path / "facts.json") == {}
