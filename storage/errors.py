"""The errors that a user reads: each states the rule, what was found instead, and the remedy."""

from __future__ import annotations


class FlowctlError(Exception):
    """An expected failure. `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(FlowctlError):
    """What the user gave (recipe, option, data) breaks a rule. Nothing has been computed yet."""

    exit_code = 2

    def __init__(self, rule: str, value: object, remedy: str) -> None:
        super().__init__(f"{rule}; got {value!r}. {remedy}")
        self.rule, self.value, self.remedy = rule, value, remedy


class DamageError(FlowctlError):
    """A file of ours is not what was written: torn, flipped, missing or edited."""

    def __init__(self, what: str, found: object, remedy: str) -> None:
        super().__init__(f"{what}: {found}. {remedy}")
        self.what, self.found, self.remedy = what, found, remedy


class StageFailed(FlowctlError):
    """A stage could not finish. What it had saved stays for the next run."""


class Interrupted(FlowctlError):
    """The user or the system asked to stop; progress is saved and the same command goes on."""

    exit_code = 1
