"""The one training loop: teachers, students and one-step students differ in network, batch and loss only.

The clock is images seen. Every random draw of a step follows from (seed, step), so any step can be replayed and a
resumed run ends with the same bits.
"""

from pipeline.training._clocks import Clock as Clock
from pipeline.training._data import BatchState as BatchState
from pipeline.training._fit import Fitted as Fitted
from pipeline.training._fit import fit as fit
from pipeline.training._scores import Watch as Watch
