"""Samplers under test and what is measured of their samples."""
