"""A stage, reported to the trackers while it runs, from what it leaves on disk.

A thread reads the new lines and samples of the stage's monitor. So a slow tracker holds up no training, ranks in other
processes are followed too, and no stage knows of trackers. The ids of the runs lie next to the monitor's files: a
resumed stage continues its run, a stage that is rerun gets a new one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from flows.session.session import Session
from flows.session.trackers._base import Ending, Subject, Tracker, Value
from flows.session.trackers._mlflow import MLflow
from flows.session.trackers._wandb import WandB
from pipeline.engine import rerun
from pipeline.engine.dag import Node
from pipeline.engine.execute import ATTEMPTS, Outcome
from pipeline.outputs.curves import read_curves
from pipeline.outputs.results import Score
from pipeline.reporting.scores.table import setting
from storage.artifact import Artifact
from storage.atomic import read_facts, write_json
from storage.errors import Interrupted
from storage.required import required

POLL_SECONDS = 5.0
LAST_SECONDS = 90.0  # that trackers have for what is left when a stage ends
STATE = "trackers.json"
SAMPLES, GRID = "samples/images-*.png", "samples.png"
UNNAMEABLE = re.compile(r"[^\w.\- :/]")  # in the name of a number, by MLflow
KINDS: dict[str, tuple[type[Tracker], tuple[str, ...]]] = {  # package: class, variables that switch it on
    "mlflow": (MLflow, ("MLFLOW_TRACKING_URI",)),
    "wandb": (WandB, ("WANDB_PROJECT", "WANDB_MODE")),
}
log = logging.getLogger("flowctl")


def packages() -> list[str]:
    """The trackers that the environment names."""
    named = [package for package, (_, variables) in KINDS.items() if any(map(os.environ.get, variables))]
    return [package for package in named if package != "wandb" or os.environ.get("WANDB_MODE") != "disabled"]


@contextmanager
def following(node: Node, session: Session) -> Iterator[Callable[[Outcome], None]]:
    """Report a stage to all trackers while the block lasts. The block calls the yielded function with the outcome.

    A tracker that fails is warned of once and then left out, for the rest of the run.
    """
    chosen = [package for package in packages() if package not in session.lost_trackers]
    if not chosen or session.record is None or session.record.facts["command"] != "run":
        yield lambda outcome: None
        return
    followers = [_Follower(package, node, session) for package in chosen]
    outcomes: list[Outcome] = []
    ending: Ending = "failed"
    patience = LAST_SECONDS
    for follower in followers:
        follower.start()
    try:
        yield outcomes.append
        ending = "finished"
    except Interrupted:
        ending = "stopped"
        raise
    except KeyboardInterrupt:
        patience = 0.0
        raise
    finally:
        for follower in followers:
            follower.finish(ending, outcomes[0] if outcomes else None)
        for follower in followers:
            follower.join(patience)
            if follower.is_alive():
                follower.give_up("it does not answer")


class _Follower(threading.Thread):
    """One tracker's thread for one stage. The tracker's run starts when the stage does: a reused stage has none."""

    def __init__(self, package: str, node: Node, session: Session) -> None:
        super().__init__(daemon=True, name=f"{package} {node.name}")
        self._package, self._node, self._session = package, node, session
        self._work = session.store.work(node.name, node.fingerprint)
        self._monitor = session.store.monitor(node.name, node.fingerprint, node.label)
        self._attempts = self._count()
        self._state: dict[str, Any] = {"id": None, "images": -1, "picture": -1, "over": False}
        earlier = read_facts(self._monitor / STATE).get(package)
        again = rerun.is_requested(node, session.store) and not rerun.started(node, session.store)
        if isinstance(earlier, dict) and earlier.keys() == self._state.keys() and not earlier["over"] and not again:
            self._state |= earlier
        self._tracker: Tracker | None = None
        self._over = threading.Event()
        self._ending: Ending = "failed"
        self._outcome: Outcome | None = None

    def finish(self, ending: Ending, outcome: Outcome | None) -> None:
        """Ask the thread to report the end, and to end."""
        self._ending, self._outcome = ending, outcome
        self._over.set()

    def give_up(self, why: object) -> None:
        """Warn, once in a run."""
        if self._package not in self._session.lost_trackers:
            self._session.lost_trackers.add(self._package)
            log.warning("%s gets no more of this run: %s", self._package, " ".join(str(why).split())[:300])

    def run(self) -> None:
        try:
            while not self._over.wait(POLL_SECONDS):
                if self._begun():
                    self._report()
            if self._begun():
                self._report()
                if self._outcome is not None:
                    self._results(self._outcome.artifact)
                required(self._tracker, "the tracker").end(self._ending)
        except BaseException as error:  # a tracker may raise anything, even SystemExit
            missing = isinstance(error, ImportError) and find_spec(self._package) is None
            self.give_up(
                f"install it: pip install -e '.[{self._package}]' in the project's folder" if missing else error
            )

    def _begun(self) -> bool:
        """Whether the stage runs or has run: it counts its attempts in its work directory, which goes at its end."""
        if self._outcome is not None:
            return self._outcome.action in ("run", "resumed")
        return self._tracker is not None or self._count() not in ("", self._attempts)

    def _count(self) -> str:
        with suppress(OSError):
            return (self._work / ATTEMPTS).read_text()
        return ""

    def _report(self) -> None:
        """Send what is new in the monitor; first start the run, or resume it."""
        if self._tracker is None:
            self._tracker = KINDS[self._package][0]()
            self._state["id"] = self._tracker.start(_subject(self._node, self._session), self._state["id"])
        lines: list[dict[str, float]] = []
        with suppress(OSError):
            lines = [line for line in read_curves(self._monitor) if line["images"] > self._state["images"]]
        if lines:
            self._tracker.curves(lines)
            self._state["images"] = lines[-1]["images"]
        for path in sorted(self._monitor.glob(SAMPLES)):
            images = int(path.stem.rpartition("-")[2])
            if images > self._state["picture"]:
                self._tracker.picture(path, images)
                self._state["picture"] = images
        self._save()

    def _results(self, artifact: Artifact) -> None:
        """Send the results of the finished stage."""
        tracker = required(self._tracker, "the tracker")
        tracker.results(_numbers(artifact.metrics), _scores(artifact))
        if artifact.stage == "evaluation":
            tracker.picture(artifact.path(GRID), 0)
        if artifact.stage == "report":
            tracker.file(artifact.path(artifact.metrics["page"]))
        self._state["over"] = True
        self._save()

    def _save(self) -> None:
        with _SAVING, suppress(OSError):
            self._monitor.mkdir(parents=True, exist_ok=True)
            write_json(self._monitor / STATE, {**read_facts(self._monitor / STATE), self._package: self._state})


_SAVING = threading.Lock()  # two trackers share the file


def _subject(node: Node, session: Session) -> Subject:
    parameters = _flat(node.config.model_dump(mode="json"), node.name)
    recipe = session.recipe
    return Subject(
        recipe.name, recipe.seed, node.name, node.stage.kind, node.fingerprint, parameters, session.store.home
    )


def _flat(value: Any, path: str) -> dict[str, Any]:
    """Sections as dotted names; a list is one value."""
    if not isinstance(value, Mapping):
        return {path: json.dumps(value) if isinstance(value, list) else value}
    return {name: leaf for key, below in value.items() for name, leaf in _flat(below, f"{path}.{key}").items()}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value for name, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _scores(artifact: Artifact) -> list[Value]:
    """An evaluation's scores, named by metric, model and sampler; what tells samplers apart is part of the name."""
    if artifact.stage != "evaluation":
        return []
    scores = [Score.model_validate(score) for score in artifact.metrics.get("scores", ())]
    return [
        Value(
            UNNAMEABLE.sub("", f"{score.metric}/{score.model}/{setting(score, scores)}"), score.nfe, float(score.value)
        )
        for score in scores
    ]
