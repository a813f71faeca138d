"""`flowctl sample`: what a finished network is asked for, and that it is asked on its own path."""

import numpy as np
import pytest
import torch

from flows.views import samples
from flows.views.sample_request import SampleRequest
from flows.views.samples import draw
from pipeline.data.conditions import low_resolution
from pipeline.data.examples import drawn as mixed
from pipeline.data.levels import quantise
from pipeline.flow_matching.sampling import starting_images, starting_noise, student_samples
from pipeline.outputs import networks
from pipeline.outputs.images import source_examples
from pipeline.outputs.networks import path_of
from pipeline.recipe.load import load
from pipeline.recipe.sections import Sweep
from pipeline.runtime.seeds import derive
from storage.errors import UsageError
from storage.imageset import ImageSet
from tests.pipeline.stages.test_image_to_image import SMALL, held_out, small
from tests.shared import figures  # noqa: F401 - a fixture

SHORT = ["data.limit=100", "source.limit=90"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def drawn(home, monkeypatch):
    """Images that a student of the recipe draws, their labels, and its artifacts."""
    monkeypatch.setenv("FLOWCTL_HOME", str(home))

    def make(recipe, *overrides, count=6, class_=None, seed=0):
        overrides = ["reference.extractor=pixels", *overrides]  # the cheapest; no sample depends on it
        made = small(home, recipe, *overrides, until="student")
        request = SampleRequest("student", 2, "euler", class_, None, seed, count)
        images, labels, levels, _ = draw(load(recipe, [*SMALL, "compute.inference_batch=4", *overrides]), request)
        assert levels == 17 and images.shape == (count, 1, 8, 8)
        return images, labels, made

    return make


def expected(made, z, labels, condition=None):
    how = Sweep(grid="uniform", nfe=(2,))
    x, _ = student_samples(
        networks.load_network(made["student"]), z, labels, how, 2, path_of(made["student"]), condition
    )
    return quantise(x.numpy(), 17)


def close(images, others):
    """To a level: batches of another size round otherwise."""
    return np.abs(images.astype(int) - others.astype(int)).max() <= 1


def test_a_student_is_sampled_on_the_path_that_it_was_trained_on(drawn):
    images, labels, made = drawn("vp-digits", "evaluation.likelihood=null")
    z = starting_noise(derive(0, "sample"), torch.arange(6), (1, 8, 8))
    assert close(images, expected(made, z, torch.arange(6))) and labels.tolist() == list(range(6))


def test_samples_start_at_the_temperature_of_the_evaluation(drawn):
    images, _, made = drawn(
        "vp-digits", "evaluation.likelihood=null", "evaluation.student=[{nfe: [2], temperature: 1.5}]"
    )
    z = starting_noise(derive(0, "sample"), torch.arange(6), (1, 8, 8))
    assert close(images, expected(made, 1.5 * z, torch.arange(6))) and not close(
        images, expected(made, z, torch.arange(6))
    )


def test_grid_and_temperature_are_those_of_the_sampler_with_the_most_steps(drawn):
    sweeps = "[{grid: quadratic, nfe: [2]}, {grid: uniform, nfe: [1, 4], temperature: 1.3}, {solver: dopri5}]"
    images, _, made = drawn("vp-digits", "evaluation.likelihood=null", f"evaluation.student={sweeps}")
    z = starting_noise(derive(0, "sample"), torch.arange(6), (1, 8, 8))
    assert close(images, expected(made, 1.3 * z, torch.arange(6)))


def test_super_resolution_draws_the_test_images_in_turn(drawn):
    images, labels, made = drawn("sr-digits", seed=2)
    test = held_out(made)
    rows = mixed(len(test), len(test))[:6]
    z = starting_noise(derive(2, "sample"), torch.arange(6), (1, 8, 8))
    assert close(images, expected(made, z, test.classes(rows), low_resolution(test.pixels(rows), 2, 17)))
    assert labels.tolist() == test.classes(rows).tolist()


def test_super_resolution_of_a_class_draws_its_test_images(drawn):
    images, labels, made = drawn("sr-digits", class_="7")
    test = held_out(made)
    order = mixed(len(test), len(test))
    sevens = order[test.classes(order) == 7][:6]
    z = starting_noise(derive(0, "sample"), torch.arange(6), (1, 8, 8))
    assert labels.tolist() == [7] * 6
    assert close(images, expected(made, z, test.classes(sevens), low_resolution(test.pixels(sevens), 2, 17)))


def test_data_to_data_draws_from_the_test_images_of_the_source(drawn):
    images, labels, made = drawn("data-to-data", *SHORT, seed=5)
    source = source_examples(made["source"], ImageSet.open(made["data"].path("images.zarr")), "test")
    z = starting_images(derive(5, "sample"), torch.arange(6), source)
    assert labels is None and close(images, expected(made, z, None))
    with pytest.raises(UsageError):
        drawn("data-to-data", *SHORT, class_="7")


def test_a_teacher_without_guidance_leaves_out_what_acts_through_it(monkeypatch):
    recipe = load("nfm-digits", ["teacher.guidance=0.5", "teacher.attention_temperature=1.5", "teacher.annealed=true"])
    used = []
    monkeypatch.setattr(samples, "teacher_samples", lambda *words: used.append(words[4]))
    monkeypatch.setattr(networks, "schedules_of", lambda *words: [])
    for guidance in (None, 0.0):
        request = SampleRequest("teacher", None, None, None, guidance, 0, 1)
        samples._images(None, None, recipe, request, torch.arange(1), None, None, None, "cpu")
    assert [(how.guidance, how.attention_temperature, how.annealed) for how in used] == [
        (0.5, 1.5, True),
        (0, 1, False),
    ]


def test_more_images_than_fit_the_memory_are_refused(drawn):
    with pytest.raises(UsageError) as raised:
        drawn("vp-digits", "evaluation.likelihood=null", count=10**12)
    assert raised.value.value == "1,000,000,000,000"


def test_a_number_means_a_class_by_its_place_only_where_no_name_is_a_number():
    assert [samples._class(name, ("cat", "caf\u00e9")) for name in ("cat", "0", "1", "cafe\u0301")] == [0, 0, 1, 1]
    assert [samples._class(name, ("1", "2", "10")) for name in ("1", "10")] == [0, 2]
    for name, classes in (("0", ("1", "2", "10")), ("2", ("cat", "dog")), ("x", ("cat", "a\nb"))):
        with pytest.raises(UsageError) as error:
            samples._class(name, classes)
        assert error.value.value == name and "\n" not in error.value.remedy
