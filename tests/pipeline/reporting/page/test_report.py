"""The report's page: self-contained, escaped, the same each time, and true to its artifacts."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml

from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.load import load, validate
from pipeline.reporting.page import page, stages, training, words
from pipeline.reporting.page.charts import by_calls, of_loss
from pipeline.reporting.page.scores import table
from pipeline.reporting.text.numbers import count, digits_for, duration, fixed, plain, significant
from pipeline.stages import report
from storage.errors import DamageError, InputError
from tests.pipeline import jobs
from tests.pipeline.reporting import finished

PLAIN_FM = ("teacher", "bank", "pairs", "onestep")


class Seen(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def __contains__(self, words):
        return words in " ".join(" ".join(self.words).split())

    def of(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture
def inputs(tmp_path):
    return finished.recipe(tmp_path, warnings=("5000 samples: the distance is biased upwards",))


# -- the page ----------------------------------------------------------------------------------------------------


def test_the_stage_writes_page_and_facts(tmp_path, inputs):
    job = replace(jobs.job(tmp_path / "work", "report"), inputs=inputs)
    assert report.run(job).page == "report.html"
    assert (job.out / "report.html").read_text() == page.render(inputs)
    told = json.loads((job.out / "report.json").read_text())
    assert told["scores"] == inputs["evaluation"].metrics["scores"]
    assert [stage["stage"] for stage in told["stages"]] == [
        "data",
        "reference",
        "teacher",
        "bank",
        "student",
        "pairs",
        "onestep",
    ]


def test_everything_is_there(inputs):
    seen = Seen(page.render(inputs))
    for text in (
        "nfm-digits",
        "1 network call reaches FD-classifier 6.6 with the one-step student; the data’s own halves differ by 8.5.",
        "5000 samples: the distance is biased upwards",
        "2.815",
        "2.693",
        "gaussian, std 0.2 (density of noisy images)",
        "1.0235",
        "The noise passes",
        "0.066",
        "17 levels, rounded half up",
        "98.4 %",
        "resumed once",
        "4 min 14 s",
        "flowctl run nfm-digits",
        "e9e9c9f0d6a5b4c3",
        inputs["student"].fingerprint[:12],
        "91.0",
        "7.6",
        "0.0173",
        "1.193",
        "Transport cost per dimension, E (z − x)²",
        "Transport cost per dimension, mean over the training",
    ):
        assert text in seen, text


def test_it_fetches_nothing_and_runs_nothing(inputs):
    text = page.render(inputs)
    seen = Seen(text)
    assert not seen.of("script", "iframe", "object", "embed", "base", "form")
    assert all(link["href"].startswith("data:") for link in seen.of("link", "a"))
    assert len(seen.of("img")) == 3
    assert all(image["src"].startswith("data:image/png;base64,") for image in seen.of("img"))
    assert not re.search(r"(https?:)?//\w", re.sub(r"data:image/png;base64,[^\"]*", "", text))
    assert "url(" not in text and "@import" not in text


def test_pictures_have_words_and_sizes(inputs):
    seen = Seen(page.render(inputs))
    assert all(len(image["alt"]) > 20 and int(image["width"]) and int(image["height"]) for image in seen.of("img"))
    drawings = [drawing for drawing in seen.of("svg") if drawing.get("role") == "img"]
    assert len(drawings) == 7 and all(len(drawing["aria-label"]) > 20 for drawing in drawings)


def test_the_same_artifacts_give_the_same_bytes(inputs):
    assert page.render(inputs) == page.render(dict(inputs))


def test_hostile_texts_stay_texts(tmp_path):
    evil = "<script>alert(1)</script>"
    quoted = "\"'><img src=x onerror=alert(2)>"
    made = finished.recipe(
        tmp_path, name="a<b>&", classes=(evil, quoted), warnings=(evil + quoted,), noise_warnings=(quoted,)
    )
    found = [
        finished.score("student" + quoted, 1, 9.0, solver=evil, extractor=quoted + evil),
        finished.score("student", 2, 5.0, extractor=quoted + evil),
    ]
    made["evaluation"] = finished.evaluation(
        tmp_path / "b", "x<svg onload=a>", found, config={evil: "</pre>" + evil}, warnings=(evil,)
    )
    text = page.render(made)
    seen = Seen(text)
    assert evil in seen and "</pre>" + evil in "".join(seen.words)
    assert not seen.of("script") and len(seen.of("img")) == 2
    known = {
        "src",
        "alt",
        "width",
        "height",
        "class",
        "style",
        "content",
        "name",
        "charset",
        "http-equiv",
        "href",
        "rel",
    }
    assert not [key for _, attributes in seen.elements for key in attributes if key.startswith("on")]
    assert set().union(*(image.keys() for image in seen.of("img", "meta", "link", "b", "i"))) <= known


def test_a_recipe_without_a_teacher(tmp_path):
    seen = Seen(page.render(finished.recipe(tmp_path, "fm-digits", without=PLAIN_FM)))
    assert "2 network calls reach FD-classifier 7.6 with the student" in seen
    assert "The teacher" not in seen and "The couplings" not in seen and "one-step" not in seen


def test_a_weak_teacher_is_said(tmp_path):
    seen = Seen(page.render(finished.recipe(tmp_path, noise_warnings=("the teacher is too weak",))))
    assert "The noise is not what the student is sampled from" in seen and "the teacher is too weak" in seen


def test_the_recipe_on_the_page_is_the_recipe(inputs):
    again = validate(yaml.safe_load(stages.recipe(inputs)), "the page's")
    assert all(again.section(role) == load("nfm-digits").section(role) for role in inputs)


def test_rounds_on_the_page_are_rounds_of_the_recipe(tmp_path):
    wanted = load("nfm-digits-reflow", ["onestep.steps=2", "evaluation.onestep=[{grid: uniform, nfe: [2]}]"])
    made = finished.rich(tmp_path)
    made |= {
        role: made[role].model_copy(update={"config": fingerprint_fields(wanted.section(role))})
        for role in ("pairs-1", "reflow-1", "pairs", "onestep", "evaluation")
    }
    text = stages.recipe(made)
    again = validate(yaml.safe_load(text), "the page's")
    assert all(again.section(role) == wanted.section(role) for role in ("pairs-1", "reflow-1", "pairs", "onestep"))


def test_damaged_payload_is_named(tmp_path):
    made = finished.recipe(tmp_path, pictures={"evaluation": {"samples.png": b"no picture"}})
    with pytest.raises(DamageError, match=r"samples.png: not a PNG"):
        page.render(made)
    made["student"].path("history.jsonl").write_text("[1]\n")
    with pytest.raises(DamageError, match="--force student"):
        training.students(made)


# -- tables ------------------------------------------------------------------------------------------------------


def made_table(found, floor=8.52):
    return table({"r": found}, floor, "FD-classifier")


def test_ways_of_sampling_have_rows_of_their_own():
    found = [
        finished.score("student", 1, 9.0),
        finished.score("student", 2, 5.0),
        finished.score("student", 2, 4.0, grid="quadratic"),
        finished.score("student", 2, 3.0, "heun"),
        finished.score("student", 2, 2.0, "heun", guidance=1.5),
    ]
    made = made_table(found)
    assert [row.way for row in made.rows] == [
        "euler, uniform grid",
        "euler, quadratic grid",
        "heun, uniform grid",
        "heun, uniform grid, guidance 1.5",
    ]
    assert [[cell and cell.text for cell in row.cells] for row in made.rows] == [
        ["9.0", "5.0"],
        [None, "4.0"],
        [None, "3.0"],
        [None, "2.0"],
    ]
    assert [cell.best for row in made.rows for cell in row.cells if cell] == [False, False, False, False, True]


def test_a_table_refuses_mixed_protocols():
    with pytest.raises(InputError, match=r"n_fake: 5,000 and 50,000"):
        made_table([finished.score("student", 1, 9.0), finished.score("student", 2, 5.0, n_fake=50_000)])
    with pytest.raises(InputError, match="two for student"):
        made_table([finished.score("student", 1, 9.0), finished.score("student", 1, 5.0)])


def test_ema_tells_rows_apart_where_it_differs():
    made = made_table([finished.score("student", 1, 9.0, ema=f"half-life-{n}") for n in (10, 20)])
    assert [row.way for row in made.rows] == [f"euler, uniform grid, ema half-life-{n}" for n in (10, 20)]


def test_the_best_is_marked_as_it_is_printed():
    made = made_table([finished.score("student", 1, 5.04), finished.score("onestep", 1, 4.96)])
    assert [row.cells[0].text for row in made.rows] == ["5.0", "5.0"] and all(row.cells[0].best for row in made.rows)


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ({1: 87, 2: 20.5, 4: 8.53, 8: 4.15}, "8 network calls reach FD-classifier 4.2 with the student; "),
        ({1: 55.0, 16: 25.0}, "16 network calls reach FD-classifier 25.0 with the student, the best of this sweep; "),
    ],
)
def test_the_headline(sweep, sentence):
    made = made_table([finished.score("student", nfe, value) for nfe, value in sweep.items()])
    assert words.headline(made) == sentence + "the data’s own halves differ by 8.5."


# -- numbers and curves ------------------------------------------------------------------------------------------


def test_rounding_is_half_up():
    assert [fixed(v, 2) for v in (2.675, 0.125, -1.005, -0.001, 1234.5)] == [
        "2.68",
        "0.13",
        "−1.01",
        "0.00",
        "1,234.50",
    ]
    assert [significant(v) for v in (0.0, 9.996, 0.00018, 1234.5, 1.8e-7, 0.9996)] == [
        "0",
        "10.0",
        "0.000180",
        "1,235",
        "1.80e−7",
        "1.00",
    ]
    assert [digits_for(v) for v in ([91, 5.9], [0.52, 30.0], [120.0], [0])] == [1, 2, 1, 1]


def test_times_and_facts_in_words():
    assert [duration(s) for s in (0.44, 9.96, 59.6, 101.7, 3600, 45_296)] == [
        "0.4 s",
        "10.0 s",
        "1 min 00 s",
        "1 min 42 s",
        "1 h 00 min",
        "12 h 35 min",
    ]
    assert [plain(v) for v in (None, True, 50_000, 0.25, [1, 2], "x")] == ["none", "yes", "50,000", "0.25", "1, 2", "x"]
    assert [count(v) for v in (8.0, 57.25)] == ["8", "57.3"]


def test_a_curve_stays_in_its_frame():
    made = made_table(finished.scores())
    chart = by_calls(made, 760, 400, "wide")
    for curve in chart.curves:
        assert all(chart.left <= mark.x <= chart.right and chart.top <= mark.y <= chart.bottom for mark in curve.marks)
    places = [mark.y for mark in chart.curves[0].marks]
    assert places == sorted(places)  # better is lower
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "4", "8", "16", "64"]
    assert by_calls(made_table([finished.score("student", 1, 0.0)]), 760, 400, "wide") is None


def test_loss_curves():
    flat = [{"images": n, "loss": 1.0} for n in (10, 20)]
    assert of_loss(flat, "student").y_ticks and of_loss(flat[:1], "student") is None
    falling = [{"images": n, "loss": 1 / n} for n in range(1, 101)]
    assert [tick.text for tick in of_loss(falling, "student").x_ticks] == ["0", "50", "100"]
