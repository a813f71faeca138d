"""Verification of every byte in the store: torn, flipped, missing and foreign files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage.artifact import MANIFEST, Artifact
from storage.atomic import ABSENT, sha256_file
from storage.bank.facts import FACTS, INDEX
from storage.bank.reopen import flaws as bank_flaws
from storage.checksummed_json import read_checksummed
from storage.errors import DamageError
from storage.store import PREFIX, Key

SCORES = "scores.json"  # of an evaluation
CHECKPOINTS = "*/step-*.json"  # of a training, and of a coupling that is refined before it
FOREIGN, LINK = "not in the manifest", "a link to somewhere else"


@dataclass(frozen=True)
class Finding:
    """Verification of one directory: of an artifact, with its manifest in `artifact` if valid, or of unfinished work.

    `flaws` maps files below `root` to their damage; empty if all is intact. `changed` is when the directory
    was last renamed or given a file, in nanoseconds: a replacement under its name is later.
    """

    root: Path
    key: Key
    changed: int | None
    artifact: Artifact | None = None
    flaws: dict[str, str] = field(default_factory=dict)

    def stands(self) -> bool:
        """Whether the directory is still the one inspected."""
        return self.changed is not None and _changed(self.root) == self.changed


def unchanged(root: Path, inspect: Callable[[Path], Finding]) -> Finding | None:
    """What `inspect` finds in a directory; None if it is gone, or was replaced or changed by others meanwhile."""
    before = _changed(root)
    try:
        finding = inspect(root)
    except FileNotFoundError:
        if before is not None and _changed(root) == before:
            raise
        return None
    return finding if finding.stands() else None


def inspect_artifact(root: Path) -> Finding:
    """Hold an artifact against its manifest, and its banks against their own checksums.

    A bank may be damaged although the manifest holds: where it was while its stage still worked on it.
    """
    key, changed, artifact = (root.parent.name, root.name[-PREFIX:]), _changed(root), None
    flaws: dict[str, str] = {}
    try:
        artifact = Artifact.read(root)
    except DamageError as damage:
        if damage.what in (str(root), str(root / MANIFEST)):
            flaws[MANIFEST] = "is missing" if not (root / MANIFEST).exists() else str(damage.flaw)
        else:  # the manifest holds, and a file is not there or not of its size
            artifact = Artifact.model_validate(json.loads((root / MANIFEST).read_bytes()))
    if artifact and (artifact.stage, artifact.fingerprint[:PREFIX]) != key:
        artifact, flaws[MANIFEST] = None, "it names another stage or fingerprint"
    recorded = {record.path: record for record in artifact.files} if artifact else {}
    for path, record in recorded.items():
        file = root / path
        if _is_link(file, root):
            flaws[path] = LINK
        elif not file.is_file():
            flaws[path] = "is missing"
        elif (size := file.stat().st_size) != record.size:
            flaws[path] = f"{size} bytes, recorded {record.size}"
        elif sha256_file(file) != record.sha256:
            flaws[path] = "SHA-256 differs from the recorded one"
    present = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    if artifact:
        flaws |= {path: FOREIGN for path in sorted(present - set(recorded) - {MANIFEST})}
    for bank in banks_in(root):
        for problem in bank_flaws(bank):
            flaws.setdefault((bank.relative_to(root) / problem.file).as_posix(), problem.flaw)
    return Finding(root, key, changed, artifact, flaws)


def inspect_work(work: Path) -> Finding:
    """Compare a stage's saved progress with its records: checkpoints, scores, shards. No process may write there."""
    flaws, changed = {}, _changed(work)
    if (work / SCORES).exists() and read_checksummed(work / SCORES) is None:
        flaws[SCORES] = "it does not have its checksum: they are measured again"
    for record in sorted(work.glob(CHECKPOINTS)):
        if not _covers_tensors(record):
            flaws[record.relative_to(work).as_posix()] = (
                "its digest is not that of the tensors: one of the two is damaged"
            )
    for bank in banks_in(work / "out"):
        for problem in bank_flaws(bank):
            flaws[(bank.relative_to(work) / problem.file).as_posix()] = problem.flaw
    return Finding(work, (work.parent.name, work.name), changed, None, flaws)


def _covers_tensors(record: Path) -> bool:
    """Whether a checkpoint's record and tensors are as they were written."""
    facts = read_checksummed(record)
    try:
        return facts is not None and sha256_file(record.with_suffix(".safetensors")) == facts["sha256"]
    except (*ABSENT, KeyError):
        return False


def _is_link(file: Path, root: Path) -> bool:
    """Whether something else, anywhere, may be read under this name."""
    return file.is_symlink() or not file.parent.resolve().is_relative_to(root.resolve())


def _changed(folder: Path) -> int | None:
    """None if it is gone."""
    try:
        return folder.stat().st_ctime_ns
    except FileNotFoundError:
        return None


def banks_in(root: Path) -> list[Path]:
    """The banks in a directory, by either of the files that make one, for the other may be lost."""
    return sorted({file.parent for name in (FACTS, INDEX) for file in root.glob(f"*/{name}")})


def below(folder: Path, finding: Finding) -> Iterator[str]:
    """The damaged files in `folder`, by their paths below it."""
    start = folder.relative_to(finding.root).as_posix() + "/"
    return (path.removeprefix(start) for path in finding.flaws if path.startswith(start))
