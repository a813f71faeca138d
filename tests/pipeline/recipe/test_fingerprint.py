from typing import Annotated

import pytest
from pydantic import BaseModel

from pipeline.recipe.fingerprint import (
    AddedLater,
    NotFingerprinted,
    Verifies,
    differences,
    fingerprint,
    fingerprint_fields,
)


class Old(BaseModel):
    lr: float = 1e-3
    workers: Annotated[int, NotFingerprinted] = 2


class New(Old):
    dropout: Annotated[float, AddedLater(0.0)] = 0.0


def of(config, version=1, inputs=None, external=None, stage="student"):
    return fingerprint(stage, version, config, inputs or {}, external)


def test_incidental_fields_change_nothing():
    assert of(Old(workers=1)) == of(Old(workers=64))


def test_an_added_field_at_its_neutral_value_keeps_old_fingerprints():
    assert of(New()) == of(Old())
    assert of(New(dropout=0.1)) != of(Old())


@pytest.mark.parametrize(
    "other",
    [
        dict(config=Old(lr=2e-3)),
        dict(config=Old(), version=2),
        dict(config=Old(), inputs={"data": "ab"}),
        dict(config=Old(), external="x"),
        dict(config=Old(), stage="teacher"),
    ],
)
def test_everything_meaningful_changes_it(other):
    assert of(**other) != of(Old())


def test_types_never_collide():
    class Any_(BaseModel):
        value: object

    values = [1, 1.0, True, "1", None, [1], ["1"], {"1": 1}, [[]], [], ""]
    assert len({of(Any_.model_construct(value=value)) for value in values}) == len(values)


def test_the_fingerprint_of_a_known_config_is_frozen():
    # A change here orphans every artifact in every store: raise SCHEME knowingly.
    assert of(Old()) == "bd9c6551f3975d30f7e406f4ea18dc7a332423791614f17e661492cfea020b40"


def test_differences_name_the_path_and_both_values():
    old, new = {"training": {"lr": 1, "batch": 2}}, {"training": {"lr": 3, "batch": 2}}
    assert differences(old, new) == ["training.lr: 1 -> 3"]


def test_meaning_leaves_incidental_fields_out():
    assert fingerprint_fields(Old()) == {"lr": 1e-3}


def test_what_only_verifies_changes_nothing():
    class Checked(Old):
        checksum: Annotated[str | None, Verifies] = None

    class Plain(Old):
        checksum: str | None = None

    assert of(Checked(checksum="sha256:12")) == of(Checked()) == of(Plain()) != of(Plain(checksum="sha256:12"))
