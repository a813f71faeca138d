"""Scores in tables: one metric under one protocol, over recipes, models, sampler settings and seeds."""
