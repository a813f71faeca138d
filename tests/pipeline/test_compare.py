"""Recipes side by side: joined under one protocol, refused under two."""

import json

import pytest
from PIL import Image

from pipeline.compare import compare
from storage.errors import InputError
from tests.pipeline.finished import SWEEP, evaluation, recipe, score

FM = dict(zip(SWEEP, (87, 20.5, 8.5, 4.1, 2.5, 1.8), strict=True))
OT = dict(zip(SWEEP, (55, 32, 26, 25, 25, 26), strict=True))


def students(sweep, **protocol):
    return [score("student", nfe, value, **protocol) for nfe, value in sweep.items()]


@pytest.fixture
def three(tmp_path):
    return {"nfm-digits": evaluation(tmp_path), "fm-digits": evaluation(tmp_path, "fm-digits", students(FM)),
            "ot-digits": evaluation(tmp_path, "ot-digits", students(OT))}


def test_the_table(three):
    made = compare(three).table()
    assert made.nfe == (1, 2, 4, 8, 16, 64)
    assert [(row.recipe, row.model) for row in made.rows] == [
        ("nfm-digits", "student"), ("nfm-digits", "onestep"), ("fm-digits", "student"), ("ot-digits", "student")]
    best = [[row.recipe for row in made.rows if row.cells[i] and row.cells[i].best] for i in range(6)]
    assert best == [["nfm-digits"], ["nfm-digits"], ["nfm-digits"], ["fm-digits"], ["fm-digits"], ["fm-digits"]]
    assert [(level.recipe, level.text) for level in made.levels] == [("nfm-digits", "6.1"), ("", "8.5")]


def test_the_terminal_and_markdown(three):
    comparison = compare(three)
    lines = comparison.text().splitlines()
    assert lines[0] == "FD-classifier by network calls"
    assert lines[4] == "nfm-digits  student, euler, uniform grid           91.0   7.6  *6.7   6.3   6.0   5.9"
    assert lines[5] == "nfm-digits  one-step student, euler, uniform grid  *6.6  *6.9     –     –     –     –"
    assert "two halves of the data: 8.5" in lines and "teacher of nfm-digits: 6.1" in lines
    assert "| fm-digits | student, euler, uniform grid | 87.0 | 20.5 | 8.5 | **4.1** | **2.5** | **1.8** |" \
        in comparison.markdown()
    assert comparison.protocol in comparison.text() and comparison.protocol in comparison.markdown()


def test_json_keeps_every_digit(three):
    tree = json.loads(json.dumps(compare(three).to_json()))
    assert tree["floor"] == 8.52 and tree["shared"]["n_fake"] == 5000 and tree["unequal"] == []
    assert next(s for s in tree["scores"] if s["recipe"] == "nfm-digits" and s["nfe"] == 2)["value"] == 7.645


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_plot_is_the_same_each_time(three, tmp_path, ending):
    paths = [compare(three).plot(tmp_path / f"{name}.{ending}") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if ending == "png":
        assert Image.open(paths[0]).size[0] > 800


def test_other_protocols_are_refused_field_by_field(three, tmp_path):
    three["fm-digits"] = evaluation(tmp_path / "other", "fm-digits", students(FM, n_fake=10_000, seed=3), floor=4.2)
    with pytest.raises(InputError) as refused:
        compare(three)
    told = str(refused.value)
    assert "n_fake: nfm-digits 5,000, fm-digits 10,000, ot-digits 5,000" in told
    assert "seed: nfm-digits 0, fm-digits 3, ot-digits 0" in told and "floor: " in told
    assert "extractor" not in told and "images_seen" not in told and "grid" not in told


def test_a_digest_that_differs_by_itself_is_refused(three):
    three["fm-digits"].metrics["protocol"] = "0" * 16
    with pytest.raises(InputError, match=r"digest: nfm-digits \w{16}, fm-digits 0{16}"):
        compare(three)


def test_unequal_terms_are_said(three, tmp_path):
    assert compare(three).unequal == []
    three["ot-digits"] = evaluation(tmp_path / "longer", "ot-digits", students(OT, images_seen=307_200))
    comparison = compare(three)
    assert comparison.unequal == ["student: images seen in training differ: nfm-digits 153,600; fm-digits 153,600; "
                                  "ot-digits 307,200"]
    assert comparison.unequal[0] in comparison.text()


def test_bad_input(three, tmp_path):
    with pytest.raises(InputError, match="needs an evaluation"):
        compare({})
    with pytest.raises(InputError, match="nfm-digits: data"):
        compare({"nfm-digits": recipe(tmp_path / "whole")["data"]})
    with pytest.raises(InputError, match=r"Measured: FD-classifier"):
        compare(three).table("FID")
    with pytest.raises(InputError, match=r"\.png, \.svg"):
        compare(three).plot(tmp_path / "plot.docx")
