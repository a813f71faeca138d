"""The DAG, the plan that follows from it, and how one stage is executed."""
