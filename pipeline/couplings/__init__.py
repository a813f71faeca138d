"""Which noise belongs to which image: `noise_for(x, labels, rows, generator) -> z`. `Semidiscrete` draws images too.

`Independent` and `MinibatchOT` take images of a `Source` in place of noise.
"""

from pipeline.couplings._banked import Banked as Banked
from pipeline.couplings._banked import rows_of_rank as rows_of_rank
from pipeline.couplings._base import Coupling as Coupling
from pipeline.couplings._cells import class_order as class_order
from pipeline.couplings._entropic import Entropic as Entropic
from pipeline.couplings._independent import Independent as Independent
from pipeline.couplings._loom import Loom as Loom
from pipeline.couplings._loom_noises import BankNoises as BankNoises
from pipeline.couplings._loom_noises import Noises as Noises
from pipeline.couplings._loom_noises import SeededNoises as SeededNoises
from pipeline.couplings._loom_sweeps import refine_to_convergence as refine_to_convergence
from pipeline.couplings._minibatch_ot import MinibatchOT as MinibatchOT
from pipeline.couplings._minibatch_ot import assignment as assignment
from pipeline.couplings._mixed import Mixed as Mixed
from pipeline.couplings._mixed import Softened as Softened
from pipeline.couplings._online import Online as Online
from pipeline.couplings._potentials import Ascent as Ascent
from pipeline.couplings._potentials import Potentials as Potentials
from pipeline.couplings._potentials import fit_potentials as fit_potentials
from pipeline.couplings._semidiscrete import Semidiscrete as Semidiscrete
from pipeline.couplings._source import Source as Source
from pipeline.couplings._standard import ClassMoments as ClassMoments
from pipeline.couplings._standard import Standard as Standard
from pipeline.couplings._standard import Whitening as Whitening
from pipeline.couplings._standard import check_whitening as check_whitening
