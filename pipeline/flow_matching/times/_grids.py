"""The grids that a student is sampled on, each a named way to spread n steps over the path."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.flow_matching.times._distributions import LogitNormal
from storage.errors import InputError

SIGMA_MAX, SIGMA_MIN, RHO = 80.0, 0.002, 7.0  # EDM's, table 1


def time_grid(kind: str, steps: int) -> Tensor:
    """Times to sample on, from noise to data: (steps + 1,) float64, falling strictly from exactly 1 to exactly 0.

    With n steps, and i = n at the noise:

    - `uniform`: t_i = i/n.
    - `quadratic`: t_i = (i/n)^2, whose steps shorten near the data, as in the NFM paper (arXiv 2603.09014).
    - `edm`: EDM's noise levels (Karras et al. 2022, arXiv 2206.00364, eq. 5; see `_edm`) at t = sigma / (1 + sigma).
    - `logit`: t_i is the i/n quantile of the logit-normal(-0.2, 1) that students are trained on by default, so that as
      many training times fall into each step.

    The error of a method of order p falls as h^p with the longest step h. On `uniform` and `quadratic` h falls as 1/n.
    So it does on `edm` up to some 200 steps, where the first, from 1 to about 80/81, becomes the longest and stays. On
    `logit` the two end steps are the longest, 0.10 and 0.07 of the path even at n = 128, and fall more slowly than any
    power of n: doubling n halves the error of Heun, where the other grids quarter it.

    Flip a grid to go from data to noise. In `uniform`, `quadratic` and `logit` the times of n steps are every other
    one of 2n; in `edm` the inner ones of n steps are every other one of 2n - 1.

    `kind` is a name that sections validate (`pipeline.recipe.sections.Grid`).

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError("The steps of a time grid must be at least 1", steps, "Ask for 1 or more.")
    return GRIDS[kind](steps)


def _uniform(steps: int) -> Tensor:
    return torch.arange(steps, -1, -1, dtype=torch.float64) / steps  # i/n for i = n ... 0


def _quadratic(steps: int) -> Tensor:
    return _uniform(steps).square()


def _edm(steps: int) -> Tensor:
    """EDM's n + 1 noise levels, sigma_max = 80, ..., sigma_min = 0.002, 0, in our time.

    Our x_t = (1 - t) x + t z is (1 - t) times x + sigma z with sigma = t / (1 - t). So the last time is 0 as in EDM,
    one step below sigma_min. The first would be 80/81; it is moved to 1, sigma = infinity, for our noise is z itself.
    All others are EDM's. One step goes from 1 to 0, where EDM's formula divides by zero.
    """
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    if steps == 1:
        return ends
    root_max, root_min = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    place = torch.arange(1, steps, dtype=torch.float64) / (steps - 1)
    sigma = (root_max + place * (root_min - root_max)) ** RHO
    return torch.cat([ends[:1], sigma / (1 + sigma), ends[1:]])


def _logit(steps: int) -> Tensor:
    return LogitNormal().quantile(_uniform(steps))


GRIDS = {"uniform": _uniform, "quadratic": _quadratic, "edm": _edm, "logit": _logit}
