"""Experiment trackers that a run reports to where the environment names one: MLflow, Weights & Biases."""

from flows.session.trackers._follow import following as following
