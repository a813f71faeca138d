"""A finished network outside the store: safetensors, JSON and a model card, loaded by `models.load`; ONNX if asked."""

from pipeline.export._subject import Subject as Subject
from pipeline.export._write import export as export
