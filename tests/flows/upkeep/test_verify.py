"""`verify`: every kind of damage is named; with --repair it is repaired from what is valid, or left with a remedy."""

import json
import os
import re
import signal
import types
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from flows.session.runs import RunRecord
from pipeline.engine import dag
from pipeline.engine.plan import outline, plan
from pipeline.recipe.load import load
from storage import inspection
from storage.bank import BankFacts, BankWriter
from storage.errors import RecipeError
from storage.store import Store
from tests.flows import fakes
from tests.flows.conftest import make_all
from tests.storage.test_bank_reopen import flip

SHARDS, SHARD = 5, 16


@pytest.fixture
def ran(monkeypatch):
    """Which stages have run, and which shards the bank have encoded; these write a bank."""
    ran = []

    def bank(job):
        facts = BankFacts(
            kind="encoded",
            rows=SHARDS * SHARD,
            draws=1,
            shape=(1, 2, 2),
            dtype="float32",
            shard=SHARD,
            seed=1,
            producer="teacher",
        )
        writer = BankWriter(job.out / "bank.zarr", facts)
        teacher = list(job.inputs["teacher"].path("payload.txt").read_bytes())
        for shard in writer.missing():
            z = np.random.default_rng([shard.index, *teacher]).normal(size=(SHARD, 1, 2, 2))
            writer.write(shard.index, z=z)
            job.saved(shard.index + 1, SHARDS, "shards")
            ran.append(shard.index)
            job.pause_point()
        writer.finish()
        return fakes.run(job, {})

    def module(stage):
        run = bank if stage.name == "bank" else fakes.module(stage).run
        return types.SimpleNamespace(run=lambda job: ran.append(job.stage) or run(job))

    monkeypatch.setattr(dag.Stage, "module", module)
    return ran


@pytest.fixture
def store(tiny, ran, home) -> Store:
    """The whole small recipe, by a run that is on record."""
    session = make_all(load(tiny))
    record(session)
    ran.clear()
    return session.store


def record(session) -> RunRecord:
    steps = outline(plan(session.nodes, session.store))
    made = RunRecord(session.store.home, session.recipe.model_dump(mode="json"), steps, None)
    made.end("7 run")
    return made


def root(store: Store, stage: str) -> Path:
    (found,) = (path for path in store.roots() if path.parent.name == stage)
    return found


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "artifact.json")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_bad_shard_is_encoded_again_alone_and_ends_in_the_same_bytes(flowctl, store, ran):
    bank = root(store, "bank")
    before, digests = content(bank), _digests(bank)
    flip(bank / "bank.zarr/z/c.3.0.0.0")
    (bank / "bank.zarr/z/c.1.0.0.0").unlink()
    result = flowctl("verify")
    assert result.exit_code == 1
    assert f"damaged: {bank}: bank.zarr/z/c.3.0.0.0: SHA-256 differs" in result.stdout
    assert f"damaged: {bank}: bank.zarr/z/c.1.0.0.0: is missing" in result.stdout
    assert "1 of 7 artifacts damaged" in result.stderr

    result = flowctl("verify", "--repair")
    assert result.exit_code == 0, result.output
    assert ran == ["bank", 1, 3]
    said = f"repaired: bank/{bank.name}: 2 of 5 shards encoded again, every byte as recorded"
    assert said in result.stdout
    assert content(bank) == before and _digests(bank) == digests
    assert flowctl("verify").exit_code == 0
    assert store.works() == [] and not list((store.home / "work").glob(".*"))


def _digests(folder: Path) -> dict[str, str]:
    return {file["path"]: file["sha256"] for file in json.loads((folder / "artifact.json").read_text())["files"]}


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("payload.txt", tear),
        ("bank.zarr/bank.json", flip),
        ("bank.zarr/bank.json", Path.unlink),
        ("bank.zarr/facts.json", flip),
        ("bank.zarr/z/zarr.json", tear),
    ],
)
def test_no_shard_is_encoded_for_any_other_file_beside_a_bank(flowctl, store, ran, file, damage):
    bank = root(store, "bank")
    before = content(bank)
    damage(bank / file)
    assert flowctl("verify").exit_code == 1
    result = flowctl("verify", "--repair")
    assert result.exit_code == 0, result.output
    assert ran == ["bank"] and "0 of 5 shards encoded again" in result.stdout
    assert content(bank) == before and flowctl("verify").exit_code == 0


@pytest.mark.parametrize("lost", [("bank.zarr/facts.json", "bank.zarr/bank.json"), ("artifact.json",)])
def test_a_bank_that_cannot_be_continued_is_made_whole(flowctl, store, ran, lost):
    """Without its manifest it does not say when it was made, and so from which teacher."""
    bank = root(store, "bank")
    before = content(bank)
    for name in lost:
        (bank / name).write_bytes(b"{")
    result = flowctl("verify", "--repair")
    assert result.exit_code == 0 and ran == ["bank", *range(SHARDS)], result.output
    assert content(bank) == before and not list((store.home / "work").glob(".*"))


@pytest.mark.parametrize(
    ("file", "damage"), [("payload.txt", flip), ("payload.txt", Path.unlink), ("artifact.json", tear)]
)
def test_any_other_artifact_is_run_again_by_its_stage(flowctl, store, ran, file, damage):
    teacher = root(store, "teacher")
    before = content(teacher)
    damage(teacher / file)
    result = flowctl("verify", "--repair")
    assert result.exit_code == 0 and ran == ["teacher"], result.output
    assert f"repaired: teacher/{teacher.name}: run again, " in result.stdout
    assert content(teacher) == before and not list((store.home / "work").glob(".*"))


def test_inputs_are_repaired_first(flowctl, store, ran):
    """Also where only the later artifact was asked for: damaged weights must encode no shard."""
    flip(root(store, "bank") / "bank.zarr/z/c.0.0.0.0")
    flip(root(store, "teacher") / "payload.txt")
    name = f"bank/{root(store, 'bank').name}"
    result = flowctl("verify", name, "--repair")
    assert result.exit_code == 0 and ran == ["teacher", "bank", 0], result.output
    assert flowctl("verify", "--repair").exit_code == 0 and ran == ["teacher", "bank", 0]


def test_what_does_not_belong_is_removed_and_nothing_made(flowctl, store, ran):
    foreign = root(store, "data") / "Thumbs.db"
    foreign.write_text("x")
    assert "Thumbs.db: not in the manifest" in flowctl("verify").stdout
    assert flowctl("verify", "--repair").exit_code == 0 and not foreign.exists() and ran == []


@pytest.mark.parametrize("file", ["bank.zarr/z/c.2.0.0.0", "payload.txt"])
def test_a_shared_artifact_keeps_its_name_whichever_recipe_repairs_it(flowctl, store, ran, tiny, file):
    """Bank and teacher of `tiny` are used by `other` too, and `verify other --repair` finds the damage."""
    other = Path(tiny).with_name("other.yaml")
    text = Path(tiny).read_text().replace("name: tiny", "name: other")
    other.write_text(text.replace("coupling: nfm", "coupling: nfm\n  label_drop: 0.3"))
    bank = root(store, "bank")
    before = content(bank)
    flip(bank / file)
    result = flowctl("verify", other, "--repair")
    assert result.exit_code == 0, result.output
    assert root(store, "bank") == bank and content(bank) == before
    records = [json.loads(path.read_text()) for path in sorted((store.home / "runs").glob("run-*.json"))]
    assert sorted((facts["command"], facts["name"]) for facts in records) == [("repair", "other"), ("run", "tiny")]
    (repair,) = (facts for facts in records if facts["command"] == "repair")  # both may be of one second
    assert repair["outcome"].endswith("1 resumed")


def test_without_a_known_recipe_it_says_what_to_do(flowctl, store, ran, tiny):
    for run in (store.home / "runs").iterdir():
        run.unlink()
    teacher = root(store, "teacher")
    flip(teacher / "payload.txt")
    result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and ran == [] and teacher.exists()
    assert f"not repaired: teacher/{teacher.name}: No known recipe produces it" in result.stdout
    assert "`flowctl verify RECIPE --repair`" in result.stdout and "1 of 7 artifacts damaged" not in result.stderr
    assert "still damaged" in result.stderr
    assert flowctl("verify", tiny, "--repair").exit_code == 0 and ran == ["teacher"]


def test_a_run_record_that_cannot_be_read_is_named(flowctl, store, ran):
    (whole,) = (store.home / "runs").glob("run-*.json")
    record = whole.with_name("run-0.json")
    record.write_bytes(whole.read_bytes()[:100])
    result = flowctl("verify")
    assert result.exit_code == 1 and f"damaged: {record}" in result.stdout and "still damaged" not in result.stderr
    flip(root(store, "teacher") / "payload.txt")  # what can be repaired is, and the record is still damaged
    assert flowctl("verify", "--repair").exit_code == 1 and ran == ["teacher"]


def test_what_is_in_use_is_left_alone(flowctl, store, ran, tiny, monkeypatch):
    """By the process that makes it, and by a run that may be reading it."""
    teacher = root(store, "teacher")
    flip(teacher / "payload.txt")
    damaged = content(teacher)
    with store.lock("teacher", teacher.name[-12:], pytest.fail):
        result = flowctl("verify", "--repair")
    assert result.exit_code == 1
    assert f"not repaired: teacher/{teacher.name}: It is in use by process {os.getpid()}" in result.stdout
    going_on = RunRecord(store.home, load(tiny).model_dump(mode="json"), _plan(tiny), None)
    result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and "which runs tiny. Wait until that ends" in result.stdout
    assert ran == [] and content(teacher) == damaged
    going_on.end("1 run")
    assert flowctl("verify", "--repair").exit_code == 0 and ran == ["teacher"]


def _plan(tiny: str):
    from flows.session.session import Session

    session = Session.open(load(tiny))
    return outline(plan(session.nodes, session.store))


def test_a_stage_that_fails_leaves_nothing_damaged_to_be_believed(flowctl, store, ran, monkeypatch):
    teacher = root(store, "teacher")
    flip(teacher / "payload.txt")
    monkeypatch.setenv("FAKES", '{"teacher": {"fail": "StageFailed"}}')
    result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and "not repaired: teacher/" in result.stdout and "not finite" in result.stdout
    assert not teacher.exists()
    kept = Path(result.stdout.partition("The damaged one lies in ")[2].partition(" until")[0])
    assert (kept / "payload.txt").is_file()  # it may be all that there is
    monkeypatch.delenv("FAKES")
    assert flowctl("verify").exit_code == 0  # what is left is valid; the next run makes the rest


def test_what_cannot_be_made_again_here_is_left_where_it_is(flowctl, store, ran, monkeypatch):
    """A device that this machine lacks, and an error of the disk, end the repair of one artifact alone."""
    teacher = root(store, "teacher")
    flip(teacher / "payload.txt")
    for error in (
        RecipeError("compute.device must be here", "cuda", "Go there"),
        OSError(28, "No space left on device"),
    ):
        monkeypatch.setattr("pipeline.runtime.device.check_asked", Mock(side_effect=error))
        result = flowctl("verify", "--repair")
        assert result.exit_code == 1 and "not repaired: teacher/" in result.stdout
        assert teacher.exists() and flowctl("verify").exit_code == 1


def test_ctrl_c_keeps_the_shards_that_were_valid(flowctl, store, ran, tiny, monkeypatch):
    bank = root(store, "bank")
    before = content(bank)
    for shard in (1, 3):
        flip(bank / f"bank.zarr/z/c.{shard}.0.0.0")
    working = dag.Stage.module

    def signalled(stage):
        run = working(stage).run
        return types.SimpleNamespace(run=lambda job: os.kill(os.getpid(), signal.SIGINT) or run(job))

    with monkeypatch.context() as patch:
        patch.setattr(dag.Stage, "module", signalled)
        result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and ran == ["bank", 1]
    assert "Stopped (Ctrl-C) during the repair of bank" in result.stderr
    (step,) = (step for step in json.loads(flowctl("plan", tiny, "--json").stdout) if step["stage"] == "bank")
    assert step["action"] == "resume"
    make_all(load(tiny))
    assert ran == ["bank", 1, "bank", 3] and content(bank) == before


def test_damaged_work_is_dropped_and_the_rest_kept(flowctl, store, ran, tiny):
    bank = root(store, "bank")
    before = content(bank)
    work = store.work("bank", bank.name[-12:])
    work.mkdir(parents=True)
    bank.rename(work / "out")
    (work / "out/bank.zarr/bank.json").unlink()
    (work / "checkpoints").mkdir()
    (work / "checkpoints/step-1.json").write_text('{"torn')
    (work / "scores.json").write_text("5")
    flip(work / "out/bank.zarr/z/c.2.0.0.0")
    result = flowctl("verify")
    assert result.exit_code == 1 and f"damaged: {work}: out/bank.zarr/z/c.2.0.0.0" in result.stdout
    assert "1 of 7 artifacts and work directories damaged" in result.stderr
    assert flowctl("verify", tiny, "--repair").exit_code == 0 and ran == []
    assert not list((work / "checkpoints").iterdir()) and not (work / "scores.json").exists()
    result = flowctl("verify")
    assert result.exit_code == 0 and "The saved progress of 1 unfinished stages is intact." in result.stdout
    make_all(load(tiny))
    assert ran == ["bank", 2] and content(bank) == before


def test_work_that_goes_on_is_not_looked_at(flowctl, store, tiny):
    prefix = root(store, "bank").name[-12:]
    work = store.work("bank", prefix)
    (work / "checkpoints").mkdir(parents=True)
    (work / "checkpoints/step-1.json").write_text("being written")
    with store.lock("bank", prefix, pytest.fail):
        assert flowctl("verify").exit_code == 0
    assert flowctl("verify").exit_code == 1


@pytest.mark.parametrize(
    ("stage", "file", "made"), [("teacher", "payload.txt", ["teacher"]), ("bank", "bank.zarr/z/c.2.0.0.0", ["bank", 2])]
)
def test_what_another_process_has_repaired_meanwhile_is_not_run_twice(store, ran, tiny, stage, file, made):
    from flows.session.display import Display
    from flows.upkeep.repair import Repairs

    flip(root(store, stage) / file)
    first, second = (Repairs(store, [load(tiny)], Display()) for _ in range(2))
    findings = [repairs.inspect(root(store, stage)) for repairs in (first, second)]
    assert "every byte as recorded" in first.repair(findings[0])
    assert second.repair(findings[1]) == "repaired by another process, every byte as recorded"
    assert ran == made


@pytest.mark.parametrize("again", [False, True])
def test_artifacts_that_others_remove_or_replace_meanwhile_hide_no_damage(flowctl, store, tiny, monkeypatch, again):
    """`rm` or `--force` of the teacher, while it is read."""
    bank = root(store, "bank")
    flip(bank / "payload.txt")
    read, teacher = inspection.sha256_file, root(store, "teacher")

    def meanwhile(file):
        if file.parent == teacher and file.exists() and not done:
            done.append(store.discard(teacher))
            if again:
                make_all(load(tiny))
        return read(file)

    done = []
    monkeypatch.setattr(inspection, "sha256_file", meanwhile)
    result = flowctl("verify")
    assert result.exit_code == 1 and done and f"damaged: {bank}: payload.txt" in result.stdout
    assert result.stdout.count("damaged: ") == 1 and f"1 of {7 if again else 6} artifacts damaged" in result.stderr


def test_a_recipe_means_all_runs_of_its_name_and_itself(flowctl, store, tiny):
    """Damage to a run that `--set` made other than the recipe is found too."""
    other = make_all(load(tiny, ["student.label_drop=0.3"]))
    record(other)
    (made,) = store.directories("student", other.nodes["student"].fingerprint)
    flip(made / "payload.txt")
    for name in (tiny, "tiny"):
        result = flowctl("verify", name)
        assert result.exit_code == 1 and f"damaged: {made}: payload.txt: SHA-256 differs" in result.stdout
        assert "1 of 10 artifacts damaged" in result.stderr
    assert flowctl("verify", tiny, "--repair").exit_code == 0
    assert flowctl("verify", "tiny").stdout.startswith("10 artifacts, ")


def test_runs_of_a_shipped_recipe_with_other_settings_are_its_own(flowctl, store, tiny, monkeypatch):
    monkeypatch.setattr("flows.session.recipes.shipped", lambda: ["tiny"])
    monkeypatch.setattr("flows.upkeep.references.load", lambda name: load(tiny, ["student.label_drop=0.3"]))
    tree = load(tiny, ["student.label_drop=0.3"]).model_dump(mode="json")
    monkeypatch.setattr("flows.session.recipes.read", lambda name: tree)
    flip(root(store, "student") / "payload.txt")
    result = flowctl("verify", "tiny")
    assert result.exit_code == 1, result.output


@pytest.mark.parametrize("name", ["nfm-cifar10", "tiny.yaml"])
def test_a_recipe_of_which_nothing_is_made_is_not_valid_but_missing(flowctl, home, tiny, name):
    result = flowctl("verify", name if name == "nfm-cifar10" else tiny)
    assert result.exit_code == 2 and f"results in {home}" in result.stderr
    assert "all digests match" not in result.stdout


def test_unknown_names_are_answered_with_each_known_one_once(flowctl, store):
    for _ in range(3):
        record(make_all(load(str(store.home.parent / "tiny.yaml"))))
    for command in ("verify", "rm"):
        result = flowctl(command, "zzzzz")
        assert result.exit_code == 2 and len(re.findall(r" tiny\b(?!-)", result.stderr)) == 1


def test_a_recipe_on_record_is_known_by_its_name(flowctl, store):
    assert flowctl("verify", "tiny").stdout.startswith("7 artifacts, ")
    assert "Did you mean 'tiny'?" in flowctl("verify", "tinny").stderr


def test_what_a_newer_version_made_is_not_repaired_away(flowctl, store, ran):
    manifest = root(store, "teacher") / "artifact.json"
    facts = {name: value for name, value in json.loads(manifest.read_text()).items() if name != "checksum"}
    manifest.write_text(json.dumps(facts | {"schema_version": 2}))
    before = manifest.read_bytes()
    result = flowctl("verify", "--repair")
    assert result.exit_code == 1 and "by a newer flowctl" in result.stderr + result.stdout
    assert manifest.read_bytes() == before and ran == []
