"""Which noise belongs to which image. Every coupling answers `pair(x, labels, rows, generator) -> z`."""

from pipeline.couplings._banked import Banked as Banked
from pipeline.couplings._base import Coupling as Coupling
from pipeline.couplings._independent import Independent as Independent
from pipeline.couplings._minibatch_ot import MinibatchOT as MinibatchOT
from pipeline.couplings._minibatch_ot import assignment as assignment
