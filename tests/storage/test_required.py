import pytest

from storage.required import complete, required


def test_a_value_that_is_there_passes_and_a_missing_one_is_an_error_of_the_code():
    assert required(0, "a number") == 0
    with pytest.raises(LookupError):
        required(None, "a number")


@pytest.mark.parametrize("values, expected", [([1, 0], [1, 0]), ([1, None], []), ([], [])])
def test_values_count_only_together(values, expected):
    assert complete(values) == expected
