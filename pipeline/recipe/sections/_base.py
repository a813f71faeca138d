"""The base of every section of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from storage.text import decodable

Positive = Annotated[int, Field(gt=0, lt=2**63)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Solver = Literal["euler", "midpoint", "heun", "rk4", "dopri5", "jump"]
ADAPTIVE: Solver = "dopri5"  # chooses its steps itself, and so its calls; it takes no notice of the grid
Grid = Annotated[
    Literal["uniform", "quadratic", "edm", "logit"],
    Field(
        description="times of the solver's n steps, with i = n at the noise: uniform t = i/n; quadratic t = (i/n)^2, "
        "shorter steps near the data (NFM); edm, the noise levels of EDM; logit, the quantiles of logit-normal(-0.2, 1)"
    ),
]
Temperature = Annotated[
    float, Field(gt=0, le=100, description="standard deviation of the noise that samples start from")
]
# name, name[field=value,...] in a sweep, or either with @seed
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\[[A-Za-z0-9_.+=,-]{1,120}\])?(@[0-9]{1,10})?$")]


def _of_user(path: Path) -> Path:
    """Expand ~; refuse a path that no file of ours could hold."""
    text = str(path)
    if not decodable(text):
        escaped = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ValueError(f"a path must be valid UTF-8, not {escaped}: rename it, for example by convmv")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}: write {text} without ~") from None


UserPath = Annotated[Path, AfterValidator(_of_user)]


def calls_of_a_step(solver: Solver, guidance: float) -> int:
    """Network calls of one step of a solver with fixed steps. Guidance asks the network twice.

    The same numbers as in `pipeline.flow_matching.solvers`, because planning imports no torch.
    """
    evaluations = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "jump": 1}[solver]
    return evaluations * (1 if guidance == 1 else 2)


def check_before_end(solver: Solver, guidance: float, nfe: int | None) -> None:
    """Raises ValueError for a solver that evaluates the velocity at t = 0, where that of the path vp diverges and
    multiplies the error of the last step: RK4, and Heun with an even number of evaluations, for an odd one ends with
    Euler's step."""
    if solver == "rk4" or (solver == "heun" and nfe and nfe // calls_of_a_step("euler", guidance) % 2 == 0):
        raise ValueError(
            f"on the path vp {solver} with {nfe} calls evaluates the velocity at t = 0, where it diverges: choose "
            "euler or midpoint, or heun with an odd number of evaluations"
        )


def check_calls(solver: Solver, guidance: float, nfe: int | None) -> None:
    """Raises ValueError unless steps of the solver cost exactly `nfe` network calls; that of `ADAPTIVE` is None."""
    if (solver == ADAPTIVE) != (nfe is None):
        raise ValueError(f"nfe must be a number for a fixed-step solver, and null for {ADAPTIVE}")
    if nfe is None:
        return
    unit = calls_of_a_step("euler" if solver == "heun" else solver, guidance)  # Heun's last step may be Euler's
    if nfe % unit:
        guided = f" under guidance {guidance:g}, which calls the network twice," if guidance != 1 else ""
        raise ValueError(
            f"the network calls of {solver}{guided} must be multiples of {unit}, got {nfe}: change nfe, or the guidance"
        )


def named(value: Any) -> Any:
    """A bare name as the section of that kind, with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


class Config(BaseModel):
    """A section: unknown keys are refused, and nothing changes after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Seeded(Config):
    seed: int | None = Field(None, ge=0, lt=2**32, description="the recipe's seed unless given")
