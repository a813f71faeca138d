"""Pictures for people: grids of images with Pillow, curves with Matplotlib. The same input gives the same bytes."""

from pipeline.reporting.pictures._curves import curves as curves
from pipeline.reporting.pictures._noise import bank_picture as bank_picture
from pipeline.reporting.pictures._noise import z_diagnostics as z_diagnostics
from pipeline.reporting.pictures._tiles import grid as grid
from pipeline.reporting.pictures._tiles import labelled_rows as labelled_rows
from pipeline.reporting.pictures._tiles import png as png
