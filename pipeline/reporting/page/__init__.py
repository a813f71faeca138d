"""The report: one HTML file that shows a recipe's result, how it came about and how to make it again."""

from pipeline.reporting.page.page import facts as facts
from pipeline.reporting.page.page import render as render
