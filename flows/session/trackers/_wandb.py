"""Weights & Biases, where WANDB_PROJECT or WANDB_MODE is set. Offline runs lie in the store, below wandb/."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path

from flows.session.trackers._base import Ending, Subject, Value


class WandB:
    """One W&B run; the recipe is its group, the kind of stage its job type."""

    def start(self, subject: Subject, id: str | None) -> str:
        import wandb

        self._subject = subject
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "flowctl",
            id=id or uuid.uuid4().hex[:12],
            resume="allow",
            reinit="create_new",
            name=subject.name,
            group=subject.recipe,
            job_type=subject.kind,
            tags=[f"seed {subject.seed}"],
            config={"seed": subject.seed, "fingerprint": subject.fingerprint, **subject.parameters},
            dir=os.environ.get("WANDB_DIR") or str(subject.folder),
            settings=wandb.Settings(silent=True, console="off", init_timeout=60, disable_git=True),
        )
        self._run.define_metric("images", hidden=True)
        self._run.define_metric("*", step_metric="images")
        return self._run.id

    def curves(self, lines: list[dict[str, float]]) -> None:
        for line in lines:
            self._run.log(line)

    def picture(self, path: Path, images: int) -> None:
        import wandb

        self._run.log({"samples": wandb.Image(str(path)), "images": images})

    def results(self, numbers: Mapping[str, float], scores: list[Value]) -> None:
        self._run.summary.update(dict(numbers))
        for name in dict.fromkeys(score.name for score in scores):
            self._run.define_metric(name, step_metric="nfe")
        for score in scores:
            self._run.log({score.name: score.value, "nfe": score.nfe})

    def file(self, path: Path) -> None:
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{self._subject.recipe}-{self._subject.stage}")
        artifact = wandb.Artifact(name, type="report")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def end(self, ending: Ending) -> None:
        self._run.finish(exit_code=0 if ending == "finished" else 1)
