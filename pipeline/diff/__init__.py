"""Two recipes, or two artifacts, held against each other: settings, results shared, provenance and scores."""

from pipeline.diff._diff import Diff as Diff
from pipeline.diff._diff import diff as diff
from pipeline.diff._settings import ABSENT as ABSENT
from pipeline.diff._settings import Change as Change
from pipeline.diff._sides import Side as Side
from pipeline.diff._sides import StageOf as StageOf
from pipeline.diff._sides import of_artifact as of_artifact
from pipeline.diff._sides import of_recipe as of_recipe
from pipeline.diff._stages import StagePair as StagePair
from pipeline.diff._stages import short as short
