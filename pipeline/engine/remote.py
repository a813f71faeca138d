"""A node's artifact on a remote: whether it can be used, and how it comes into the store."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from pipeline.engine.dag import Node
from pipeline.runtime.job import Listener, Progress, StopSignal
from storage.artifact import Artifact
from storage.errors import DamageError, Interrupted
from storage.remote import Remote
from storage.store import Store

MB = 10**6  # bytes


def offered(node: Node, remote: Remote) -> Artifact | None:
    """The manifest of the node's artifact on `remote`, None if that has none. It is not in the store: it has no `root`.

    Raises DamageError with what does not hold of manifest, metrics or sizes; RemoteError where nothing can be asked.
    """
    artifact = remote.find(node.name, node.fingerprint)
    if artifact is not None:
        try:
            node.stage.result.model_validate(artifact.metrics)
        except ValidationError as error:
            raise DamageError(
                remote.address(artifact),
                f"metrics: {error.errors()[0]['msg']}",
                f"Remove it there, or make it anew: --force {node.name}",
            ) from None
    return artifact


def fetched(
    node: Node, store: Store, remote: Remote, listeners: tuple[Listener, ...], stop: StopSignal
) -> Artifact | None:
    """The node's artifact, in the store from now on; None if `remote` has none. To be called under the stage's lock.

    Every byte is held against the manifest before the artifact gets its name. A fetch that was killed or stopped goes
    on with the files that it had. Raises as `offered`; Interrupted if asked to stop.
    """
    artifact = offered(node, remote)
    if artifact is None:
        return None
    work = store.work(node.name, node.fingerprint)
    work.mkdir(parents=True, exist_ok=True)
    report = Progress(node.name, work, listeners)
    remote.fetch(artifact, work / "fetched", Moments(artifact, "fetched", report, stop))
    return store.publish(artifact, work / "fetched")


class Moments:
    """Told of bytes as they move: calls `report` with the megabytes done, all of them and a unit, and leaves where a
    stop is asked for. `verb` is what happens to the artifact: fetched, or sent.
    """

    def __init__(
        self, artifact: Artifact, verb: str, report: Callable[[int, int, str], None], stop: StopSignal
    ) -> None:
        self.artifact, self.verb, self.report, self.stop = artifact, verb, report, stop
        self.done, self.total = 0, sum(record.size for record in artifact.files)

    def __call__(self, size: int) -> None:
        self.done += size
        self.report(-(-self.done // MB), -(-self.total // MB), f"MB {self.verb}")
        if self.stop:
            raise Interrupted(
                f"Stopped ({self.stop.reason}) while {self.artifact.stage} was {self.verb}. What has "
                "come over is kept: run the same command again to go on"
            )
