"""`flowctl` with the fake stages, started by its path: as for the script, the current directory is not searched."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

sys.path.append(str(ROOT))
import flowctl  # noqa: E402

if __name__ == "__main__":
    flowctl.check_packages()
    from tests.flows import fakes

    fakes.install()
    sys.argv[0] = "flowctl"
    flowctl.main()
