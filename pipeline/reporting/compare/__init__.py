"""Recipes side by side, at one seed or several: one table and one plot, or a refusal that says why not."""

from pipeline.reporting.compare._comparison import Comparison as Comparison
from pipeline.reporting.compare._comparison import compare as compare
from pipeline.reporting.compare._html import comparison_page as comparison_page
from pipeline.reporting.compare._run import SeedRun as SeedRun
from pipeline.reporting.compare._run import run_of as run_of
