"""The Python interface behind `import flowctl`: what the commands do, as objects and plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from flows.orchestration.children import Child, ChildFailed, run_children
from flows.session import recipes, reruns
from flows.session.session import Session
from flows.views import runs as run_rows
from flows.views import scores as score_rows
from pipeline.engine.plan import outline
from pipeline.engine.plan import plan as make_plan
from pipeline.engine.rerun import valid_artifact
from pipeline.recipe.recipe import Recipe as Settings
from storage.artifact import Artifact
from storage.errors import MissingError, UsageError
from storage.remote import default_remote
from storage.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import torch

    from pipeline.data.bank_dataset import BankDataset

Label = int | str


class Rows(list[dict[str, Any]]):
    """Rows of plain data, a dict each."""

    def frame(self) -> pandas.DataFrame:
        """The rows as a data frame; fields of nested dicts are columns such as `protocol.n_fake`. Needs pandas."""
        import pandas

        return pandas.json_normalize(list(self))


class Recipe:
    """A recipe and its results in the store, `$FLOWCTL_HOME` or `.flowctl` in the current directory.

    Attributes:
        settings: all settings, a frozen and validated pydantic model: `recipe.settings.student.training.lr`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        """The recipe's name; `name@seed` where the seed was changed."""
        return self.settings.name

    def __repr__(self) -> str:
        return f"<flowctl.Recipe {self.name}, seed {self.settings.seed}>"

    def plan(self, until: str | None = None, force: Sequence[str] = ()) -> Rows:
        """The action of `run` for each stage, in the order of the DAG: `stage`, `action` (reuse, fetch, resume or run),
        `reason`, `fingerprint`, and `source` where the stage reads from outside the store. A network that does not fit
        the images is refused by `run`.

        Args:
            until: the last stage; those that it does not need are left out.
            force: stages to rerun although they have results.

        Raises:
            MissingError: no such stage in this recipe.
            DataError: images or weights that the recipe names cannot be read.
        """
        session = Session.open(self.settings, force, until)
        return Rows(outline(make_plan(session.nodes, session.store, reruns.not_yet_rerun([session]), default_remote())))

    def run(self, until: str | None = None, force: Sequence[str] = ()) -> Recipe:
        """Run every stage that has no result yet, and return this recipe. Call it again to resume.

        It is `flowctl run` in a child process, so that torch's state in this process changes no result. Progress goes
        to stderr. An interrupt saves first.

        Args:
            until, force: as for `plan`.

        Raises:
            MissingError, DataError: as for `plan`.
            ChildFailed: a stage failed or was stopped; stderr says why.
        """
        Session.open(self.settings, force, until)
        words = (
            *(() if until is None else ("--until", until)),
            *(word for stage in force for word in ("--force", stage)),
        )
        child = Child(self.settings, "recipe.yaml", options=words)  # the report has the content of such a file
        codes = run_children([child], lambda text: None)
        if code := max(codes.values()):
            command = " ".join(["flowctl run", self.name, *words])
            raise ChildFailed(f"`{command}` ended with exit code {code}. Finished stages are stored")
        return self

    def artifacts(self) -> dict[str, Artifact]:
        """The results by stage, in the order of the DAG, as far as there are any.

        An artifact has `metrics`, `config`, `provenance` and `path("samples.png")`.

        Raises:
            DamageError: a result differs from what was written.
        """
        session = Session.finished(self.settings)
        artifacts = {name: valid_artifact(node, session.store) for name, node in session.nodes.items()}
        return {name: artifact for name, artifact in artifacts.items() if artifact is not None}

    def scores(self) -> Rows:
        """Every score: `recipe`, `model`, `solver`, `nfe`, `metric`, `value`, `error` (its standard error),
        `seconds_per_image`, `front` (`calls`, `seconds`: nothing cheaper is as good), `protocol`, `digest` (of all
        settings: equal digests were measured alike), `evaluation` (its fingerprint).

        Raises:
            MissingError: there is no finished evaluation.
        """
        return Rows(score_rows.numbers(score_rows.evaluations(self.settings)))

    def network(
        self, model: str = "student", average: str | None = None, device: torch.device | str = "cpu"
    ) -> torch.nn.Module:
        """A finished network in eval mode, without gradients.

        A student is called `network(x_t, t, labels)` with x_t (B, C, H, W) float32, t (B,) in [0, 1] and labels (B,)
        int64 where there are classes; it returns the velocity z - x, (B, C, H, W). Data are at t = 0, noise at t = 1.
        A student of another path than `linear`, `cond-ot` needs `pipeline.flow_matching.paths.velocity_of`.

        Args:
            model: student, onestep, teacher, or reflow-1, reflow-2, …
            average: name of an average of the weights in `training.averages`; default: the first.
            device: of the weights.

        Raises:
            UsageError: the recipe has no such network.
            MissingError: it is not trained yet.
            MissingError: there is no such average.
        """
        from flows.views.samples import check_model
        from pipeline.outputs.networks import load_network

        session = Session.finished(self.settings)
        check_model(model, session)
        return load_network(_finished(model, session), device, average)

    def sample(
        self,
        count: int,
        nfe: int | None = None,
        labels: Label | Sequence[Label] | None = None,
        *,
        model: str = "student",
        solver: str | None = None,
        guidance: float | None = None,
        seed: int = 0,
        average: str | None = None,
    ) -> torch.Tensor:
        """Images (count, H, W, C) uint8 in 0..255, on the CPU. Image i starts from the same noise in every model.

        Args:
            count: number of images.
            nfe: network calls for each image; default 8, for a one-step student what it was trained for.
            labels: names or numbers of classes: one for all images, or one for each; default: all classes in turn.
            model: as for `network`.
            solver: euler (default), midpoint, heun or rk4; jump (default) for MeanFlow.
            guidance: scale of classifier-free guidance; 1 is none. For the teacher 0 is none.
            seed: of the noise.
            average: as for `network`.

        Raises:
            UsageError: an option that the network has no use for, or a number of labels that is not `count`.
            InputError: a solver that cannot spend exactly `nfe` calls.
            MissingError: the network is not trained yet.
        """
        import torch

        from flows.views.sample_files import to_bytes
        from flows.views.sample_request import SampleRequest
        from flows.views.samples import draw

        if count < 1:
            raise UsageError("count must be >= 1", count, "Ask for one image or more.")
        if seed < 0:
            raise UsageError("seed must be >= 0", seed, "Correct it.")
        classes = _classes(labels)
        if isinstance(classes, list) and len(classes) != count:
            raise UsageError(f"labels must be one, or {count}", len(classes), "Give a label for each image.")
        with _torch_restored():
            drawn = draw(
                self.settings, SampleRequest(model, None, solver, classes, guidance, seed, count, average, nfe)
            )
        return torch.from_numpy(to_bytes(drawn.images, drawn.levels))

    def bank(self, batch: int = 256, *, stage: str = "bank", **options: Any) -> BankDataset:
        """The pairs of noise and image as a torch data set of whole batches: give a DataLoader `batch_size=None`.

        A batch is a dict: "x" and "z" (B, C, H, W) float32, x in [-1, 1] and z of unit size; "labels" (B,) int64 where
        there are classes; "index" (B,) int64. Epochs follow each other without end. The reader below it, for NumPy, is
        `bank(...).bank`.

        Args:
            batch: pairs in a batch.
            stage: "bank", the teacher's noises of the training images, or "pairs", the student's images of noise, those
                too that `drop_longest` leaves out.
            options: seed, start, epochs, rank, world, buffer_bytes, device; see
                `pipeline.data.bank_dataset.BankDataset`.

        Raises:
            UsageError: the recipe has no such stage, or its pairs are parts of paths, for several steps.
            MissingError: it has no result yet.
        """
        from pipeline.data.bank_dataset import BankDataset
        from pipeline.outputs.banks import BANK, PAIRS
        from pipeline.outputs.images import IMAGES

        session = Session.finished(self.settings)
        files = {"bank": BANK, "pairs": PAIRS}
        if stage not in files or stage not in session.nodes:
            stages = [name for name in files if name in session.nodes]
            raise UsageError(
                f"stage must be one of {self.name} with a bank", stage, f"There are: {', '.join(stages) or 'none'}."
            )
        parts = getattr(session.nodes[stage].config, "intervals", 1)
        if parts > 1:
            raise UsageError(
                "pairs must be of noise and image",
                f"{parts} parts of each path, since onestep.steps is {parts}",
                "Read the pairs of a recipe with onestep.steps of 1.",
            )
        path = _finished(stage, session).path(files[stage])
        images = _finished("data", session).path(IMAGES) if stage == "bank" else None
        return BankDataset(path, batch, images, **options)


def load(recipe: str | PathLike[str], changes: Mapping[str, Any]) -> Recipe:
    """See `flowctl.load`."""
    return Recipe(recipes.load(fspath(recipe), [f"{field}={_written(value)}" for field, value in changes.items()]))


def runs(metric: str | None = None) -> Rows:
    """See `flowctl.runs`."""
    return Rows(run_rows.runs(Store(), metric))


def _written(value: Any) -> str:
    """A value as after --set: text verbatim, the rest as YAML, of which JSON is a part."""
    return fspath(value) if isinstance(value, str | PathLike) else json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A number or an array of NumPy or torch, or a path inside a list. Raises TypeError for anything else."""
    return value.tolist() if hasattr(value, "tolist") else fspath(value)


def _finished(stage: str, session: Session) -> Artifact:
    artifact = valid_artifact(session.nodes[stage], session.store)
    if artifact is None:
        name = session.recipe.name
        raise MissingError("The stage must have a result", f"no {stage} of {name}", f'Call run(until="{stage}").')
    return artifact


def _classes(labels: Label | Sequence[Label] | np.ndarray | torch.Tensor | None) -> str | list[str] | None:
    """One class, or one for each image, by name or number."""
    plain = _plain(labels) if hasattr(labels, "tolist") else labels
    if plain is None or isinstance(plain, str | int):
        return None if plain is None else str(plain)
    if not isinstance(plain, Iterable):
        raise UsageError("labels must be names or numbers of classes", labels, "Give one, or one for each image.")
    return [str(label) for label in plain]


@contextmanager
def _torch_restored() -> Iterator[None]:
    """Sampling sets the number of threads and deterministic kernels; afterwards torch is as its user set it."""
    import torch

    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = cudnn
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
