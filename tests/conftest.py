"""For all tests: where they run (`gpu` needs a CUDA device), in which order, and what is made once: a command line, and
an empty database of Prefect."""

import functools
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import typer.testing

from tests.shared import once

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")

gc.disable()  # a third of the time of the imports, and all of them stay: `pytest_collection_finish`

#: Folders and files that take longest. They come first: begun late, one would leave the other process without work.
LONGEST = (
    "tests/pipeline/stages",
    "tests/reliability",
    "tests/test_ranks.py",
    "tests/flows/orchestration",
    "tests/flows/api",
)


@pytest.fixture(scope="session", autouse=True)
def command_line_built_once() -> Iterator[None]:
    """typer's runner builds it at each call, which takes longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.testing._get_command))
        yield


#: A disk of memory, and the space that it must have: a whole run writes 0.8 GB.
MEMORY, SPACE = Path("/dev/shm"), 4 * 2**30


def pytest_configure() -> None:
    """Temporary files are in memory where there is space: thousands of fsyncs wait for a disk."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= SPACE:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


MIGRATE = """
import gc
gc.disable()
from pathlib import Path
from flows.session import settings
settings.configure()
settings.confine(Path.cwd())
from flows.orchestration import serve
serve._migrate()
"""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Gives a new store the database of a server that did its hundred migrations, which take longer than a run."""

    def make(folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        environment.pop("PREFECT_API_URL", None)
        subprocess.run([sys.executable, "-c", MIGRATE], cwd=folder, env=environment, check=True)

    def give(home: Path) -> None:
        (home / "prefect").mkdir(parents=True)
        shutil.copy(once(tmp_path_factory, "prefect", make) / "prefect.db", home / "prefect")

    return give


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _without_gpu(config, items)
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(_room(item), len(order)))


def pytest_collection_finish() -> None:
    """The collector never looks at what was imported again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def imports_are_not_collected() -> None:
    """Nor at what the modules of before imported: a stage ends with a collection, and most tests of one are short."""
    gc.collect()
    gc.freeze()


def _room(item: pytest.Item) -> str:
    """The folder of its file; for a file of the uppermost folder, the file."""
    path = Path(item.location[0])
    return str(path if len(path.parts) == 2 else path.parent)


def _without_gpu(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]
