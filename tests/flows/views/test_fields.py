"""The fields of a recipe in words."""

import pytest

from flows.views.fields import kind, reference

LARGEST = 2**63


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": LARGEST}, "integer > 0"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**32}, f"integer ≥ 0 and < {2**32}"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number ≥ 0 and < 1"),
        (
            {"type": "integer", "exclusiveMinimum": 0, "maximum": 64, "exclusiveMaximum": LARGEST},
            "integer > 0 and ≤ 64",
        ),
        ({"type": "array", "items": {"type": "integer", "exclusiveMaximum": LARGEST}}, "list of integer"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"enum": ["a", "b"]}, '"a" or "b"'),
        ({"$ref": "#/$defs/Data"}, "Data"),
    ],
)
def test_a_type_is_said_with_the_bounds_that_matter(node, words):
    assert kind(node) == words


def test_no_reader_meets_the_bound_of_64_bit_integers():
    assert str(LARGEST) not in reference()


def test_the_fields_of_compute_are_explained():
    table = reference().partition("## Compute\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert {row[0] for row in rows} >= {"`device`", "`compile`", "`checkpoint_seconds`"}
    assert all(len(row) == 4 and row[3] for row in rows)
