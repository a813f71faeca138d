"""The stage of the potentials says whether its fit is one."""

import pytest

from pipeline.recipe.load import load
from pipeline.runtime.job import Job, Progress
from pipeline.stages import potentials
from tests.pipeline.stages.test_stages import run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return run(
        tmp_path_factory.mktemp("home"), "data.limit=200", "data.labels=false", recipe="sd-digits", until="data"
    )["data"]


@pytest.mark.parametrize(("passes", "tolerance", "warned"), [(1.0, 0.01, True), (1000.0, 0.5, False)])
def test_a_fit_that_was_cut_short_is_warned_of_and_no_other(data, tmp_path, passes, tolerance, warned):
    recipe = load(
        "sd-digits", [f"potentials.passes={passes}", f"potentials.tolerance={tolerance}", "potentials.batch=64"]
    )
    job = Job(
        "potentials",
        recipe.sections()["potentials"],
        {"data": data},
        tmp_path,
        recipe.compute,
        Progress("potentials", tmp_path),
    )
    result = potentials.run(job)
    assert (result.divergence > tolerance) == warned == bool(result.warnings)
    assert not warned or len(result.warnings) == 1
