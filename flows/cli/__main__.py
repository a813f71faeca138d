"""`python -m flows.cli`: the same program where no `flowctl` script is installed."""

from flowctl import main

main()
