"""Artifacts on a remote, for the commands that list, verify and repair them."""

from __future__ import annotations

from dataclasses import dataclass

from storage.artifact import MANIFEST, NewerFormat
from storage.errors import DamageError, MissingError, UsageError
from storage.remote import Remote, default_remote
from storage.store import PREFIX, Store


@dataclass(frozen=True)
class Damaged:
    """An artifact of a remote that differs from its manifest; `flaws` says by URL how."""

    stage: str
    fingerprint: str
    flaws: dict[str, str]


def named() -> Remote:
    """The remote that the environment names. Raises UsageError if it names none."""
    remote = default_remote()
    if remote is None:
        raise UsageError("--remote needs FLOWCTL_REMOTE", None, "Set it: export FLOWCTL_REMOTE=s3://bucket/prefix")
    return remote


def title(stage: str, fingerprint: str, name: str = "") -> str:
    """An artifact's name in commands."""
    return f"{stage}/{name}-{fingerprint[:PREFIX]}" if name else f"{stage}/{fingerprint[:PREFIX]}"


def selected(remote: Remote, name: str | None) -> list[tuple[str, str]]:
    """Stage and fingerprint of all artifacts, or of the one with this name or these digits of its fingerprint."""
    keys = remote.keys()
    if name is None:
        return keys
    digits = name.rstrip("/").rpartition("/")[2].rpartition("-")[2]
    chosen = [
        (stage, mark)
        for stage, mark in keys
        if len(digits) >= 6 and mark.startswith(digits) and ("/" not in name or name.startswith(stage + "/"))
    ]
    if not chosen:
        raise MissingError(
            "verify --remote takes an artifact's name or six digits of its fingerprint",
            name,
            "`flowctl list --remote` shows them",
        )
    return chosen


def damaged(remote: Remote, stage: str, fingerprint: str) -> Damaged | None:
    """Read every byte of an artifact; None if all are as recorded, or if it does not exist.

    Raises NewerFormat if only a newer version can read it: that is no damage, and a repair would lose it.
    """
    try:
        artifact = remote.manifest(stage, fingerprint)
    except NewerFormat:
        raise
    except DamageError as damage:
        return Damaged(stage, fingerprint, {damage.what: str(damage.flaw)})
    if artifact is None:
        return None
    flaws = remote.flaws(artifact)
    return (
        Damaged(stage, fingerprint, {remote.address(artifact, path): flaw for path, flaw in flaws.items()})
        if flaws
        else None
    )


def restore(remote: Remote, item: Damaged, store: Store) -> str:
    """Delete an artifact from the remote and upload a valid local copy, if any. Returns the action in words."""
    files = _retract(remote, item)
    name = title(item.stage, item.fingerprint)
    try:
        artifact = store.find(item.stage, item.fingerprint)
        if artifact is not None:
            remote.send(artifact)
            # Without a manifest the objects could not be checked; those of the right size are still there.
            if not files and (left := damaged(remote, item.stage, item.fingerprint)) is not None:
                _retract(remote, left)
                remote.send(artifact)
            return f"{name}: sent again from {store.home}"
    except DamageError as damage:
        return f"{name}: removed; it is damaged here too: {damage}"
    return f"{name}: removed; the next run that has it sends it again"


def _retract(remote: Remote, item: Damaged) -> list[str]:
    """Take out its manifest and the damaged objects; the URLs of these."""
    files = [where for where in item.flaws if not where.endswith("/" + MANIFEST)]
    remote.retract(item.stage, item.fingerprint, files)
    return files
