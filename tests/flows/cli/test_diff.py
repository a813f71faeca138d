"""`diff` as a command: what it says, as text and as JSON."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.recipe.load import load
from storage.errors import MissingError
from tests.flows.cli.test_lazy import _loaded
from tests.flows.conftest import make_all
from tests.flows.faults import fault


@pytest.fixture
def other(tiny):
    path = Path(tiny).with_name("other.yaml")
    path.write_text(
        Path(tiny).read_text().replace("name: tiny", "name: other").replace("draws_per_image: 1", "draws_per_image: 2")
    )
    return str(path)


def test_diff_needs_nothing_to_be_made(flowctl, home, tiny, other):
    text = flowctl("diff", tiny, other).stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["bank.draws_per_image", "1", "2"] in lines and "No scores" in text
    assert next(line for line in lines if line[:1] == ["teacher"])[-1] == "shared"
    assert "own settings: draws_per_image" in text and "reads another bank" in text


def test_values_are_printed_whole_as_yaml(flowctl, home, tiny, other):
    sweep = [{"solver": "heun", "grid": "uniform", "nfe": list(range(1, 64, 2))}]
    recipe = yaml.safe_load(Path(other).read_text()) | {"evaluation": {"samples": 16, "student": sweep}}
    Path(other).write_text(yaml.safe_dump(recipe))
    result = flowctl("diff", tiny, other)
    text = result.stdout
    assert result.exit_code == 0, result.stderr
    assert "…" not in text and max(map(len, text.splitlines())) <= 100
    path, *block = text.split("evaluation.student[0].nfe")[1].splitlines()
    lines = block[: block.index("")]
    start = next(number for number, line in enumerate(lines) if line.startswith("  B"))
    a, b = " ".join(lines[:start]), " ".join(lines[start:])
    assert (
        path == ""
        and yaml.safe_load(a.split("A", 1)[1]) == [1, 2]
        and yaml.safe_load(b.split("B", 1)[1]) == sweep[0]["nfe"]
    )


def test_diff_sets_scores_side_by_side(flowctl, finished, tiny, other, monkeypatch):
    from tests.flows.fakes import RESULTS

    scores = [score.model_copy(update={"value": score.value / 2}) for score in RESULTS["evaluation"].scores]
    monkeypatch.setitem(RESULTS, "evaluation", RESULTS["evaluation"].model_copy(update={"scores": tuple(scores)}))
    make_all(load(other))
    text = flowctl("diff", tiny, other).stdout
    assert "0.500" in text and "B/A" in text and "ONLY" not in text
    tree = json.loads(flowctl("diff", tiny, other, "--json").stdout)
    assert set(tree) == {"a", "b", "settings", "stages", "provenance", "scores"}
    assert tree["settings"] == [{"path": "bank.draws_per_image", "a": 1, "b": 2}]
    assert [row["ratio"] for row in tree["scores"]["paired"]] == [0.5, 0.5]
    assert {stage["stage"]: stage["shared"] for stage in tree["stages"]} == {
        "data": True,
        "reference": True,
        "teacher": True,
        "bank": False,
        "student": False,
        "evaluation": False,
        "report": False,
    }


def test_diff_of_other_protocols_shows_them_apart(flowctl, finished, tiny, other, monkeypatch):
    from tests.flows.fakes import RESULTS

    monkeypatch.setitem(RESULTS, "evaluation", RESULTS["evaluation"].model_copy(update={"protocol": "f" * 16}))
    make_all(load(other))
    text = flowctl("diff", tiny, other).stdout
    assert "ONLY A" in text and "ONLY B" in text
    assert "B/A" not in text


def test_diff_takes_artifacts_by_name_and_path(flowctl, finished, tiny):
    node = finished.nodes["student"]
    name = f"student/tiny-{node.fingerprint[:12]}"
    by_name = flowctl("diff", name, tiny)
    assert by_name.exit_code == 0 and "shared" in by_name.stdout
    assert flowctl("diff", finished.store.home / "artifacts" / name, tiny).stdout == by_name.stdout
    wrong = flowctl("diff", "nfm-digit", tiny)
    assert type(fault(wrong)) is MissingError and "nfm-digits" in wrong.stderr


def test_diff_needs_no_torch(finished, tiny, other):
    assert _loaded("diff", tiny, other, heavy={"torch", "prefect", "scipy", "sklearn", "matplotlib"}) == set()
