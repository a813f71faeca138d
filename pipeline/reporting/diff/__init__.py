"""Two recipes, or two artifacts, held against each other: settings, results shared, provenance and scores."""

from pipeline.recipe.changes import ABSENT as ABSENT
from pipeline.recipe.changes import Change as Change
from pipeline.reporting.diff._diff import Diff as Diff
from pipeline.reporting.diff._diff import diff as diff
from pipeline.reporting.diff._operands import Side as Side
from pipeline.reporting.diff._operands import StageOf as StageOf
from pipeline.reporting.diff._operands import of_artifact as of_artifact
from pipeline.reporting.diff._operands import of_recipe as of_recipe
from pipeline.reporting.diff._stages import StagePair as StagePair
