"""Samplers under test, their scores, and the figures of an evaluation."""
