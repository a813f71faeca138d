"""Whatever a user gives or a store holds, the answer is a result or one line and an exit code. --debug shows more."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.recipe.load import load
from storage.artifact import MANIFEST, Artifact
from storage.errors import DamageError
from storage.inspection import inspect_artifact


def few_and_many(few: int, check: Callable[..., None], **strategies: st.SearchStrategy) -> tuple[Callable, Callable]:
    """A test of a few examples, and a slow one of a thousand."""

    def of(examples: int) -> Callable:
        quietly = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        return quietly(given(**strategies)(check))

    return of(few), pytest.mark.slow(of(1000))


READING = [
    ("list",),
    ("status",),
    ("results",),
    ("verify",),
    ("plan", "{tiny}", "--json"),
    ("results", "{tiny}"),
    ("show", "teacher/{name}"),
]


def leaves(tree: Any, path: str = "") -> list[str]:
    """`a.b.c` of every field that a recipe has."""
    if not isinstance(tree, dict):
        return [path]
    return [leaf for key, value in tree.items() for leaf in leaves(value, f"{path}.{key}" if path else key)] + [path]


FIELDS = sorted(
    {
        leaf
        for name in ("nfm-digits", "loom-digits", "sd-digits", "vp-digits")
        for leaf in leaves(load(name).model_dump(mode="json"))
        if leaf
    }
)
NASTY = [
    "null",
    "true",
    "-1",
    "0",
    "1",
    "3",
    "1e400",
    "-.inf",
    ".nan",
    "''",
    "[]",
    "{}",
    "[[[[]]]]",
    "[null]",
    "99999999999999999999",
    "1e-400",
    "2001-01-01",
    "2001-99-99",
    "!!binary aGk=",
    "!!set {a}",
    "!!python/none x",
    "{kind: loom}",
    "{kind: nfm, online: true}",
    "{1: 2}",
    "{null: 1}",
    "? [a]\n: b",
    "<<: {a: 1}",
    "&a [*a]",
    "%",
    "<script>",
    "../../etc/passwd",
    "/dev/zero",
    "[1, two, 3.0]",
    "9" * 5000,
    "0x" + "f" * 5000,
    "1:1:1:1",
    "~",
    "\u202e",
    "x" * 5000,
    "- a\n- b",
    "'",
    '"\\ud800"',
    "@",
    "`",
    "|",
    ">-",
    "[",
    "!<tag:x> 1",
    "1_000",
    "NO",
]


def said_in_one_line(result, codes=(0, 1, 2)) -> None:
    assert result.exit_code in codes, (result.exit_code, result.output, result.exception)
    assert "Traceback" not in result.output
    assert "This should not happen" not in result.output, result.output
    if result.exit_code:
        assert result.stderr.count("\n") >= 1
        last = result.stderr.splitlines()[-1]
        assert last.startswith("error: ") and len(last) < 20_000


def any_value_of_any_field(flowctl, home, field, value):
    result = flowctl("plan", "nfm-digits", "--json", "--set", f"{field}={value}")
    said_in_one_line(result, (0, 2))


test_any_value_of_any_field, test_any_value_of_any_field_1000 = few_and_many(
    30, any_value_of_any_field, field=st.sampled_from(FIELDS), value=st.sampled_from(NASTY) | st.text(max_size=20)
)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.datetimes()
KEYS = st.sampled_from(["name", "extends", "data", "student", "training", "source", "path", "coupling", "kind", "nfe"])
TREES = st.recursive(
    SCALARS | st.binary(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.sets(st.integers(), max_size=2)
        | st.dictionaries(KEYS | SCALARS, inner, max_size=4)
    ),
    max_leaves=12,
)


def any_recipe_file(flowctl, home, content):
    path = home.parent / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    said_in_one_line(flowctl("plan", path, "--json"), (0, 2))


test_any_recipe_file, test_any_recipe_file_1000 = few_and_many(
    30, any_recipe_file, content=TREES.map(yaml.dump) | st.text(max_size=60) | st.binary(max_size=60)
)


def any_tree_in_any_place_of_a_real_recipe(flowctl, home, changes):
    tree = load("nfm-digits").model_dump(mode="json")
    for field, value in changes:
        branch, (*parents, last) = tree, field.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {}) if isinstance(branch, dict) else {}
            branch = branch if isinstance(branch, dict) else {}
        branch[last] = value
    path = home.parent / "any.yaml"
    path.write_text(yaml.dump(tree))
    said_in_one_line(flowctl("plan", path, "--json"), (0, 2))


test_any_tree_in_any_place_of_a_real_recipe, test_any_tree_in_any_place_of_a_real_recipe_1000 = few_and_many(
    10,
    any_tree_in_any_place_of_a_real_recipe,
    changes=st.lists(st.tuples(st.sampled_from(FIELDS), TREES), min_size=1, max_size=3),
)


@pytest.mark.parametrize(
    "words",
    [
        ("plan",),
        ("run",),
        ("show",),
        ("sample",),
        ("compare",),
        ("nonsense",),
        ("--nonsense",),
        ("plan", "a", "b", "c"),
        ("run", "{tiny}", "--nproc", "0"),
        ("run", "{tiny}", "--nproc", "x"),
        ("run", "{tiny}", "--nnodes", "2"),
        ("run", "{tiny}", "--node-rank", "5"),
        ("sample", "{tiny}", "--count", "-1"),
        ("gc", "--older-than", "-1"),
        ("show", "../../../etc/passwd"),
        ("show", "teacher/../../x"),
        ("show", "\0"),
        ("rm", "../.."),
        ("verify", "/"),
        ("compare", "{tiny}", "{tiny}"),
        ("ui", "--port", "99999999"),
        ("plan", "{tiny}", "--set", "name=a/b"),
        ("run", "{tiny}", "--set", "name=../../x"),
        ("plan", "."),
        ("plan", "/"),
        ("plan", "/dev/null.yaml"),
    ],
)
def test_any_use_of_the_command_line(flowctl, tiny, words):
    result = flowctl(*(word.format(tiny=tiny) for word in words))
    assert result.exit_code in (0, 1, 2) and "Traceback" not in result.output
    assert "This should not happen" not in result.output


# -- what a store holds ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def replaced(tree: Any, draw: random.Random, value: Any) -> Any:
    """The tree with `value` somewhere in it."""
    if isinstance(tree, dict) and tree and draw.random() < 0.8:
        key = draw.choice(sorted(tree))
        return {**tree, key: replaced(tree[key], draw, value)}
    if isinstance(tree, list) and tree and draw.random() < 0.8:
        place = draw.randrange(len(tree))
        return [*tree[:place], replaced(tree[place], draw, value), *tree[place + 1 :]]
    return value


def forged(facts: Any) -> Any:
    """The same with the checksum that it should have, if it is a manifest at all."""
    try:
        return Artifact.model_validate({key: value for key, value in facts.items() if key != "checksum"}).model_dump(
            mode="json"
        )
    except (ValueError, AttributeError):
        return facts


def everything_is_said(flowctl, tiny: str, name: str) -> None:
    for words in READING:
        said_in_one_line(flowctl(*(word.format(tiny=tiny, name=name) for word in words)))


def any_manifest(flowctl, finished, tiny, stage, value, draw):
    """Of its right form and checksum, so that nothing but its content is odd; or of no form at all."""
    root = finished.store.find(stage, finished.nodes[stage].fingerprint).root
    manifest, whole = root / MANIFEST, (root / MANIFEST).read_bytes()
    try:
        manifest.write_text(json.dumps(forged(replaced(json.loads(whole), draw, value))))
        everything_is_said(flowctl, tiny, root.name)
    finally:
        manifest.write_bytes(whole)


test_any_manifest, test_any_manifest_1000 = few_and_many(
    6,
    any_manifest,
    stage=st.sampled_from(["data", "teacher", "bank", "evaluation", "report"]),
    value=JSON,
    draw=st.randoms(use_true_random=False),
)


def any_content_of_the_files_between_processes(flowctl, finished, tiny, content):
    """Run records, progress, what is saved, who holds a lock: nothing depends on them but what people see."""
    store, node = finished.store, finished.nodes["student"]
    work = store.work("student", node.fingerprint)
    work.mkdir(parents=True, exist_ok=True)
    (store.home / "runs").mkdir(exist_ok=True)
    for path in (
        work / "saved.json",
        work / "progress.json",
        work / "attempts.json",
        store.home / "runs/run-1.json",
        store.lock_path("student", node.fingerprint),
    ):
        path.write_bytes(content)
    try:
        everything_is_said(flowctl, tiny, "x")
        said_in_one_line(flowctl("gc"))
    finally:
        shutil.rmtree(work)


test_any_content_of_the_files_between_processes, test_any_content_of_the_files_between_processes_1000 = few_and_many(
    5,
    any_content_of_the_files_between_processes,
    content=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30),
)


@pytest.mark.parametrize("place", ["/etc/passwd", "../../../etc/passwd", "a/../../b", "", "a\0b"])
def test_a_manifest_names_no_file_outside_of_its_artifact(finished, place):
    root = finished.store.find("teacher", finished.nodes["teacher"].fingerprint).root
    facts = json.loads((root / MANIFEST).read_text())
    facts["files"][0]["path"] = place
    del facts["checksum"]
    (root / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(DamageError, match="must lie below its artifact"):
        Artifact.read(root)


@pytest.mark.parametrize("directory", [False, True])
def test_links_out_of_the_store_are_not_followed(flowctl, finished, tiny, tmp_path, directory):
    """Neither read, nor written, nor removed."""
    outside = tmp_path / "outside"
    root = finished.store.find("teacher", finished.nodes["teacher"].fingerprint).root
    shutil.copytree(root, outside)
    if directory:
        facts = json.loads((root / MANIFEST).read_text())
        facts["files"][0]["path"] = "folder/payload.txt"
        del facts["checksum"]
        (root / MANIFEST).write_text(json.dumps(facts))
        (root / "folder").symlink_to(outside)
    else:
        (root / "payload.txt").unlink()
        (root / "payload.txt").symlink_to(outside / "payload.txt")
    with pytest.raises(DamageError, match="a link"):
        finished.store.find("teacher", finished.nodes["teacher"].fingerprint)
    assert json.loads(flowctl("plan", tiny, "--json").stdout)[2]["action"] == "run"
    said_in_one_line(flowctl("verify"), (1,))
    remade(finished, "teacher")
    assert sorted(file.name for file in outside.iterdir()) == [MANIFEST, "payload.txt"]


@pytest.mark.parametrize("part", ["", "out", "checkpoints"])
def test_a_work_directory_that_is_a_link_harms_nothing_outside(finished, tmp_path, part):
    outside: Path = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine")
    (outside / "precious.partial").write_text("mine too")
    root = finished.store.find("teacher", finished.nodes["teacher"].fingerprint).root
    shutil.rmtree(root)
    work = finished.store.work("teacher", finished.nodes["teacher"].fingerprint)
    (work / part).parent.mkdir(parents=True, exist_ok=True)
    (work / part).symlink_to(outside)
    remade(finished, "teacher")
    assert sorted(file.name for file in outside.iterdir())[-2:] == ["precious.partial", "precious.txt"]


def remade(session, stage: str) -> None:
    from pipeline.engine.execute import execute

    node = session.nodes[stage]
    inputs = {role: session.store.find(role, source.fingerprint) for role, source in node.inputs.items()}
    found = execute(node, inputs, session.store, session.recipe.compute).artifact
    assert not inspect_artifact(found.root).flaws and not found.root.is_symlink()
    assert not any(path.is_symlink() for path in found.root.rglob("*"))
