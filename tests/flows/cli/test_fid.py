"""`fid`: the numbers of the reference stage from images in a file, and the names that are refused."""

import json

import numpy as np
import pytest

from storage.errors import MissingError
from storage.imageset import ImageSet
from tests.flows.faults import fault
from tests.pipeline.stages.test_image_to_image import SMALL, small


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A real data and reference stage, and their store."""
    home = tmp_path_factory.mktemp("home")
    return home, small(home, "fm-digits", "reference.extractor=pixels", until="reference")


def test_the_held_out_images_score_as_the_reference_stage_says(flowctl, reference, tmp_path, monkeypatch):
    home, made = reference
    monkeypatch.setenv("FLOWCTL_HOME", str(home))
    recipe = tmp_path / "recipe.yaml"
    sections = [f"{item}" for item in (*SMALL, "reference.extractor=pixels")]
    recipe.write_text("extends: fm-digits\n")
    from flows.session.recipes import load

    monkeypatch.setattr("flows.session.recipes.load", lambda name, overrides=(): load(name, [*sections, *overrides]))
    images = ImageSet.open(made["data"].path("images.zarr")).originals
    metrics = made["reference"].metrics
    for split, expected in (("train", 0.0), ("test", metrics["held_out"])):
        pixels = getattr(images, split).images.transpose(0, 2, 3, 1)
        np.savez(tmp_path / f"{split}.npz", pixels, levels=17)
        result = flowctl("fid", tmp_path / f"{split}.npz", "--against", recipe, "--json")
        assert result.exit_code == 0, result.output
        score = json.loads(result.stdout)
        assert score["value"] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert (score["floor"], score["held_out"]) == (metrics["split_half"], metrics["held_out"])
        assert score["protocol"]["n_fake"] == len(pixels) and score["protocol"]["n_real"] == metrics["images"]
        assert score["protocol"]["reference"] == made["reference"].fingerprint[:12]
    text = flowctl("fid", tmp_path / "test.npz", "--against", recipe).stdout
    assert "FD-pixels" in text and "warning: " in text


def test_names(flowctl, home, tiny, tmp_path):
    assert fault(flowctl("fid", tmp_path, "--against", "nfm-digts")).value == "nfm-digts"
    error = fault(flowctl("fid", tmp_path, "--against", tiny))
    assert type(error) is MissingError and "--until reference" in error.remedy
