"""The stages: each module is one algorithm box, `run(job) -> result`. Imported only when a stage runs."""
