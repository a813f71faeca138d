"""Errors as sentences."""

from __future__ import annotations

import pytest

from storage.errors import MissingError


@pytest.mark.parametrize(
    ("remedy", "ending"), [("Run it", " Run it."), ("Run it.", " Run it."), ("Did you mean 'a'?", " Did you mean 'a'?")]
)
def test_a_remedy_ends_with_one_mark(remedy, ending):
    assert str(MissingError("A name must exist", "b", remedy)).endswith(ending)
