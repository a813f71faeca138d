"""Inception v3 as the Frechet Inception Distance needs it: the TensorFlow graph of 2015-12-05, resizing included."""

from models.inception._network import FEATURES, SIDE, InceptionV3
from models.inception._resize import resize_bilinear

__all__ = ["FEATURES", "SIDE", "InceptionV3", "resize_bilinear"]
