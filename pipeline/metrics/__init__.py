"""How good: distances between distributions, straightness of paths, Gaussianity of noise, memorisation."""

from pipeline.metrics._classifier import Classifier as Classifier
from pipeline.metrics._classifier import build_classifier as build_classifier
from pipeline.metrics._classifier import features as features
from pipeline.metrics._classifier import train_classifier as train_classifier
from pipeline.metrics._frechet import Moments as Moments
from pipeline.metrics._frechet import frechet_distance as frechet_distance
from pipeline.metrics._frechet import frechet_warnings as frechet_warnings
from pipeline.metrics._frechet import split_half as split_half
from pipeline.metrics._pixels import Pixels as Pixels
from pipeline.metrics._quantise import quantise as quantise
from pipeline.metrics._quantise import to_unit as to_unit
from pipeline.metrics._sliced import sliced_w2 as sliced_w2
from pipeline.metrics._sliced import sliced_w2_to_normal as sliced_w2_to_normal
from pipeline.metrics.straightness import curvature as curvature
