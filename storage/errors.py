"""The errors that a user reads. Each states what must hold, what was got, and what to do.

Tests assert the class and its attributes, so that a sentence can be reworded without breaking one. `retryable` says
whether running the same command again, with nothing changed, can help; only then does the command line say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FlowctlError(Exception):
    """An expected failure. `exit_code` is the exit status of the command line."""

    exit_code = 1
    retryable = False


def _sentence(text: str) -> str:
    """The text with a mark at its end; a list of commands keeps its lines, to be copied as they are."""
    return text if "\n" in text or text.endswith((".", "?", "!")) else f"{text}."


class InputError(FlowctlError):
    """The user's input breaks a rule. Nothing has been computed yet.

    Raise the most exact subclass: `RecipeError` for a setting, `UsageError` for an option or argument of a command,
    `DataError` for images, archives and weights, `MissingError` for an unknown name, `DownloadError` for a
    file that could not be fetched. `InputError` itself is for arguments of library functions.
    """

    exit_code = 2

    def __init__(self, rule: str, value: object, remedy: str) -> None:
        super().__init__(f"{rule}, got {value!r}. {_sentence(remedy)}")
        self.rule, self.value, self.remedy = rule, value, remedy


class RecipeError(InputError):
    """A setting of a recipe, of its file or of --set."""


class UsageError(InputError):
    """An option or argument of a command."""


class DataError(InputError):
    """Images, an archive, an autoencoder or a file of weights that the user named."""


class MissingError(InputError):
    """A recipe, artifact, class or average of this name does not exist."""


class DownloadError(InputError):
    """A file could not be fetched."""

    retryable = True


class DamageError(FlowctlError):
    """A file of the store differs from the one written: torn, flipped, missing or edited."""

    def __init__(self, what: str, flaw: object, remedy: str) -> None:
        super().__init__(f"{what}: {flaw}. {_sentence(remedy)}")
        self.what, self.flaw, self.remedy = what, flaw, remedy


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a GPU did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)  # of torch's own, on a CPU
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises inside on bad bytes (checksum, JSON, missing key ...) becomes a DamageError about
    `what`. A lack of memory is no damage."""
    try:
        yield
    except FlowctlError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        fault = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamageError(what, fault, remedy) from error


class StageFailed(FlowctlError):
    """A stage could not finish. Its saved work stays for the next run."""


class DiskError(StageFailed):
    """The disk is full, read-only or gone."""


class OutOfMemory(StageFailed):
    """The machine or the GPU ran out of memory."""


class BusyError(FlowctlError):
    """Another process uses the artifact or directory that this one would change."""

    retryable = True


class Interrupted(FlowctlError):
    """The user or the system asked to stop. Progress is saved."""

    retryable = True
