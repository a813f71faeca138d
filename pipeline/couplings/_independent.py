"""Independent coupling: the plain flow matching baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from pipeline.couplings._base import Coupling, Draw, gaussian_like


@dataclass(frozen=True)
class Independent(Coupling):
    """z ~ N(0, I), or as `draw` gives it, whatever x is (Lipman et al. 2023, arXiv 2210.02747)."""

    draw: Draw = gaussian_like

    def noise_for(self, x: Tensor, labels: Tensor | None, rows: Tensor, generator: Generator) -> Tensor:
        del labels, rows
        return self.draw(x, generator)
