"""What lies on a remote, for the commands that list, verify and mend it."""

from __future__ import annotations

from dataclasses import dataclass

from storage.artifact import MANIFEST
from storage.errors import DamageError, InputError
from storage.remote import Remote, default_remote
from storage.store import PREFIX, Store


@dataclass(frozen=True)
class Damaged:
    """An artifact of a remote that is not as recorded: by URL, what is wrong."""

    stage: str
    fingerprint: str
    flaws: dict[str, str]


def named() -> Remote:
    """The remote that the environment names. Raises InputError if it names none."""
    remote = default_remote()
    if remote is None:
        raise InputError(
            "--remote looks at the remote that FLOWCTL_REMOTE names",
            None,
            "Set it: export FLOWCTL_REMOTE=s3://bucket/prefix",
        )
    return remote


def title(stage: str, fingerprint: str, name: str = "") -> str:
    """An artifact as commands name it."""
    return f"{stage}/{name}-{fingerprint[:PREFIX]}" if name else f"{stage}/{fingerprint[:PREFIX]}"


def wanted(remote: Remote, name: str | None) -> list[tuple[str, str]]:
    """Stage and fingerprint of all artifacts, or of the one with this name or these digits of its fingerprint."""
    keys = remote.keys()
    if name is None:
        return keys
    digits = name.rstrip("/").rpartition("/")[2].rpartition("-")[2]
    found = [
        (stage, mark)
        for stage, mark in keys
        if len(digits) >= 6 and mark.startswith(digits) and ("/" not in name or name.startswith(stage + "/"))
    ]
    if not found:
        raise InputError(
            "verify --remote takes an artifact's name or six digits of its fingerprint",
            name,
            "`flowctl list --remote` shows them",
        )
    return found


def damaged(remote: Remote, stage: str, fingerprint: str) -> Damaged | None:
    """Read every byte of an artifact; None if all of it is as recorded, or if it is not there."""
    try:
        artifact = remote.manifest(stage, fingerprint)
    except DamageError as damage:
        return Damaged(stage, fingerprint, {damage.what: str(damage.found)})
    flaws = remote.flaws(artifact) if artifact is not None else {}
    return (
        Damaged(stage, fingerprint, {remote.address(artifact, path): flaw for path, flaw in flaws.items()})
        if flaws
        else None
    )


def mend(remote: Remote, item: Damaged, store: Store) -> str:
    """Take it out of the remote, and send it again if the store has it, whole; what was done, in words."""
    files = [where for where in item.flaws if not where.endswith("/" + MANIFEST)]
    remote.retract(item.stage, item.fingerprint, files)
    name = title(item.stage, item.fingerprint)
    try:
        artifact = store.find(item.stage, item.fingerprint)
        if artifact is not None:
            remote.send(artifact)
            return f"{name}: sent again from {store.home}"
    except DamageError as damage:
        return f"{name}: taken out; it is damaged here too: {damage}"
    return f"{name}: taken out; a run that has it sends it again, and one that does not makes it"
