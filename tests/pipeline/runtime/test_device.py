"""The choice of kernels: repeatable by default, the fastest where the recipe allows it."""

import os
import runpy
from contextlib import nullcontext

import pytest
import torch
from torch.utils import deterministic

from pipeline.engine.dag import build
from pipeline.recipe.load import load
from pipeline.recipe.sections import Compute
from pipeline.runtime import device
from pipeline.runtime.device import check_present, prepare, same_bits
from storage.errors import RecipeError

GPU = torch.device("cuda")  # as a name only: nothing is put there


@pytest.fixture(autouse=True)
def _state_of_torch():
    state = (
        torch.are_deterministic_algorithms_enabled(),
        deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    yield
    torch.use_deterministic_algorithms(state[0], warn_only=True)
    deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark = state[1:]


def asked() -> tuple[bool, bool]:
    """Whether deterministic kernels are asked for, and whether a lack of one is an error."""
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled, enabled and not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(("before", "after"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_the_workspaces_of_cublas_are_fixed_at_import_unless_they_were(monkeypatch, before, after):
    """cuBLAS reads them once, at the first product on a GPU, which may come before `prepare`."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before or "")  # which restores it at the end
    if before is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    runpy.run_path(device.__file__)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == after


def test_kernels_are_repeatable_by_default():
    prepare(Compute(device="cpu"))
    assert asked() == (True, False) and not torch.backends.cudnn.benchmark
    with same_bits(GPU):
        assert asked() == (True, True)
    assert asked() == (True, False)
    assert not deterministic.fill_uninitialized_memory


def test_fast_kernels_are_allowed_also_where_gradients_must_repeat():
    prepare(Compute(device="cpu"))
    prepare(Compute(device="cpu", deterministic=False))
    assert asked() == (False, False) and torch.backends.cudnn.benchmark
    with same_bits(GPU):
        assert asked() == (False, False)
    prepare(Compute(device="cpu"))  # the next stage of the process asks again
    assert asked() == (True, False) and not torch.backends.cudnn.benchmark


def test_the_choice_is_not_part_of_a_result():
    fast = build(load("nfm-digits", ["compute.deterministic=false"]))
    assert {name: node.fingerprint for name, node in fast.items()} == {
        name: node.fingerprint for name, node in build(load("nfm-digits")).items()
    }


@pytest.mark.parametrize(
    ("name", "processes", "gpus", "fits"),
    [
        ("cpu", 8, 0, True),
        ("auto", 8, 0, True),  # ranks on the CPU
        ("cuda", 1, 0, False),
        ("cuda:3", 1, 4, True),
        ("cuda:4", 1, 4, False),
        ("auto", 4, 4, True),
        ("auto", 8, 4, False),
    ],
)
def test_devices_that_are_not_there_are_refused(monkeypatch, name, processes, gpus, fits):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with nullcontext() if fits else pytest.raises(RecipeError):
        check_present(name, processes)
