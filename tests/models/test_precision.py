"""float32 without TF32 inside blocks, in whatever order those of several threads begin and end."""

import pytest
import torch

from models.precision import ieee

BACKENDS = {"matmul": torch.backends.cuda.matmul, "conv": torch.backends.cudnn.conv}


@pytest.fixture(params=BACKENDS)
def operation(request):
    """An operation that torch may compute in TF32."""
    backend = BACKENDS[request.param]
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    yield request.param
    backend.fp32_precision = before


def test_blocks_that_overlap_are_exact_to_the_end_of_the_last(operation):
    """As those of two threads: the first ends while the second lasts."""
    backend, first, second = BACKENDS[operation], ieee("cpu", operation), ieee("cpu", operation)
    seen = [backend.fp32_precision]
    for step in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None)):
        step()
        seen.append(backend.fp32_precision)
    second.__exit__(None, None, None)
    assert [*seen, backend.fp32_precision] == ["tf32", "ieee", "ieee", "ieee", "tf32"]


def test_an_error_leaves_the_setting_as_it_was(operation):
    with pytest.raises(ZeroDivisionError), ieee("cpu", operation):
        raise ZeroDivisionError
    assert BACKENDS[operation].fp32_precision == "tf32"
    other = next(name for name in BACKENDS if name != operation)
    before = BACKENDS[other].fp32_precision
    with ieee("cpu", operation):
        assert BACKENDS[other].fp32_precision == before
