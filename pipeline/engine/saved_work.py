"""Saved work of a stage, and the bytes of the inputs that it was made from.

A fingerprint says how an input was made. The same settings can give other bytes on another device or number of threads,
so work that is resumed must be of the very bytes that are read now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.artifact import MANIFEST, Artifact
from storage.atomic import fsync_path, read_facts, write_json
from storage.checksummed_json import json_digest
from storage.store import Store
from storage.trees import remove_tree

INPUTS = "inputs.json"


def contents(inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """A digest of the files of each input, by role."""
    return {
        role: json_digest(sorted((record.path, record.sha256) for record in artifact.files))
        for role, artifact in inputs.items()
    }


def changed_inputs(work: Path, given: Mapping[str, str]) -> list[str]:
    """The inputs of which the saved work was made from other bytes than `given`; none where it does not say."""
    before = read_facts(work / INPUTS)
    return [role for role, digest in given.items() if before.get(role, digest) != digest]


def read_by(artifact: Artifact, inputs: Iterable[Artifact]) -> bool:
    """Whether the stage of `artifact` read these inputs: all were there when it began, give or take a second, and none
    was made again since."""
    made = artifact.provenance
    latest = _time(made.created) - timedelta(seconds=max(made.wall_seconds - 1, 0))
    return all(_time(source.provenance.created) <= latest for source in inputs)


def time_to_record(
    now: datetime, seconds: float, fingerprint: str, inputs: Iterable[Artifact], store: Store
) -> datetime:
    """When an artifact was created that took `seconds`: now, unless a clock was set back or machines differ in theirs.

    Then it keeps the order of artifacts, which `read_by` and a remote go by: it comes after the one that it replaces
    and all that were made from that, and its stage began after its inputs were there.
    """
    times = [now, *(_time(source.provenance.created) + timedelta(seconds=seconds) for source in inputs)]
    for root in store.roots():
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: it is replaced as well
            manifest = json.loads((root / MANIFEST).read_bytes())
            if fingerprint in (manifest["fingerprint"], *manifest["inputs"].values()):
                times.append(_time(manifest["provenance"]["created"]) + timedelta(microseconds=1))
    return max(times)


def _time(created: str) -> datetime:
    time = datetime.fromisoformat(created)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def write_inputs(work: Path, given: Mapping[str, str]) -> None:
    """Write which bytes the work is made from."""
    write_json(work / INPUTS, dict(given))


def clear(work: Path, but: str) -> None:
    """Delete all saved work but one file. INPUTS goes last: what a crash leaves still says what it was made from."""
    for path in list(work.iterdir()):
        if path.name not in (but, INPUTS):
            remove_tree(path)
    fsync_path(work)
    (work / INPUTS).unlink(missing_ok=True)
