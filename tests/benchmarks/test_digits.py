"""The benchmark of digits: what it writes, when, and that what is published is what was measured."""

import json
from pathlib import Path

import pytest

from benchmarks import digits
from pipeline.reporting.compare import SeedRun, compare
from tests.pipeline.reporting.compare.runs import run, seeds, three

ROOT = Path(__file__).parents[2]
PLACES = {"RESULTS": "results", "README": "README.md", "FINDINGS": "findings.md", "PLOT": "plot.png"}


def published(name):
    tree = json.loads((ROOT / "benchmarks/results" / f"{name}.json").read_text())
    return tree, compare([SeedRun.model_validate(item) for item in tree["runs"]])


def test_readme_and_findings_have_the_published_numbers():
    readme, findings = (ROOT / "README.md").read_text(), (ROOT / "docs/findings.md").read_text()
    _, comparison = published("digits")
    assert digits.between_marks(readme, digits.scores(comparison)) == readme
    assert digits.between_marks(findings, comparison.markdown()) == findings
    assert len(comparison.runs) >= 3


def test_the_scores_are_a_table_with_a_line_for_each_model():
    comparison = compare(three())
    head, ruler, *rows = digits.scores(comparison).splitlines()
    assert set(ruler) <= set("|-: ") and len(rows) == len(comparison.table().rows)
    assert all(line.startswith("| ") for line in (head, *rows))


@pytest.mark.parametrize("key", digits.CONTESTS)
def test_the_pages_are_those_of_the_published_numbers(key):
    contest = digits.CONTESTS[key]
    tree, comparison = published(contest.name)
    shown = (ROOT / "benchmarks/results" / f"{contest.name}.md").read_text()
    assert digits.page(contest, comparison, tree["command"], tree["processor"]) == shown
    assert {one.recipe for one in comparison.runs} <= set(contest.recipes)


def test_recipes_of_a_contest_are_shipped_and_share_a_protocol():
    from pipeline.engine.dag import build
    from pipeline.recipe.load import load

    for contest in digits.CONTESTS.values():
        loaded = [load(name) for name in contest.recipes]
        assert len({build(recipe)["reference"].fingerprint for recipe in loaded}) == 1
        assert len({recipe.evaluation.samples for recipe in loaded}) == 1
        assert len({recipe.student.training for recipe in loaded}) == 1  # one budget
        assert len({recipe.evaluation.student for recipe in loaded}) == 1


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository to write into."""
    for name, path in PLACES.items():
        monkeypatch.setattr(digits, name, tmp_path / path)
    for path in ("README.md", "findings.md"):
        (tmp_path / path).write_text(f"# Above\n\n{digits.BEGIN}\nold\n{digits.END}\n\nBelow.\n")
    return tmp_path


def collected(monkeypatch, found):
    """What is asked of the store, instead of it."""
    asked = []
    monkeypatch.setattr(digits, "collect", lambda items, store, run_missing, tell: asked.extend(items) or found)
    return asked


def whole():
    """All recipes of the couplings' contest at its seeds."""
    return [
        run(name, seed=seed, scale=1 + 0.1 * seed)
        for name in digits.CONTESTS["couplings"].recipes
        for seed in (0, 1, 2)
    ]


def test_a_whole_contest_is_written_down(place, monkeypatch, capsys):
    asked = collected(monkeypatch, whole())
    digits.main(["--threads", "2"])
    assert len(asked) == 12 and {item.recipe.compute.threads for item in asked} == {2}
    tree = json.loads((place / "results/digits.json").read_text())
    comparison = compare([SeedRun.model_validate(item) for item in tree["runs"]])
    assert comparison == compare(whole()) and tree["command"] == "python -m benchmarks.digits --threads 2"
    for name, text in (("README.md", digits.scores(comparison)), ("findings.md", comparison.markdown())):
        written = (place / name).read_text()
        assert written == f"# Above\n\n{digits.BEGIN}\n\n{text}\n\n{digits.END}\n\nBelow.\n"
        assert digits.between_marks(written, text) == written
    shown = (place / "results/digits.md").read_text()
    assert comparison.markdown() in shown and "| nfm-digits | 1 | 66 | 20 |" in shown
    assert (place / "plot.png").stat().st_size > 10_000
    assert "mean ± standard deviation over 3 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "items"),
    [(["--seeds", "1"], 4), (["--only", "fm-digits,ot-digits"], 6), (["--only", "fm-digits", "--seeds", "0"], 1)],
)
def test_a_part_is_made_and_not_written(place, monkeypatch, capsys, words, items):
    asked = collected(monkeypatch, three())
    digits.main(words)
    assert len(asked) == items
    assert "nothing written" in capsys.readouterr().out
    assert not (place / "results").exists() and "old" in (place / "README.md").read_text()


def test_the_other_contest_leaves_the_pages_alone(place, monkeypatch):
    recipes = digits.CONTESTS["eta"].recipes
    bits = {"train": 1.97, "held_out": 2.23}
    collected(monkeypatch, [run(name, teacher_bits=bits) for name in recipes])
    digits.main(["eta"])
    assert "| nfm-digits-eta005 | 1.97 | 2.23 |" in (place / "results/digits-eta.md").read_text()
    assert "`python -m benchmarks.digits eta`" in (place / "results/digits-eta.md").read_text()
    assert "old" in (place / "README.md").read_text() and not (place / "plot.png").exists()


@pytest.mark.parametrize("text", ["", digits.BEGIN, digits.END + digits.BEGIN, 2 * (digits.BEGIN + digits.END)])
def test_a_page_without_its_marks_is_refused(text):
    with pytest.raises(ValueError, match="needs the lines"):
        digits.between_marks(text, digits.scores(compare(seeds(1.0))))
