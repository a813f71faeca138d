"""A node's artifact on a remote: whether it is valid there, and its transfer into the store."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.engine.dag import Node
from pipeline.engine.rerun import check_metrics
from pipeline.runtime.job import Listener, Progress, StopSignal
from storage.artifact import Artifact
from storage.errors import Interrupted
from storage.remote import Remote
from storage.store import Store

MB = 10**6  # bytes


def offered(node: Node, remote: Remote) -> Artifact | None:
    """The manifest of the node's artifact on `remote`; None if there is none. It has no `root` in the store.

    Raises DamageError that names the flaw of manifest, metrics or sizes; RemoteError if the remote does not answer.
    """
    artifact = remote.find(node.name, node.fingerprint)
    if artifact is not None:
        check_metrics(node, artifact, remote.address(artifact))
    return artifact


def fetched(
    node: Node, store: Store, remote: Remote, listeners: tuple[Listener, ...], stop: StopSignal
) -> Artifact | None:
    """Fetch the node's artifact into the store; None if `remote` has none. Call under the stage's lock.

    Every byte is compared with the manifest before the artifact gets its name. A fetch that was killed or stopped
    resumes from the files that had arrived. Raises as `offered`; Interrupted on a stop signal.
    """
    artifact = offered(node, remote)
    if artifact is None:
        return None
    work = store.work(node.name, node.fingerprint)
    work.mkdir(parents=True, exist_ok=True)
    report = Progress(node.name, work, listeners)
    remote.fetch(artifact, work / "fetched", Transfer(artifact, "fetched", report, stop))
    return store.publish(artifact, work / "fetched")


class Transfer:
    """Counts bytes as they are transferred: reports megabytes done, in total, and their unit; raises on a stop signal.

    `verb` says what happens to the artifact: "fetched" or "sent".
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
                f"Stopped ({self.stop.reason}) while {self.artifact.stage} was {self.verb}. Finished files are saved"
            )
