"""What people and scripts get: text, Markdown, JSON and back, a picture; and runs from artifacts."""

import json

import matplotlib
import pytest
from PIL import Image

from pipeline.reporting.compare import SeedRun, compare, run_of
from storage.errors import InputError, UsageError
from tests.pipeline.reporting import finished
from tests.pipeline.reporting.compare.runs import run, seeds, three


def test_the_terminal():
    lines = compare(three()).text().splitlines()
    assert lines[0] == "FD-classifier by network calls"
    assert lines[4] == "nfm-digits  student           91.0   7.6  *6.7   6.3   6.0   5.9"
    assert lines[5] == "nfm-digits  one-step student  *6.6  *6.9     –     –     –     –"
    assert max(map(len, lines)) <= 120


def test_markdown():
    text = compare(three()).markdown()
    assert "| fm-digits | student | 87.0 | 20.5 | 8.5 | **4.1** | **2.5** | **1.8** |" in text
    assert "| recipe | transport cost | Var(v \\| x_t, t) | curvature × 1,000 | coupling, s | student, s |" in text
    assert "`0000000000000000`" in text


def test_several_seeds_are_said():
    comparison = compare(seeds(1.0, 1.1, 0.9))
    assert comparison.text().startswith("FD-classifier by network calls, mean ± standard deviation over 3 seeds\n")
    assert "**87.0 ± 8.7**" not in comparison.markdown() and "87.0 ± 8.7" in comparison.markdown()
    assert "over 9 students of 3 recipes" in " ".join(comparison.markdown().split())
    assert "seeds" not in compare(three()).text()


def test_json_and_back():
    comparison = compare(seeds(1.0, 1.3, 0.9))
    tree = json.loads(json.dumps(comparison.to_json()))
    assert compare([SeedRun.model_validate(item) for item in tree["runs"]]) == comparison
    (cell,) = [row for row in tree["rows"] if (row["recipe"], row["nfe"]) == ("fm-digits", 2)]
    assert cell["mean"] == pytest.approx(20.5 * 3.2 / 3) and cell["least"] == pytest.approx(18.45)
    assert cell["seeds"] == 3 and not cell["adaptive"]
    assert tree["floor"] == 8.52 and tree["unequal"] == [] and tree["seeds"] == [0, 1, 2]
    assert tree["figures"][0]["curvature"]["mean"] == pytest.approx(1e-3 * 3.2 / 3)
    assert next(item for item in tree["runs"][0]["scores"] if item["nfe"] == 2)["value"] == 7.645


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_plot_is_the_same_each_time(tmp_path, ending):
    paths = [compare(seeds(1.0, 1.2)).plot(tmp_path / f"{name}.{ending}") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if ending == "png":
        assert Image.open(paths[0]).size[0] > 800


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_users_style_changes_no_byte_of_the_plot(tmp_path, ending):
    plain = compare(three()).plot(tmp_path / f"plain.{ending}")
    theirs = {"font.size": 30, "text.usetex": True, "savefig.facecolor": "red", "svg.fonttype": "none"}
    with matplotlib.rc_context(theirs):
        assert compare(three()).plot(tmp_path / f"theirs.{ending}").read_bytes() == plain.read_bytes()


def test_what_the_plot_shows():
    from pipeline.reporting.compare._plot import draw

    adaptive = finished.score("student", 57, 2.0, "dopri5")
    found = [
        run(
            "fm-digits",
            scores=[finished.score("student", 1, 9.0), finished.score("student", 2, 5.0), adaptive],
            seed=seed,
            scale=scale,
        )
        for seed, scale in enumerate((1.0, 2.0))
    ]
    axes = draw(compare(found).table(), 2).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["fm-digits"].get_ydata().tolist() == [13.5, 7.5]
    (band,) = [patch.get_paths()[0].vertices for patch in axes.collections if "Poly" in type(patch).__name__]
    assert {tuple(corner) for corner in band} >= {(1, 9), (1, 18), (2, 5), (2, 10)}
    (hollow,) = [line for line in axes.lines if line.get_fillstyle() == "none"]
    assert (hollow.get_xdata()[0], hollow.get_ydata()[0]) == (57, 3.0)
    assert "2 seeds" in axes.get_title("left") and "dopri5" in axes.get_title("left")


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_plot_needs_positive_numbers(tmp_path, value):
    with pytest.raises(InputError):
        compare([run(scores=[finished.score("student", 1, value)])]).plot(tmp_path / "plot.png")


def test_a_plot_is_a_picture_file(tmp_path):
    with pytest.raises(UsageError):
        compare(three()).plot(tmp_path / "plot.docx")


# -- runs from artifacts ---------------------------------------------------------------------------------------------


def test_a_run_of_artifacts(tmp_path):
    made = finished.recipe(tmp_path)
    found = run_of("nfm-digits", 5, made)
    assert (found.recipe, found.seed, found.curvature, found.transport_cost) == ("nfm-digits", 5, 1.8e-4, 1.1925)
    assert found.seconds == {role: artifact.provenance.wall_seconds for role, artifact in made.items()}
    assert found.resumed == ("student",) and found.machine == "cpu, 2 threads, torch 2.9.1"
    assert (found.noise.sliced_w2, found.noise.held_out) == (0.0655, 0.0891)  # the bank's, as the student has none
    assert (found.teacher_bits.train, found.teacher_bits.held_out) == (2.6925, 2.8145)
    assert found.fingerprints["teacher"] == made["teacher"].fingerprint[:12]
    assert found.trained["student"]["training.batch"] == "128" and "training.images" not in found.trained["student"]
    assert len(found.scores) == len(made["evaluation"].metrics["scores"])


def test_what_the_student_measured_comes_before_what_its_bank_did(tmp_path):
    made = finished.recipe(tmp_path)
    made["student"].metrics.update(
        noise_gaussianity=finished.spread(1437, 1.0, 0.0444),
        velocity_variance={"mean": 0.25, "times": [0.5], "values": [0.25], "pairs": 1437, "within_classes": True},
    )
    found = run_of("nfm-digits", 0, made)
    assert (found.noise.sliced_w2, found.noise.held_out) == (0.0444, 0.0891)
    assert found.velocity_variance.mean == 0.25
    made["student"].config["coupling"]["soften"] = 0.4  # held-out noise is not softened
    assert run_of("nfm-digits", 0, made).noise.held_out is None


def test_a_run_without_a_teacher_or_without_what_it_needs(tmp_path):
    made = finished.recipe(tmp_path, "fm-digits", without=("teacher", "bank", "pairs", "onestep"))
    found = run_of("fm-digits", 0, made)
    assert found.noise is None and found.teacher_bits is None and "teacher" not in found.seconds
    for stage in ("student", "evaluation"):
        with pytest.raises(InputError) as raised:
            run_of("fm-digits", 0, {name: artifact for name, artifact in made.items() if name != stage})
        assert stage in raised.value.value
