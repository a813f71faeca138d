"""Places for output are looked at before anything is drawn or trained."""

from pathlib import Path

import pytest

from flows.cli.output import check_out
from storage.errors import UsageError


def test_new_places_pass(tmp_path):
    (tmp_path / "old.png").touch()
    (tmp_path / "empty").mkdir()
    for name in ("new.png", "old.png", "a/b/new.png"):
        check_out(tmp_path / name)
    for name in ("new", "empty", "a/b/new"):
        check_out(tmp_path / name, folder=True)
    assert {path.name for path in tmp_path.iterdir()} == {"old.png", "empty"}


@pytest.mark.parametrize(
    ("name", "folder"),
    [("folder.png", False), ("file/x.png", False), ("file", True), ("file/x", True), ("folder.png", True)],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, folder):
    (tmp_path / "folder.png" / "full").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        check_out(tmp_path / name, folder)


def test_a_comparison_looks_before_it_runs_anything(flowctl, tiny, home, tmp_path):
    (tmp_path / "page.html").mkdir()
    result = flowctl("compare", tiny, "--run", "--html", str(tmp_path / "page.html"))
    assert result.exit_code == 2 and not home.exists()


def test_a_plot_that_is_not_drawn_needs_no_place(flowctl, finished, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compare.png").mkdir()
    assert flowctl("compare", tiny, "--json").exit_code == 0
    assert flowctl("compare", tiny).exit_code == 2


@pytest.mark.parametrize("folder", [False, True])
def test_a_place_that_cannot_be_written_to_is_found_before_the_work(folder):
    with pytest.raises(UsageError):
        check_out(Path("/proc/new/x.png"), folder)
