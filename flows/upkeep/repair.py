"""Make what is damaged sound again: of a bank the bad shards alone, anything else by its stage, as in `flowctl run`."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from flows.session.display import Display
from flows.session.interrupts import graceful_shutdown
from flows.session.session import Session
from flows.session.waiting import wait_for
from pipeline.engine.execute import execute, failure
from pipeline.recipe.recipe import Recipe
from pipeline.runtime.job import SAVED
from storage.artifact import MANIFEST, Artifact, NewerFormat
from storage.atomic import fsync_path, write_json
from storage.bank.facts import FACTS, Identity, read_json
from storage.bank.reopen import reopen
from storage.errors import BusyError, DamageError, FlowctlError, Interrupted
from storage.inspection import CHECKPOINTS, FOREIGN, LINK, SCORES, Finding, banks_in, below, inspect_artifact
from storage.store import PREFIX, Key, Store, remove_tree


class Repairs:
    """One `verify --repair`.

    `recipes` may have made what is damaged, the likeliest first; `used` names who uses what must stay as it is;
    `looked` remembers what was inspected.
    """

    def __init__(self, store: Store, recipes: list[Recipe], used: dict[Key, str], display: Display) -> None:
        self.store, self.recipes, self.used, self.display = store, recipes, used, display
        self.looked: dict[Key, Finding] = {}

    def look(self, root: Path) -> Finding:
        """The artifact as `inspect_artifact` finds it, read once."""
        finding = inspect_artifact(root)
        self.looked[finding.key] = finding
        return finding

    def mend(self, finding: Finding) -> str:
        """Make a damaged artifact sound, and before it what it is made from; what was done, in words.

        Raises FlowctlError where that cannot be: it is in use, no recipe that makes it is known, or its stage fails.
        """
        self._require_unused(finding.key)
        self._require_known(finding)
        if set(finding.flaws.values()) == {FOREIGN}:
            for path in finding.flaws:
                (finding.root / path).unlink()
            self.look(finding.root)
            return "what does not belong to it was removed"
        session = self._session(finding)
        self._mend_inputs(session)
        with self.store.lock(*finding.key, self._refuse):
            done, aside = self._make_room(finding) if finding.stands() else ("another process was faster", [])
        artifact = self._make(session, finding.key[0])
        for path in aside:
            remove_tree(path)
        again = self.look(artifact.root)
        if again.flaws:
            raise DamageError(str(artifact.root), "damaged as soon as it was written", "Look after the disk")
        return f"{done}, {_likeness(finding.artifact, artifact)}"

    def mend_work(self, finding: Finding) -> str:
        """Drop what is damaged of a stage's saved work: the stage goes on from what was saved before."""
        self._require_unused(finding.key)
        with self.store.lock(*finding.key, self._refuse):
            if not finding.stands():
                return "another process was faster"
            for path in finding.flaws:
                if path == SCORES or fnmatch(path, CHECKPOINTS):
                    (finding.root / path).unlink(missing_ok=True)
                    (finding.root / path).with_suffix(".safetensors").unlink(missing_ok=True)
            for bank in banks_in(finding.root / "out"):
                try:
                    reopen(bank, set(below(bank, finding)))
                except DamageError:
                    self.store.discard(bank)
        return "dropped, the rest is kept: the same `flowctl run` goes on from it"

    # -- whose it is ---------------------------------------------------------------------------------------------

    def _require_unused(self, key: Key) -> None:
        if key in self.used:
            self._refuse(self.used[key])

    @staticmethod
    def _require_known(finding: Finding) -> None:
        """Raises NewerFormat for an artifact that is not damaged, but beyond this version."""
        try:
            Artifact.read(finding.root)
        except NewerFormat:
            raise
        except DamageError:
            pass

    def _refuse(self, holder: str) -> None:
        raise BusyError(f"It is in use by {holder}. Wait for that to end")

    def _session(self, finding: Finding) -> Session:
        """A session of a recipe that makes it, up to its stage."""
        stage, prefix = finding.key
        for recipe in self.recipes:
            try:
                session = Session.open(recipe, until=stage, home=self.store.home, display=self.display)
            except FlowctlError:  # it has no such stage, or its images are no longer there
                continue
            if session.nodes[stage].fingerprint.startswith(prefix):
                return session
        name = f"{stage}/{finding.root.name}"
        raise FlowctlError(
            "No recipe that is known makes it. Name the one that does, `flowctl verify RECIPE --repair`"
            f", or remove it, `flowctl rm {name} --yes`"
        )

    def _mend_inputs(self, session: Session) -> None:
        """A stage must not read what is damaged: weights, for one, have no checksum of their own."""
        *inputs, _ = session.nodes.values()
        for node in inputs:
            for root in self.store.directories(node.name, node.fingerprint):
                found = self.looked.get((node.name, root.name[-PREFIX:])) or self.look(root)
                if found.flaws:
                    self.mend(found)

    # -- the repair ----------------------------------------------------------------------------------------------

    def _make_room(self, finding: Finding) -> tuple[str, list[Path]]:
        """Take the artifact back: what is kept for its stage to go on from, and what was set aside."""
        banks = banks_in(finding.root) if LINK not in finding.flaws.values() else []
        try:
            dropped = {bank: reopen(bank, set(below(bank, finding))) for bank in banks}
        except DamageError:
            banks = []
        if not banks:
            return "made anew", [self.store.set_aside(finding.root)]
        (finding.root / MANIFEST).unlink(missing_ok=True)
        for path in finding.root.iterdir():
            if path not in dropped:
                remove_tree(path)
        work = self.store.work(*finding.key)
        if work.exists():
            self.store.discard(work)
        work.mkdir(parents=True)
        total = sum(len(read_json(bank / FACTS, Identity).facts.shards) for bank in banks)
        bad = sum(map(len, dropped.values()))
        write_json(work / SAVED, {"done": total - bad, "total": total, "unit": "shards"})
        os.rename(finding.root, work / "out")
        fsync_path(work)
        fsync_path(finding.root.parent)
        return f"{bad} of {total} shards made anew", []

    def _make(self, session: Session, stage: str) -> Artifact:
        """What `flowctl run` does for the stage and all before it, without Prefect and on this machine alone."""
        made: dict[str, Artifact] = {}
        alone = session.recipe.compute.model_copy(update={"nnodes": 1, "node_rank": 0, "rendezvous": None})
        with self.display, graceful_shutdown(session.stop, self.display.note):
            for name, node in session.nodes.items():
                self.display.begin(name)
                try:
                    outcome = execute(
                        node,
                        {role: made[role] for role in node.inputs},
                        self.store,
                        alone,
                        stop=session.stop,
                        listeners=(self.display.report,),
                        waiting=lambda holder, node=node: wait_for(holder, node, session),
                    )
                except Interrupted:
                    raise Interrupted(
                        f"Stopped ({session.stop.reason}) while {name} was made anew. Progress is saved: "
                        f"`flowctl run` of the recipe {session.recipe.name} goes on from it"
                    ) from None
                except Exception as error:
                    raise failure(name, error) from error
                made[name] = outcome.artifact
                self.display.end(name, outcome)
        return made[stage]


def _likeness(before: Artifact | None, now: Artifact) -> str:
    """Whether the bytes are those that the old manifest recorded."""
    if before is None:
        return "whose old bytes are not known"
    old, new = ({record.path: record.sha256 for record in artifact.files} for artifact in (before, now))
    changed = [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)]
    if not changed:
        return "every byte as recorded before"
    return f"as recorded before but for {', '.join(changed[:4])}" + (
        f" and {len(changed) - 4} more" * (len(changed) > 4)
    )
