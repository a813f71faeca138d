"""Flow matching: paths, times, solvers, losses, likelihood, and sampling."""
