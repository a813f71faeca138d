"""From a recipe's name or file and `--set` overrides to a validated Recipe, with errors that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.recipe.faults import faults
from pipeline.recipe.faults import nearest as nearest
from pipeline.recipe.fields import of_kind, sections_at, types_at
from pipeline.recipe.parse import parse_recipe, parse_value
from pipeline.recipe.recipe import Recipe
from storage.errors import MissingError, RecipeError
from storage.text import decodable

SHIPPED = Path(__file__).parents[1] / "recipes"
MAX_DEPTH = 4  # recipes that extend one another
MAX_BYTES = 256 * 1024
_SUFFIXES = (".yaml", ".yml")


class InvalidRecipe(RecipeError):
    """A recipe with faults. `value` lists them; each names its own field and value."""

    def __init__(self, source: str, lines: Sequence[str]) -> None:
        remedy = "Correct the fields named; `flowctl show RECIPE` prints a whole valid recipe."
        super().__init__(f"Recipe {source} is not valid: {'; '.join(lines)}", list(lines), remedy)
        self.args = (f"{self.rule}{'' if self.rule.endswith('?') else '.'} {remedy}",)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name or YAML file, after `a.b=value` overrides. Raises RecipeError for an
    invalid recipe, MissingError for one that does not exist.

    A recipe that `extends` another, by name or file, has all of its fields except those that it sets itself; a section
    set to null is left out. A relative file is looked up next to the file that names it.
    """
    return changed(read(recipe), overrides, recipe)


def read(recipe: str) -> dict[str, Any]:
    """The plain tree of a recipe by name or file, merged over those that it extends, not yet validated.

    A file that gives no name has its own: runs of two files that extend one recipe must not share a name.
    """
    path = _locate(recipe, Path())
    return _extended({"name": as_name(path.stem), **_read(path)}, (path,))


def as_name(text: str) -> str:
    """The text with each run of characters that names must not have as one dash."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)


def changed(tree: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    """The recipe of a plain tree, which is changed in place by `a.b=value` overrides. Raises RecipeError.

    An override with another seed than the tree's also changes the name: `a` at seed 1 is `a@1`.
    """
    own, name = tree.get("seed", 0), tree.get("name")
    for text in overrides:
        override(tree, text)
    recipe = validate(tree, source)
    if recipe.name != name and (base := recipe.name.partition("@")[0]) in shipped():
        raise RecipeError("The name of a run must not be that of another shipped recipe", base, "Choose another name.")
    if recipe.seed != own:
        recipe = recipe.model_copy(update={"name": f"{recipe.name.partition('@')[0]}@{recipe.seed}"})
    base, _, number = recipe.name.partition("@")
    if number not in ("", str(recipe.seed)):
        rule = "A name that ends in @ and a number must be of that seed"
        raise RecipeError(rule, f"{recipe.name} at seed {recipe.seed}", f"Name it {base}, or set seed to {number}.")
    return recipe


def validate(tree: Any, source: str) -> Recipe:
    """A Recipe from a plain tree. Raises InvalidRecipe with all faults, unknown keys with the nearest known one."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise InvalidRecipe(source, faults(error.errors(include_url=False))) from None


def _locate(recipe: str, folder: Path) -> Path:
    if recipe.endswith(_SUFFIXES):
        path = (folder / Path(recipe).expanduser()).absolute()
        if not path.is_file():
            raise MissingError("A recipe file must exist", str(path), "Check the path.")
        return path
    if recipe in shipped():
        return SHIPPED / f"{recipe}.yaml"
    raise MissingError("A recipe must be a YAML file or a shipped name", recipe, nearest(recipe, shipped()))


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise RecipeError(f"A recipe must have at most {MAX_BYTES} bytes", len(data), f"Check that {path} is a recipe.")
    tree = parse_recipe(data, f"Recipe {path.name}")
    if not isinstance(tree, dict):
        raise RecipeError("A recipe must be a map of sections", type(tree).__name__, "See `flowctl show nfm-digits`.")
    return tree


def _extended(tree: dict[str, Any], chain: tuple[Path, ...]) -> dict[str, Any]:
    """The tree merged over the recipe that it extends, and so on. `chain` holds the files read so far."""
    base = tree.pop("extends", None)
    if base is None:
        return tree
    rule = f"`extends` must name one other recipe, at most {MAX_DEPTH} deep and never in a circle"
    if not isinstance(base, str):
        raise RecipeError(rule, base, nearest(str(base), shipped()))
    path = _locate(base, chain[-1].parent)
    if path in chain or len(chain) > MAX_DEPTH:
        raise RecipeError(rule, base, "Remove an `extends`.")
    return _merged(_extended(_read(path), (*chain, path)), tree)


def _merged(below: dict[str, Any], above: dict[str, Any], location: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tree below with the values of the one above. A section of another kind inherits nothing."""
    merged = dict(below)
    for key, value in above.items():
        under, inside = merged.get(key), (*location, key)
        if isinstance(value, dict) and isinstance(under, dict) and not _other_kind(under, value, inside):
            value = _merged(under, value, inside)
        merged[key] = value
    return merged


def _other_kind(below: dict[str, Any], above: dict[str, Any], location: tuple[str, ...]) -> bool:
    """Whether a section gives another kind than the one below, whose keys then mean nothing."""
    kind = above.get("kind")
    if kind is None or "kind" in below:
        return kind not in (None, below.get("kind"))
    return not below.keys() <= {name for model in of_kind(sections_at(location), kind) for name in model.model_fields}


def override(tree: dict[str, Any], text: str) -> None:
    """Change one field of a plain tree by `a.b=value`. Raises RecipeError."""
    keys, value = split(text)
    branch: Any = tree
    for key in keys[:-1]:
        if branch.get(key) is None:  # a section that is left out
            branch[key] = {}
        branch = branch[key]
        if not isinstance(branch, dict):
            raise RecipeError("An override must name a field inside a section", text, f"{key!r} is not a section")
    branch[keys[-1]] = parse_value(value, types_at(keys, tree), f"The value of --set {'.'.join(keys)}")


def split(text: str) -> tuple[list[str], str]:
    """The path and the text of the value of `a.b=value`. Raises RecipeError for anything else."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            "An override must be --set section.field=value", text, "Example: --set student.training.lr=1e-4"
        )
    if not decodable(value):
        raise RecipeError(f"The value of --set {path} must be valid UTF-8", value, "Write it in UTF-8.")
    return keys, value
