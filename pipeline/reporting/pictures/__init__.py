"""Pictures for people: grids of images, and what noise looks like. The same input gives the same bytes."""

from pipeline.reporting.pictures._noise import COLOURS as COLOURS
from pipeline.reporting.pictures._noise import bank_picture as bank_picture
from pipeline.reporting.pictures._noise import z_diagnostics as z_diagnostics
from pipeline.reporting.pictures._style import default_style as default_style
from pipeline.reporting.pictures._tiles import grid as grid
from pipeline.reporting.pictures._tiles import labelled_rows as labelled_rows
from pipeline.reporting.pictures._tiles import png as png
