"""Names for readers: of models, protocol fields and couplings."""

from __future__ import annotations

MODELS = {
    "onestep": "one-step student",
    "enlarged": "enlarged image",
    "held-out": "held-out images",
    "halves": "two halves of the training images",
}
FIELDS = {
    "n_real": "real images",
    "n_held_out": "held-out images",
    "n_fake": "generated images",
    "extractor": "feature extractor",
    "reference": "reference statistics",
    "data": "data set",
    "quantised": "quantisation",
    "resized": "resizing",
    "labels": "classes drawn",
    "seed": "seed of the samples",
    "ema": "average of the weights",
    "images_seen": "images seen in training",
    "grid": "time grid",
    "denoised": "noise removed after sampling",
    "sampled_together": "images sampled together",
    "noise": "training noise η",
    "start": "samples start from",
}
COUPLINGS = {
    "nfm": "NFM: the teacher’s noise",
    "independent": "independent noise",
    "ot": "minibatch optimal transport",
    "entropic": "entropic minibatch transport",
    "loom": "LOOM-CFM: one assignment, refined in minibatches",
    "semidiscrete": "semidiscrete optimal transport",
    "reflow": "pairs of the student, over all t",
    "distil": "pairs of the student, at t = 1 only",
    "meanflow": "pairs of the student, over all intervals",
}


def model(name: str) -> str:
    """A model's name: 'student after 2 rounds of reflow' for reflow-2."""
    kind, _, number = name.rpartition("-")
    if kind == "reflow" and number.isdecimal():
        return f"student after {number} round{'' if number == '1' else 's'} of reflow"
    return MODELS.get(name, name)


def metric(name: str) -> str:
    """A metric with its unit."""
    return f"{name}, dB" if name == "PSNR" else name


def field(name: str) -> str:
    """A protocol field's name."""
    return FIELDS.get(name, name.replace("_", " "))


def sentence(text: str) -> str:
    """The text with a capital first letter; the others keep their case."""
    return text[:1].upper() + text[1:]
