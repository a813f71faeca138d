"""Packages of other projects that have the names of ours."""

import ast

import pytest

from tests.environment.program import ROOT

NAMES = ("models", "pipeline", "storage", "flows")


def write_foreign(folder, names=NAMES):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('this is another project')")


@pytest.mark.slow  # test_any_environment has a run among such packages
def test_the_program_imports_our_packages_whatever_the_directory_and_the_path(place):
    write_foreign(place.folder / "cwd")
    write_foreign(place.folder / "path")
    path = f"{place.folder / 'path'}:{place.folder / 'cwd'}:"
    done = place.flowctl("run", "tiny.yaml", "--until", "data", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_one_line_names_the_file_that_hides_ours(place, name):
    """A sitecustomize is run before anything of ours is."""
    (place.folder / "path" / name).mkdir(parents=True)
    (place.folder / "path" / name / "__init__.py").touch()
    (place.folder / "path" / "sitecustomize.py").write_text(f"import {name}")
    done = place.python("flowctl.check_packages()", PYTHONPATH=str(place.folder / "path"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert str(place.folder / "path" / name / "__init__.py") in done.stderr and str(ROOT / name) in done.stderr


@pytest.mark.parametrize("name", ["flows/orchestration/serve.py", "flows/orchestration/reports.py"])
def test_what_runs_by_its_path_imports_nothing_of_ours(name):
    """It is started with -P, and the checkout need not be installed."""
    tree = ast.parse((ROOT / name).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {module.partition(".")[0] for module in imported} & {"flowctl", "flows", "models", "pipeline", "storage"}
