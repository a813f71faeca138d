"""Repair damaged artifacts: of a bank whose inputs are still the same the bad shards alone, anything else by its stage,
as in `flowctl run`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

from flows.session.display import Display
from flows.session.interrupts import graceful_shutdown
from flows.session.recording import recording, run_stages
from flows.session.session import Session
from flows.upkeep.references import is_running, runs
from pipeline.engine.dag import IMAGES
from pipeline.engine.plan import plan
from pipeline.engine.saved_work import contents, read_by, write_inputs
from pipeline.recipe.recipe import Recipe
from pipeline.runtime.job import SAVED
from storage.artifact import MANIFEST, Artifact, NewerFormat
from storage.atomic import fsync_path, write_json
from storage.bank.facts import FACTS, Identity, read_json
from storage.bank.reopen import reopen
from storage.errors import BusyError, DamageError, FlowctlError, Interrupted
from storage.inspection import CHECKPOINTS, FOREIGN, LINK, SCORES, Finding, banks_in, below, inspect_artifact, unchanged
from storage.store import PREFIX, Key, Store
from storage.trees import move, remove_tree


class NoRecipe(FlowctlError):
    """No known recipe produces a damaged artifact."""


class SourcesChanged(FlowctlError):
    """The files outside the store that a damaged artifact was read from have changed or moved."""


class RepairStopped(Interrupted):
    """A stop signal during a repair. `flowctl run` resumes it, the same command does not: nothing is damaged now."""

    retryable = False


class Repairs:
    """One `flowctl verify --repair`.

    `recipes` may produce the damaged artifacts, most likely first; `inspected` holds the finding of each artifact that
    was read.
    """

    def __init__(self, store: Store, recipes: Sequence[Recipe], display: Display) -> None:
        self.store, self.recipes, self.display = store, recipes, display
        self.inspected: dict[Key, Finding] = {}
        self._same_bytes: dict[Key, Artifact] = {}  # of what was repaired to the bytes that it had: its old manifest

    def inspect(self, root: Path) -> Finding | None:
        """Read an artifact, again if it was replaced meanwhile, and remember the finding; None if it is gone."""
        while root.is_dir():
            if (finding := unchanged(root, inspect_artifact)) is not None:
                self.inspected[finding.key] = finding
                return finding
        return None

    def repair(self, finding: Finding) -> str:
        """Repair an artifact and, first, its inputs. Returns the action in words.

        Raises BusyError if it is in use, NoRecipe if no known recipe produces it, SourcesChanged if its sources are no
        longer there, and the errors of its stage.
        """
        self._check_unused(finding.key)
        self._check_version(finding)
        if set(finding.flaws.values()) == {FOREIGN}:
            with self._unused(finding.key):
                for path in finding.flaws if finding.stands() else ():
                    (finding.root / path).unlink(missing_ok=True)
            self.inspect(finding.root)
            return "foreign files removed"
        session = self._session(finding)
        if finding.key[0] not in IMAGES:
            from pipeline.runtime.device import check_asked  # torch, which takes seconds

            check_asked(session.recipe.compute)  # before anything is taken out of the way
        self._repair_inputs(session)
        with self._unused(finding.key):
            done, aside = self._make_room(finding, session) if finding.stands() else ("repaired by another process", [])
        try:
            artifact = self._run(session, finding.key[0])
        except FlowctlError as error:
            for root in aside:  # it must not be believed, but may be all that there is
                error.add_note(f"The damaged one lies in {root} until `flowctl gc --yes`.")
            raise
        for root in aside:
            remove_tree(root)
        again = self.inspect(artifact.root)
        if again is not None and again.flaws:
            raise DamageError(str(artifact.root), "corrupt immediately after writing", "Check the disk")
        if finding.artifact is not None and finding.artifact.files == artifact.files:
            self._same_bytes.setdefault(finding.key, finding.artifact)
        return f"{done}, {_comparison(finding.artifact, artifact)}"

    def repair_work(self, finding: Finding) -> str:
        """Drop the damaged part of a stage's saved work: the stage resumes from the rest."""
        with self._unused(finding.key):
            if not finding.stands():
                return "repaired by another process"
            for path in finding.flaws:
                if path == SCORES or fnmatch(path, CHECKPOINTS):
                    (finding.root / path).unlink(missing_ok=True)
                    (finding.root / path).with_suffix(".safetensors").unlink(missing_ok=True)
            for bank in banks_in(finding.root / "out"):
                try:
                    reopen(bank, set(below(bank, finding)))
                except DamageError:
                    self.store.discard(bank)
        return "damaged files dropped; `flowctl run` resumes from the rest"

    # -- which recipe produces it, and who uses it -----------------------------------------------------------------

    @contextmanager
    def _unused(self, key: Key) -> Iterator[None]:
        """Hold the lock of an artifact that no run needs. A run is recorded before it looks for artifacts, and does
        that under their locks: either its record is seen here, or it sees what was done under this lock."""
        with self.store.lock(*key, self._refuse):
            self._check_unused(key)
            yield

    def _check_unused(self, key: Key) -> None:
        for run in runs(self.store)[0]:
            if key in run.keys and is_running(run):
                self._refuse(run.process)

    @staticmethod
    def _check_version(finding: Finding) -> None:
        """Raises NewerFormat for an artifact that is not damaged, but that only a newer version can read."""
        try:
            Artifact.read(finding.root)
        except NewerFormat:
            raise
        except DamageError:
            pass

    def _refuse(self, holder: str) -> None:
        raise BusyError(f"It is in use by {holder}. Wait until that ends")

    def _session(self, finding: Finding) -> Session:
        """A session of a recipe that produces it, up to its stage, under the name that it has."""
        stage, prefix = finding.key
        # Sources may have changed or moved since; most stages do not read them. Today's first: records take reading.
        for recorded, recipe in product((False, True), self.recipes):
            here = recipe.compute.model_copy(update={"nnodes": 1, "node_rank": 0, "rendezvous": None})
            recipe = recipe.model_copy(update={"compute": here})
            try:
                session = Session.open(
                    recipe, until=stage, home=self.store.home, display=self.display, recorded=recorded
                )
            except FlowctlError:  # it has no such stage, or its images no longer exist and no run is on record
                continue
            node = session.nodes[stage]
            if node.fingerprint.startswith(prefix):
                if recorded and node.external is not None:
                    raise SourcesChanged(
                        "The files that it was read from have changed or moved. Put them back, "
                        f"or delete the artifact: `flowctl rm {stage}/{finding.root.name} --yes`"
                    )
                name = finding.root.name[: -PREFIX - 1]  # a shared artifact may have the name of another recipe
                session.nodes = {**session.nodes, stage: replace(node, label=name)}
                return session
        name = f"{stage}/{finding.root.name}"
        raise NoRecipe(
            "No known recipe produces it. Name the recipe: `flowctl verify RECIPE --repair`, "
            f"or delete the artifact: `flowctl rm {name} --yes`"
        )

    def _repair_inputs(self, session: Session) -> None:
        """A stage must not read damaged inputs: weight files carry no checksum."""
        *inputs, _ = session.nodes.values()
        for node in inputs:
            for root in self.store.directories(node.name, node.fingerprint):
                finding = self.inspected.get((node.name, root.name[-PREFIX:])) or self.inspect(root)
                if finding is not None and finding.flaws:
                    self.repair(finding)

    # -- the repair ----------------------------------------------------------------------------------------------

    def _make_room(self, finding: Finding, session: Session) -> tuple[str, list[Path]]:
        """Move the artifact out of the way, the valid shards of banks into its work directory; the remaining work, in
        words, and the paths that were set aside."""
        inputs = self._inputs_read(finding, session)
        banks = banks_in(finding.root) if inputs is not None and LINK not in finding.flaws.values() else []
        try:
            dropped = {bank: reopen(bank, set(below(bank, finding))) for bank in banks}
        except DamageError:
            banks = []
        if not banks or inputs is None:
            return "run again", [self.store.set_aside(finding.root)]
        for path in finding.root.iterdir():
            if path not in dropped and path.name != MANIFEST:  # which says what was read, should this be interrupted
                remove_tree(path)
        work = self.store.work(*finding.key)
        if work.exists():
            self.store.discard(work)
        work.mkdir(parents=True)
        total = sum(len(read_json(bank / FACTS, Identity).facts.shards) for bank in banks)
        bad = sum(map(len, dropped.values()))
        write_json(work / SAVED, {"done": total - bad, "total": total, "unit": "shards"})
        write_inputs(work, contents(inputs))
        move(finding.root, work / "out")
        fsync_path(work)
        fsync_path(finding.root.parent)
        return f"{bad} of {total} shards encoded again", []

    def _inputs_read(self, finding: Finding, session: Session) -> dict[str, Artifact] | None:
        """The inputs that the artifact was made from; None where one was made again since, or its manifest is lost:
        shards that are kept would be of the old bytes, and those encoded now of the new ones."""
        inputs, known = {}, []
        for role, node in session.nodes[finding.key[0]].inputs.items():
            artifact = self.store.find(role, node.fingerprint)
            if artifact is None:
                return None
            before = self._same_bytes.get((role, artifact.fingerprint[:PREFIX]), artifact)
            inputs[role] = artifact
            known.append(before if before.files == artifact.files else artifact)
        return inputs if finding.artifact is not None and read_by(finding.artifact, known) else None

    def _run(self, session: Session, stage: str) -> Artifact:
        """Run the stage and all stages before it, as `flowctl run` does, without Prefect and on this machine alone."""
        with (
            recording(session, plan(session.nodes, self.store), command="repair"),
            graceful_shutdown(session.stop, self.display.note),
        ):
            try:
                return run_stages(session)[stage]
            except Interrupted:
                raise RepairStopped(
                    f"Stopped ({session.stop.reason}) during the repair of {stage}. Progress is saved: "
                    f"`flowctl run {session.recipe.name}` resumes it"
                ) from None


def _comparison(before: Artifact | None, now: Artifact) -> str:
    """Whether the new bytes are those that the old manifest recorded."""
    if before is None:
        return "old bytes unknown"
    old, new = ({record.path: record.sha256 for record in artifact.files} for artifact in (before, now))
    changed = [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)]
    if not changed:
        return "every byte as recorded"
    return f"as recorded except {', '.join(changed[:4])}" + f" and {len(changed) - 4} more" * (len(changed) > 4)
