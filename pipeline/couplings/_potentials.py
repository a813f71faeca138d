"""The potentials of semidiscrete optimal transport from N(0, I) to a finite set of points, by stochastic ascent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pipeline.couplings._cells import Cells
from pipeline.runtime.noise import noise
from storage.errors import InputError

STEP, DECAY = 0.4, 2 / 3  # of the ascent: the first step, and the power of the number of passes at which steps shorten
FORGETTING = 3  # of the average: its weights grow as this power of the step
_ASCENT, _CHECK, _REPORT = 0, 1, 2  # streams of noise
_REPORT_CHECKS = 4  # the reported chi^2 uses as many noises as this number of checks


@dataclass
class Ascent:
    """The state of a fit: flat tensors on the CPU that `fit_potentials` changes in place; C classes in ascending order.

    Attributes:
        iterate: (N,) float64, the potentials at which the gradient is taken.
        potentials: (N,) float64, their average, which is the answer.
        classes: (C,) int64.
        steps: (C,) int64, steps taken for each class.
        divergence: (C,) float64, chi^2 at its last check, NaN before the first.
        done: (C,) bool.
    """

    iterate: Tensor
    potentials: Tensor
    classes: Tensor
    steps: Tensor
    divergence: Tensor
    done: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """To be saved: `Ascent(**tensors)` is the state again. The tensors change with the next step."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Potentials:
    """The result of a fit.

    Attributes:
        values: g, (N,) float64, in squared distance, in the order of the points; their mean in each class is 0.
        classes: (C,) int64, ascending; [0] where there were no labels.
        divergence: (C,) float64: chi^2 between the mass of the cells of each class and the uniform one, measured on
            fresh noise after the fit.
        steps: (C,) int64, steps taken for each class.
    """

    values: Tensor
    classes: Tensor
    divergence: Tensor
    steps: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """To be saved: `Potentials(**tensors)` is the same again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit_potentials(
    points: Tensor,
    labels: Tensor | None = None,
    *,
    seed: int,
    batch: int = 512,
    passes: float = 60.0,
    tolerance: float = 0.05,
    on_step: Callable[[Ascent], None] | None = None,
    state: Mapping[str, Tensor] | None = None,
    by_class: bool = False,
) -> Potentials:
    """Fit the potentials g that give all points of a class equal shares of N(0, I) at least squared distance.

    Mousavi-Hosseini et al. 2025 (arXiv 2509.25519) without entropic regularisation. g maximises the semi-dual

        E_z [ min_i |z - x_i|^2 - g_i ] + mean(g),    z ~ N(0, I),

    which is concave; its gradient is 1/N less the mass of the cell of each point, and at the maximum all masses are
    1/N. The ascent is averaged SGD (Genevay et al. 2016, arXiv 1605.08527):

    - Each step draws `batch` noises and counts where they fall: g += a (1 - N counts / batch) min(1, batch / N).
    - a = 0.4 u (1 + p)^(-2/3) after p passes, a pass being N noises, or one step where the batch is larger. The unit
      u = 2 s / q makes it free of dimension and contrast: s is the root mean square distance of the points from their
      mean, q = Phi^-1(1 - 1/N) the typical greatest of N Gaussians. For points far apart, a potential higher by u
      multiplies a cell's mass by about e.
    - The answer is the average of the iterates with weights that grow as step^3 (Shamir and Zhang 2013, arXiv
      1212.1824), so that it forgets where it began.
    - It begins where a single point of norm r, after centring, has about its share whatever r is:
      (g - |x|^2) / 2 = -H(r) with H(r) = r^2 / 2 up to q, which is the Voronoi diagram, and q r - q^2 / 2 beyond.

    Each class is a separate problem, solved one after the other; it does not depend on other classes.
    It ends when chi^2 of the averaged potentials is at most `tolerance`: the chi-square divergence
    sum_i (m_i - 1/N)^2 N of the masses m of the cells from equal ones. On B fresh noises, c_i of which fall to point
    i, N sum_i c_i (c_i - 1) / (B (B - 1)) - 1 is an unbiased estimate, with a standard deviation near (2N)^1/2 / B;
    B makes that a fifth of `tolerance` (CIFAR-10, 0.05: 32,000 noises). A check runs whenever the steps since
    the last have used three times as many noises, and after the last step. The first check that is low enough ends the
    fit, by luck perhaps, so the reported chi^2 is measured once more, on other noises and four times as many. The paper
    finds that images gain little below 0.05. It cannot be reached where many points are copies of one another: they
    have one cell between them.

    Cost: 2 N D flops a noise. CIFAR-10 at once and 30 passes are 5e14; within its ten classes a tenth of that.

    Args:
        points: (N, ...) float32, on the device to compute on. It stays there, and a copy unless it is `by_class`.
        labels: (N,) int64 classes, 0 or more, or None.
        seed: 64 bits, of the noise, which is addressed by (seed, step, class) and so is the same after a resume.
        batch: noises a step, 1 or more.
        passes: end of the ascent where `tolerance` is not reached before.
        tolerance: chi^2 to end at, above 0.
        on_step: called after each step with the state; may save `state.tensors()`, and may raise in order to stop.
        state: tensors of a state saved with the same other arguments, to resume from to the same bits.
        by_class: as of `Cells`.

    Raises:
        InputError: points or labels as `Cells` says, or a state of other points.
    """
    cells = Cells(points, labels, by_class)
    ascent = _begin(cells) if state is None else _resume(cells, state)
    values, divergence = ascent.potentials.clone(), ascent.divergence.clone()
    for index in range(len(cells.sizes)):
        problem = _Problem(cells, index, seed, batch, tolerance)
        _ascend(problem, ascent, passes, tolerance, on_step)
        fitted = ascent.potentials[problem.rows]
        divergence[index] = problem.divergence(fitted, _REPORT, 0, _REPORT_CHECKS * problem.checked)
        values[problem.rows] = fitted - fitted.mean()  # a number added to all potentials of a class moves nothing
    return Potentials(values, ascent.classes.clone(), divergence, ascent.steps.clone())


class _Problem:
    """One class: its noise, its cells and its scale."""

    def __init__(self, cells: Cells, index: int, seed: int, batch: int, tolerance: float) -> None:
        self.cells, self.index, self.seed, self.batch = cells, index, seed, batch
        self.rows = cells.rows(index)
        self.size = len(self.rows)
        self.half_squares = cells.half_squares(index)
        q, radii = _reach(self.size), _radii(cells, index)
        self.unit = 2 * float(radii.square().mean().sqrt()) / q
        self.share = min(1.0, batch / self.size)  # of a pass, in a step
        self.checked = max(2, math.ceil(5 * math.sqrt(2 * self.size) / tolerance))  # noises of a check
        self.period = max(1, math.ceil(3 * self.checked / batch))  # steps between checks

    def masses(self, potentials: Tensor, stream: int, first: int, count: int) -> Tensor:
        """(N_c,) float64 on the CPU: how many of the noises number first ... first + count - 1 fall to each point."""
        offsets = potentials.to(self.cells.device) / 2 - self.half_squares
        falls = torch.zeros(self.size, dtype=torch.long)
        label = int(self.cells.classes[self.index])
        for start in range(first, first + count, self.batch):
            z = noise(
                self.seed,
                range(start, min(start + self.batch, first + count)),
                label,
                (self.cells.dimension,),
                stream=stream,
                device=self.cells.device,
            )
            falls += self.cells.fall(z, self.index, offsets).cpu().bincount(minlength=self.size)
        return falls.double()

    def divergence(self, potentials: Tensor, stream: int, first: int, count: int) -> float:
        """The unbiased estimate of chi^2 on the noises number first ... first + count - 1 of a stream."""
        falls = self.masses(potentials, stream, first, count)
        return float((falls * (falls - 1)).sum()) * self.size / (count * (count - 1)) - 1

    def check(self, potentials: Tensor, step: int) -> float:
        """The estimate of chi^2 that may end the ascent, on noises that no other check uses."""
        return self.divergence(potentials, _CHECK, -(-step // self.period) * self.checked, self.checked)


def _ascend(
    problem: _Problem, ascent: Ascent, passes: float, tolerance: float, on_step: Callable[[Ascent], None] | None
) -> None:
    index, rows, last = problem.index, problem.rows, math.ceil(passes / problem.share)
    while not ascent.done[index]:
        step = int(ascent.steps[index])
        iterate = ascent.iterate[rows]
        falls = problem.masses(iterate, _ASCENT, step * problem.batch, problem.batch)
        length = STEP * problem.unit * (1 + step * problem.share) ** -DECAY * problem.share
        iterate += length * (1 - falls * (problem.size / problem.batch))
        step += 1
        average = ascent.potentials[rows].lerp_(iterate, (FORGETTING + 1) / (step + FORGETTING))
        done = step >= last
        if done or step % problem.period == 0:
            ascent.divergence[index] = problem.check(average, step)
            done = done or bool(ascent.divergence[index] <= tolerance)
        ascent.iterate[rows], ascent.potentials[rows] = iterate, average
        ascent.steps[index], ascent.done[index] = step, done
        if on_step is not None:
            on_step(ascent)


def _begin(cells: Cells) -> Ascent:
    start, classes = torch.empty(len(cells.order), dtype=torch.float64), len(cells.sizes)
    for index in range(classes):
        q, radii = _reach(cells.sizes[index]), _radii(cells, index)
        near = torch.where(radii < q, radii.square() / 2, q * radii - q * q / 2)
        start[cells.rows(index)] = 2 * (cells.half_squares(index) - near).cpu()
    return Ascent(
        start,
        start.clone(),
        cells.classes.clone(),
        torch.zeros(classes, dtype=torch.long),
        torch.full((classes,), math.nan, dtype=torch.float64),
        torch.zeros(classes, dtype=torch.bool),
    )


def _resume(cells: Cells, state: Mapping[str, Tensor]) -> Ascent:
    ascent = Ascent(**{field.name: state[field.name].clone() for field in fields(Ascent)})
    if len(ascent.iterate) != len(cells.order) or not torch.equal(ascent.classes, cells.classes):
        raise InputError(
            f"The state must be of {len(cells.order)} points of the classes {cells.classes.tolist()}",
            (len(ascent.iterate), ascent.classes.tolist()),
            "Start without a state, or give the points of that state.",
        )
    return ascent


def _reach(size: int) -> float:
    """q = Phi^-1(1 - 1/N), but at least 1."""
    return max(1.0, float(torch.special.ndtri(torch.tensor(1 - 1 / size, dtype=torch.float64))))


def _radii(cells: Cells, index: int) -> Tensor:
    """Distances of the points of a class from their mean, (N_c,) float64."""
    points = cells.points(index)
    mean = points.mean(0, dtype=torch.float64)
    squares = 2 * cells.half_squares(index) - 2 * (points @ mean.float()).double() + mean.square().sum()
    return squares.clamp(min=0).sqrt()
