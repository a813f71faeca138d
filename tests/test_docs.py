"""The documentation names files, functions, links and commands that exist."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from flows.cli import app
from flows.session.recipes import sweep
from pipeline.recipe.load import load, shipped
from storage.errors import MissingError
from tests.flows.faults import fault

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = "models|storage|pipeline|flows|benchmarks|tests"
SHELL = ("&", "&&", "|", ">")  # what ends a command's arguments
READERS = {"plan", "list", "show", "results", "runs", "status", "diff", "bank"}  # commands that change nothing
USAGE_ERROR = typer.BadParameter.__base__  # click's, which newer versions of Typer bring with them
COMMANDS = typer.main.get_command(app)


def named(text: str) -> list[str]:
    """The inline code and the lines of code blocks of a page."""
    blocks = re.findall(r"^(?: {4}|\t)(.*)$", text, re.MULTILINE)
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text) + blocks + [line for block in fenced for line in block.splitlines()]


@cache
def names_in(path: Path) -> dict[str, ast.AST]:
    """What a module or class body binds, by name."""
    return bound(ast.parse(path.read_text()).body)


def bound(body: list[ast.stmt]) -> dict[str, ast.AST]:
    names: dict[str, ast.AST] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return names


def has(path: Path, attributes: list[str]) -> bool:
    """Whether a module has a name, or a class of it an attribute: `Loop.training_step`."""
    names = names_in(path)
    for attribute in attributes:
        if attribute not in names:
            return False
        names = bound(getattr(names[attribute], "body", []))
    return True


def exists(dotted: str) -> bool:
    """Whether `pipeline.engine.dag.build` is a module, or a name in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.with_suffix(".py").is_file():
            return has(path.with_suffix(".py"), parts[count:])
        if (path / "__init__.py").is_file():
            return has(path / "__init__.py", parts[count:])
        if path.is_dir():
            return count == len(parts)
    return False


def missing_paths(text: str) -> list[str]:
    wrong = []
    for code in named(text):
        for path, name in re.findall(
            rf"(?<![\w./-])((?:(?:{ROOMS}|docs)/|[\w/-]*\w\.py\b)[\w./-]*)(?:::?([\w.]+))?", code
        ):
            places = [folder / path for folder in (ROOT, ROOT / "tests") if (folder / path).exists()]
            if not places or (name and not name.isdigit() and not has(places[0], name.split("."))):
                wrong.append(f"{path}:{name}" if name else path)
    return wrong


def missing_modules(text: str) -> list[str]:
    dotted = {
        name.rstrip(".") for code in named(text) for name in re.findall(rf"(?<![\w./-])(?:{ROOMS})(?:\.\w+)+", code)
    }
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and re.match(rf"(?:{ROOMS})\b", node.module or ""):
                dotted |= {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(name for name in dotted if not exists(name) and not re.search(r"\.(json|md|yaml)$", name))


def anchors(page: Path) -> set[str]:
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }


def missing_links(page: Path) -> list[str]:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    assert not missing_paths(text) + missing_modules(text) + missing_links(page)


def test_wrong_names_are_noticed(tmp_path):
    text = (
        "`pipeline/engine/dag.py:build` `storage/nothing.py` `tests.tiny` `test_gone.py`\n"
        "`pipeline.engine.dag.nothing` `pipeline/training/_loop.py:Loop.training_step`\n"
        "`pipeline/training/_loop.py:Loop.gone`\n"
        "`test_docs.py::test_gone` `test_docs.py::test_wrong_names_are_noticed`\n"
    )
    assert missing_paths(text) == [
        "storage/nothing.py",
        "test_gone.py",
        "pipeline/training/_loop.py:Loop.gone",
        "test_docs.py:test_gone",
    ]
    assert missing_modules(text) == ["pipeline.engine.dag.nothing"]
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](#two) [c](gone.md) [d](page.md) [e](https://example.org)")
    assert missing_links(page) == ["#two", "gone.md"]


# -- commands ------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """The arguments of every `flowctl …` of a page."""
    found = []
    for code in named(text):
        code = re.sub(r"^(?:[A-Z_]+=\S+ +)*(?:\.venv/bin/)?(?=flowctl )", "", code.strip().lstrip("$ "))
        if code.startswith("flowctl ") and "…" not in code.partition("#")[0].replace("A B …", ""):
            words = shlex.split(code.replace("A B …", "A B"), comments=True)[1:]
            found.append(list(takewhile(lambda word: word not in SHELL, words)))
    return found


EVERY = list(
    dict.fromkeys(
        tuple(words) for page in PAGES if page.name != "CHANGELOG.md" for words in commands(page.read_text()) if words
    )
)


def parsed(words: list[str]):
    """The command's context, as its parser leaves it; nothing is run. Raises click's errors.

    A command that is only named, such as `bank inspect`, may lack its arguments.
    """
    context, group, rest = None, COMMANDS, list(words)
    name = "flowctl"
    while True:
        context = group.make_context(name, rest, parent=context, resilient_parsing=not rest)
        rest = [*context._protected_args, *context.args] if hasattr(group, "commands") else []
        if not rest:
            return context
        name, group, rest = group.resolve_command(context, rest)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_of_the_docs_is_one(words):
    context = parsed(words)
    given = context.params
    recipes = [given.get("recipe"), *(given.get("recipes") or ())]
    for recipe in recipes:
        if isinstance(recipe, str) and recipe.partition("@")[0] in shipped():
            sweep(recipe.partition("@")[0], given.get("set_") or ())


@pytest.mark.parametrize("words", [("run", "nfm-digits", "--gone"), ("gone",), ("bank", "gone"), ("diff", "one")])
def test_a_wrong_command_is_noticed(words):
    with pytest.raises(USAGE_ERROR):
        parsed(words)


READING = [words for words in EVERY if words[0] in READERS and len(words) > 1 and "--remote" not in words]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_commands_that_only_read_run_on_an_empty_store(words, tmp_path, monkeypatch):
    """They answer, or name the recipe or file that does not exist yet."""
    for name in ("FLOWCTL_REMOTE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWCTL_HOME", str(tmp_path / "store"))
    monkeypatch.setattr("flows.cli.plan._print_estimates", lambda *ahead: None)  # seconds, and has its own tests
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("extends: nfm-digits\nname: mine\n")
    result = CliRunner().invoke(app, list(words))
    if result.exit_code:
        assert isinstance(fault(result), MissingError)
    else:
        assert result.stdout


def overrides_in(text: str) -> list[str]:
    """What the comments of a recipe give to `--set`."""
    comments = " ".join(line.partition("#")[2] for line in text.splitlines())
    return [quoted or bare for quoted, bare in re.findall(r"--set (?:'([^']+)'|([\w.]+=[\w./-]*\w))", comments)]


COMMENTED = [
    (name, override)
    for name in shipped()
    for override in overrides_in((ROOT / f"pipeline/recipes/{name}.yaml").read_text())
]


@pytest.mark.parametrize(("name", "override"), COMMENTED)
def test_the_overrides_in_the_comments_of_recipes_can_be_made(name, override):
    assert load(name, [override]) != load(name)


def test_overrides_in_comments_are_noticed():
    assert overrides_in("a: 1  # or --set data.size=14, or\nb: 2  # --set 'c=[1, 2]'.") == ["data.size=14", "c=[1, 2]"]
    assert {name for name, _ in COMMENTED} >= {"nfm-cifar10", "nfm-fashion", "nfm-imagenet64"}
