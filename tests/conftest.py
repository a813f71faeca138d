"""For all tests: where they run (`gpu` needs a CUDA device), in which order, and a command line that is built once."""

import functools
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import typer.testing

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")

#: Folders and files that take longest. They come first: begun late, one would leave the other process without work.
LONGEST = (
    "tests/pipeline/stages",
    "tests/reliability",
    "tests/test_ranks.py",
    "tests/flows/orchestration",
    "tests/test_crash.py",
    "tests/flows/api",
)


@pytest.fixture(scope="session", autouse=True)
def command_line_built_once() -> Iterator[None]:
    """typer's runner builds it at each call, which takes longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.testing._get_command))
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _without_gpu(config, items)
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(_room(item), len(order)))


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
