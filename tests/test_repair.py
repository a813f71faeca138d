"""Real stages: a bank that lost shards is repaired by encoding those alone, and every byte is the one that was lost."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.session.session import Session
from pipeline.engine.execute import execute
from pipeline.outputs.banks import BANK
from pipeline.recipe.load import load
from pipeline.stages import bank as bank_stage
from tests.shared import figures  # noqa: F401 - a fixture
from tests.storage.test_bank_reopen import flip
from tests.tiny import TINY


def digests(root: Path) -> dict[str, str]:
    return {file["path"]: file["sha256"] for file in json.loads((root / "artifact.json").read_text())["files"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A recipe's file, and its artifacts up to the bank; each test leaves them valid."""
    folder = tmp_path_factory.mktemp("repair")
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(load("nfm-digits", TINY).model_dump(mode="json")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCTL_HOME", str(folder / "store"))
        session, artifacts = Session.open(load(str(recipe)), until="bank"), {}
        session.store.prepare()
        for name, node in session.nodes.items():
            inputs = {role: artifacts[role] for role in node.inputs}
            artifacts[name] = execute(node, inputs, session.store, session.recipe.compute).artifact
        yield recipe, {name: artifact.root for name, artifact in artifacts.items()}


def test_lost_shards_are_encoded_again_and_no_others(made, monkeypatch):
    recipe, roots = made
    bank = roots["bank"] / BANK
    before = digests(roots["bank"])
    assert len(list((bank / "z").glob("c.*"))) == 4
    flip(bank / "z/c.1.0.0.0")
    (bank / "z/c.3.0.0.0").unlink()
    written = []
    write = bank_stage.BankWriter.write
    monkeypatch.setattr(
        bank_stage.BankWriter,
        "write",
        lambda writer, index, **values: written.append(index) or write(writer, index, **values),
    )
    result = CliRunner().invoke(app, ["verify", str(recipe), "--repair"])
    assert result.exit_code == 0, result.output
    assert "2 of 4 shards encoded again, every byte as recorded" in result.stdout
    assert written == [1, 3] and digests(roots["bank"]) == before
    assert CliRunner().invoke(app, ["verify"]).exit_code == 0


def test_a_damaged_teacher_is_trained_again_to_the_same_bits(made):
    recipe, roots = made
    before = {stage: digests(roots[stage]) for stage in ("teacher", "bank")}
    flip(roots["teacher"] / "weights.safetensors")
    result = CliRunner().invoke(app, ["verify", str(recipe), "--repair"])
    assert result.exit_code == 0, result.output
    after = {stage: digests(roots[stage]) for stage in ("teacher", "bank")}
    assert after["bank"] == before["bank"]
    assert after["teacher"]["weights.safetensors"] == before["teacher"]["weights.safetensors"]
