"""The report's page: self-contained, escaped, the same each time, and true to its artifacts."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import yaml

from pipeline.engine.dag import build
from pipeline.recipe.fingerprint import fingerprint_fields
from pipeline.recipe.load import load, shipped, validate
from pipeline.reporting.page import memorisation, page, stages, training
from pipeline.reporting.page.charts import by_calls, drawn
from pipeline.reporting.page.curves import of_loss
from pipeline.reporting.page.headline import headline
from pipeline.reporting.scores.metrics import HELD_OUT
from pipeline.reporting.scores.table import table
from pipeline.reporting.text.numbers import count, digits_for, duration, fixed, plain, significant
from pipeline.stages import report
from storage.errors import DamageError
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
        "5000 samples: the distance is biased upwards",
        "2.815",
        "2.693",
        "gaussian, std 0.2 (density of noisy images)",
        "1.0235",
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
        "12.5% of 718 right; chance 10.0% ± 0.4%",
        "12.3% of 718 right; chance 10.0% ± 0.4%",
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
    made = finished.recipe(tmp_path, name="a<b>&", classes=(evil, quoted, "a\u202eb"), warnings=(evil + quoted,))
    found = [
        finished.score("student" + quoted, 1, 9.0, solver=evil, extractor=quoted + evil),
        finished.score("student", 2, 5.0, extractor=quoted + evil),
    ]
    made["evaluation"] = finished.evaluation(
        tmp_path / "b", "x<svg onload=a>", found, config={evil: "</pre>" + evil}, warnings=(evil,)
    )
    text = page.render(made)
    seen = Seen(text)
    assert "\u202e" not in text  # which would turn the text around
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
    assert "The teacher" not in seen and "The noise bank" not in seen and "one-step" not in seen


@pytest.mark.parametrize(("right", "verdict"), [(None, "unclear"), (0.51, "passed"), (0.6, "doubtful")])
def test_the_verdict_on_the_noise_is_that_of_its_test(tmp_path, right, verdict):
    test = right and {"accuracy": right, "chance": 0.5, "standard_error": 0.01, "decisions": 2500}
    seen = Seen(page.render(finished.recipe(tmp_path, two_sample=test)))
    shown = {one["class"] for one in seen.of("p") if one.get("class", "").startswith("verdict")}
    assert f"verdict {verdict}" in shown and not {"verdict passed", "verdict doubtful"} - {f"verdict {verdict}"} & shown
    assert (f"{right:.1%}" in seen and "2,500" in seen) if right else "No test" in seen


def test_every_warning_of_the_bank_leads_the_page(tmp_path):
    seen = Seen(page.render(finished.recipe(tmp_path, bank_warnings=["Class 3 has 12 noises."])))
    assert seen.of("aside") and "Class 3 has 12 noises." in seen


def test_the_recipe_on_the_page_is_the_recipe(inputs):
    again = validate(yaml.safe_load(stages.recipe(inputs)), "the page's")
    assert all(again.sections()[role] == load("nfm-digits").sections()[role] for role in inputs)


@pytest.mark.parametrize("name", [name for name in shipped() if name.endswith("digits")])
def test_the_recipe_of_every_coupling_is_read_again(name):
    nodes = build(load(name))
    artifacts = {
        role: SimpleNamespace(name=name, config=fingerprint_fields(nodes[role].config))
        for role in nodes["report"].inputs
    }
    again = validate(yaml.safe_load(stages.recipe(artifacts)), "the page's")
    assert build(again)["report"].fingerprint == nodes["report"].fingerprint


def test_rounds_on_the_page_are_rounds_of_the_recipe(tmp_path):
    wanted = load("nfm-digits-reflow", ["onestep.steps=2", "evaluation.onestep=[{grid: uniform, nfe: [2]}]"])
    made = finished.rich(tmp_path)
    made |= {
        role: made[role].model_copy(update={"config": fingerprint_fields(wanted.sections()[role])})
        for role in ("pairs-1", "reflow-1", "pairs", "onestep", "evaluation")
    }
    text = stages.recipe(made)
    again = validate(yaml.safe_load(text), "the page's")
    roles = ("pairs-1", "reflow-1", "pairs", "onestep")
    assert all(again.sections()[role] == wanted.sections()[role] for role in roles)


def test_damaged_payload_is_named(tmp_path):
    made = finished.recipe(tmp_path, pictures={"evaluation": {"samples.png": b"no picture"}})
    with pytest.raises(DamageError, match=r"samples.png: not a PNG"):
        page.render(made)
    made["student"].path("history.jsonl").write_text("[1]\n")
    with pytest.raises(DamageError, match="--force student"):
        training.students(made)


def test_the_warnings_of_every_stage_are_shown(tmp_path):
    made = finished.rich(tmp_path)
    for role in ("potentials", "reflow-1", "student", "evaluation"):
        like = made.get(role, made["student"])
        made[role] = like.model_copy(update={"metrics": {**like.metrics, "warnings": [f"of {role}"]}})
    found = dict(page.view(made)["warnings"])
    assert {role: found[role] for role in ("potentials", "reflow-1", "student", "evaluation")} == {
        "potentials": "of potentials",
        "reflow-1": "of reflow-1",
        "student": "of student",
        "evaluation": "of evaluation",
    }


def test_files_that_the_data_stage_left_out_are_named(inputs):
    left_out = [{"kind": "txt", "count": 3, "names": ["a.txt", "b.txt"]}]
    metrics = inputs["data"].metrics | {"left_out": left_out, "notes": ["Labels are folder names."]}
    seen = Seen(page.render(inputs | {"data": inputs["data"].model_copy(update={"metrics": metrics})}))
    assert "3 × txt (a.txt, b.txt …)" in seen and "Labels are folder names." in seen


# -- what the words are of ------------------------------------------------------------------------------------------


def test_the_headline_holds_samples_against_held_out_images():
    def said(sweep, yardstick):
        scores = [finished.score("student", nfe, value) for nfe, value in sweep.items()]
        return headline(table({"r": [scores]}, "FD-classifier", yardstick))

    assert said({1: 87, 2: 20.5, 4: 8.53, 8: 5.15, 16: 4.0}, (HELD_OUT, 5.3)).startswith("8 network calls reach")
    assert "16 network calls" in said({1: 55.0, 16: 25.0}, (HELD_OUT, 5.3))
    assert "held-out images are at 5.3" in said({1: 55.0}, (HELD_OUT, 5.3)) and ";" not in said({1: 55.0}, None)


def test_the_headline_compares_with_held_out_images_at_equal_numbers():
    """A distance of fewer images is larger: that of all samples may lie below theirs and reach nothing."""
    few = {1: 5.4, 2: 5.2, 4: 5.1}  # of as many samples as held-out images
    scores = [
        (plain := finished.score("student", nfe, value)).model_copy(
            update={"value_at_equal_count": few[nfe], "protocol": plain.protocol | {"n_held_out": 359}}
        )
        for nfe, value in {1: 3.0, 2: 2.5, 4: 2.4}.items()
    ]
    made = table({"r": [scores]}, "FD-classifier", (HELD_OUT, 5.3))
    said = headline(made)
    assert said.startswith("2 network calls reach") and "2.5" in said and "5.3" in said and "5.2" in said
    assert len(made.notes) == len(table({"r": [scores]}, "FD-classifier", None).notes) + 2


@pytest.mark.parametrize(
    ("metric", "reach"), [("FD-classifier", False), ("SW2-classifier", False), ("KD-classifier", True)]
)
def test_the_headline_claims_nothing_of_more_samples_without_a_score_of_as_many(metric, reach):
    """A class with too few samples leaves none; all of them against fewer images would say too much."""
    scores = [finished.score("student", nfe, value) for nfe, value in {1: 3.0, 2: 2.5}.items()]
    scores = [
        score.model_copy(update={"metric": metric, "protocol": score.protocol | {"metric": metric, "n_held_out": 359}})
        for score in scores
    ]
    made = table({"r": [scores]}, metric, (HELD_OUT, 5.3))
    assert headline(made).startswith("1 network call reaches") == reach
    assert ("the best of this sweep" in headline(made)) != reach
    assert len(made.notes) == len(table({"r": [scores]}, metric, None).notes) + (1 if reach else 2)


def test_the_headline_gives_the_distance_to_the_held_out_images_too():
    values = {1: (9.0, 12.0), 2: (4.0, 7.5), 4: (4.5, 7.0)}
    scores = [
        finished.score("student", nfe, value).model_copy(update={"value_held_out": held_out})
        for nfe, (value, held_out) in values.items()
    ]
    said = headline(table({"r": [scores]}, "FD-classifier", (HELD_OUT, 5.3)))
    assert "FD-classifier 4.0" in said and "7.5" in said and "7.0" not in said


def test_super_resolution_leads_with_psnr_and_ssim(inputs, tmp_path):
    found = [
        score.model_copy(update={"metric": metric, "value": value})
        for score in finished.scores({1: 9.0, 2: 5.0})
        for metric, value in (("FD-classifier", score.value), ("PSNR", 20 + score.nfe), ("SSIM", 0.5 + score.nfe / 10))
        if score.model == "student"
    ]
    inputs["evaluation"] = finished.evaluation(tmp_path / "sr", found=found)
    view = page.view(inputs)
    assert [view["table"].metric, *(other.metric for other, _ in view["others"])] == ["PSNR", "SSIM", "FD-classifier"]
    assert "PSNR 22.0" in view["headline"] and "SSIM 0.70" in view["headline"]


def test_data_to_data_speaks_of_source_images(tmp_path):
    made = finished.recipe(tmp_path, "data-to-data", classes=None, without=PLAIN_FM)
    student = made["student"].model_copy(update={"metrics": made["student"].metrics | {"coupling": "independent"}})
    seen = Seen(page.render(made | {"source": made["data"], "student": student}))
    said = " ".join(seen.words).partition("</style>")[2] or " ".join(seen.words[seen.words.index("data-to-data") :])
    assert "source image" in seen and "noise" not in said.partition("Protocol")[0]


def near(model, median, copies):
    shared = {"solver": "euler", "nfe": 1, "near": 0.12, "generated": 100, "real": 50, "train": 100}
    return finished.MemorisationResult(
        model=model, samples=(0.1, median, 2.0), held_out=(0.1, 0.27, 0.5), copies=copies, **shared
    )


@pytest.mark.parametrize(
    ("items", "state"),
    [
        ([("student", 0.26, 0.01)], "passed"),
        ([("student", 0.26, 0.2), ("onestep", 0.9, 0.0)], "doubtful"),
        ([("student", 0.26, 0.01), ("onestep", 0.9, 0.0)], "unclear"),  # grey noise copies nothing, and proves nothing
    ],
)
def test_no_copies_is_said_only_of_images(inputs, items, state):
    result = finished.EvaluationResult.model_validate(inputs["evaluation"].metrics)
    result = result.model_copy(update={"memorisation": tuple(near(*item) for item in items)})
    assert memorisation.view(result, inputs["evaluation"]).state == state


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
    assert duration(-4000.0) == duration(0.0)  # of a clock that was set back
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
    def charts(scores):
        return drawn(by_calls(table({"r": [scores]}, "FD-classifier"), lambda item: item.model))

    chart = charts(finished.scores())[0]
    for curve in chart.curves:
        assert all(chart.left <= mark.x <= chart.right and chart.top <= mark.y <= chart.bottom for mark in curve.marks)
    places = [mark.y for mark in chart.curves[0].marks]
    assert places == sorted(places)  # better is lower
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "4", "8", "16", "64"]
    assert charts([finished.score("student", 1, 0.0), finished.score("student", 2, 1.0)]) == ()


def test_loss_curves():
    flat = [{"images": n, "loss": 1.0} for n in (10, 20)]
    assert of_loss(flat, "student").y_ticks and of_loss(flat[:1], "student") is None
    falling = [{"images": n, "loss": 1 / n} for n in range(1, 101)]
    assert [tick.text for tick in of_loss(falling, "student").x_ticks] == ["0", "50", "100"]
