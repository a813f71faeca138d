"""The benchmark of a GPU: parts that go wrong stop no other, and on a GPU the parts' own checks hold."""

import argparse
import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import TF32, Context, fashion, matmul_flops, memory, networks, repeat, tests, unet, waiting
from benchmarks.timing import Bench
from pipeline.data.sources.idx import read_idx
from pipeline.data.sources.published import IDX_FILES
from pipeline.recipe.load import load

WRONG = "tests.benchmarks.parts"
CPU = torch.device("cpu")


def context(device="cpu", seconds=3600.0):
    return Context.of(device, True, seconds)


def rows_and_error(measured):
    """The rows of a part that ends with an AssertionError, and its text."""
    rows = []
    with pytest.raises(AssertionError) as error:
        for row in measured:
            rows.append(row)
    return rows, str(error.value)


@pytest.mark.slow
def test_a_part_that_fails_or_dies_or_hangs_stops_no_other(tmp_path, monkeypatch):
    parts = (gpu.Part("broken", 1, WRONG), gpu.Part("killed", 1, WRONG), gpu.Part("endless", 0, WRONG))
    monkeypatch.setattr(gpu, "PARTS", (*parts, gpu.Part("machine", 1)))
    monkeypatch.setattr(gpu, "GRACE", 1.0)
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 1
    result = json.loads((tmp_path / "gpu-cpu-quick.json").read_text())
    broken, killed, endless, machine = result["parts"]
    assert broken["rows"] == [{"figure": 1.5, "kind": "before | the failure"}]
    assert "RuntimeError: no kernel for cpu" in broken["error"]
    assert killed["rows"] == [{"figure": 2}] and "-9" in killed["error"]
    assert "error" in endless and endless["rows"] == []
    assert "error" not in machine and {"fact": "torch", "value": torch.__version__} in machine["rows"]
    page = (tmp_path / "gpu-cpu-quick.md").read_text()
    assert "| 1.5 | before \\| the failure |" in page and "no kernel for cpu" in page
    assert "## A part whose process is killed" in page


def test_a_missing_device_is_the_error_of_a_part(tmp_path):
    words = ["--part", "benchmarks.gpu_parts.machine", "--seconds", "9", "--device", "cuda:99"]
    assert gpu.main([*words, "--into", str(tmp_path / "part.json")]) == 0
    part = json.loads((tmp_path / "part.json").read_text())
    assert part["rows"] == [] and part["error"]


def test_a_network_far_from_the_cpus_is_the_error_of_a_part_with_all_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "TOLERANCE", {"float32": -1.0, "bfloat16": -1.0})
    digits = [case for case in networks.cases(True) if case[0] == "U-Net, digits"]
    monkeypatch.setattr(networks, "cases", lambda quick: digits)
    options = ["--part", "benchmarks.gpu_parts.networks", "--seconds", "99", "--device", "cpu", "--quick"]
    assert gpu.main([*options, "--into", str(tmp_path / "part.json")]) == 0
    part = json.loads((tmp_path / "part.json").read_text())
    assert [row["within rounding"] for row in part["rows"]] == [False, False]
    assert "AssertionError" in part["error"] and "U-Net, digits in bfloat16" in part["error"]


def test_a_deterministic_training_of_other_bits_is_named():
    same = {"network": "student", "deterministic": True, "compiled": False}
    bits = ("twice the same bits", "resumed the same bits")
    assert repeat.differing(same | dict.fromkeys(bits, True)) == []
    assert repeat.differing(same | dict.fromkeys(bits, False) | {"deterministic": False}) == []
    for bit in bits:
        assert repeat.differing(same | dict.fromkeys(bits, True) | {bit: False}) == ["student"]


def bits_of(monkeypatch, same):
    """Trainings that take no time and end, twice and resumed, with the same bits or not."""
    monkeypatch.setattr(Context, "cuda", True)
    monkeypatch.setattr(repeat, "price", lambda model, context: {"network": model})

    def bits(model, context, compute):
        ends = dict.fromkeys(("twice the same bits", "resumed the same bits"), same)
        deterministic, compiled = compute.get("deterministic", True), compute.get("compile", False)
        return {"network": model, "deterministic": deterministic, "compiled": compiled, **ends}

    monkeypatch.setattr(repeat, "bits", bits)


def test_other_bits_are_named_before_networks_are_compiled_and_those_only_where_there_is_time(monkeypatch):
    bits_of(monkeypatch, False)
    rows, error = rows_and_error(repeat.measure(context(seconds=3600.0)))
    assert "student, compiled, teacher, compiled" in error
    [named] = [number for number, row in enumerate(rows) if len(row) == 1 and "network" not in row]
    assert list(rows[named].values()) == [f"student, {repeat.MEANFLOW}, teacher"]
    assert {row["network"] for row in rows if row.get("compiled")} == {"student", "teacher"}
    assert not any(row.get("compiled") for row in rows[:named])
    bits_of(monkeypatch, True)
    rows = list(repeat.measure(context(seconds=30.0)))
    assert [row["network"] for row in rows if "left out" in row] == ["student", "teacher"]
    assert not any(row["compiled"] for row in rows if "deterministic" in row)


def test_a_network_is_compiled_only_where_there_is_time():
    def asked(seconds):
        there = Context(CPU, False, context(seconds=seconds).ends)
        return [(setting.precision, setting.compiled) for setting, *_ in unet.settings(there)]

    eager = [("bfloat16", False), ("float32", False)]
    assert asked(60.0) == eager and asked(5.0) == []
    assert asked(3600.0) == [eager[0], ("bfloat16", True), ("bfloat16", True), eager[1]]


@pytest.mark.parametrize(
    ("device", "precision", "products"),
    [("cpu", "float32", "float32"), ("cuda", "float32", TF32), ("cuda", "bfloat16", "bfloat16")],
)
def test_a_unet_is_compared_with_products_in_the_precision_of_its_convolutions(device, precision, products):
    assert unet.products_of(unet.Setting("narrow", 2, precision, torch.device(device))) == products


def test_products_are_measured_in_the_precision_that_is_asked_for(monkeypatch):
    seen, before = [], torch.get_float32_matmul_precision()

    def medians(bench, work):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return [1.0]

    monkeypatch.setattr(Bench, "medians", medians)
    rates = [matmul_flops(context(), precision) for precision in ("float32", TF32, "bfloat16")]
    assert seen == ["ieee", "tf32", "ieee"] and rates == [4 * 512**3] * 3
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.slow
def test_workspaces_are_allocated_before_the_first_measurement(monkeypatch):
    done = []
    monkeypatch.setattr(Context, "cuda", True)
    monkeypatch.setattr(memory, "two_steps", lambda setting: done.append("steps"))
    monkeypatch.setattr(memory, "peak", lambda device, work: done.append("measured") or work() or 1.0)
    assert len(list(memory.measure(context()))) == 1
    assert done == ["steps", "measured", "steps"]


def test_tests_of_a_gpu_are_told_apart_also_where_the_time_ended():
    output = "===== starts =====\na/t.py::test_a PASSED   [ 50%]\na/t.py::test_b[1] FAILED  [ 60%]\na/t.py::test_c "
    assert tests.outcomes(output) == {"test_a": "passed", "test_b[1]": "failed", "test_c": "not ended"}
    summary = output + "PASSED [100%]\n\n===== warnings =====\na/t.py::test_a\n  SomeWarning\n"
    assert tests.outcomes(summary)["test_c"] == tests.outcomes(summary)["test_a"] == "passed"


@pytest.mark.slow
def test_tests_of_a_gpu_end_with_the_time_of_their_part(tmp_path, monkeypatch):
    file = tmp_path / "test_two.py"
    head = "import pytest\npytestmark = pytest.mark.gpu\n"
    file.write_text(head + "def test_right():\n    pass\ndef test_wrong():\n    assert False\n")
    monkeypatch.setattr(tests, "TESTS", str(file))
    for seconds, ended in ((60.0, {"test_right": "passed", "test_wrong": "failed"}), (0.0, {})):
        rows, _ = rows_and_error(tests.measure(context(seconds=seconds)))
        assert {row["test"]: row["outcome"] for row in rows[:-1]} == ended


def test_the_tests_that_are_parts_exist():
    assert set(tests.PARTS) <= set(globals())


def test_the_workspaces_of_cublas_are_fixed_before_a_part_begins():
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    code = "import os, benchmarks.gpu_parts; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ":4096:8\n"


def test_a_part_ends_by_itself_before_it_is_killed(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gpu, "run", lambda part, seconds, limit, options: asked.append((seconds, limit)) or {"rows": []}
    )
    monkeypatch.setattr(gpu, "_write", lambda *words: None)
    gpu.measure(gpu.PARTS, argparse.Namespace(device="cpu", quick=True, minutes=9.0, out=tmp_path))
    assert all(0 < seconds <= limit - gpu.GRACE for seconds, limit in asked) and asked[-1][1] <= 540


def test_parts_that_do_not_exist_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--only", "unet,typo"])
    assert "typo" in capsys.readouterr().err


def test_the_share_of_fashion_is_the_one_that_fits(monkeypatch):
    recipe = load("nfm-fashion")
    monkeypatch.setattr(fashion, "seconds_per_image", lambda recipe, stage, context: 1e-5)
    generous, short = (fashion.affordable(recipe, context(seconds=seconds)) for seconds in (3600.0, 120.0))
    assert generous == 1.0 and 0 < short < 1
    for name in fashion.RECIPES:
        reduced = load(name, fashion.affordable_work(load(name), short))
        assert reduced.student.training.images == round(short * recipe.student.training.images)
        assert reduced.student.training.ema < recipe.student.training.ema


def test_rates_are_those_of_the_steps_that_the_recipe_takes(monkeypatch):
    smaller = [
        "compute.device=cpu",
        "data.size=28",
        "student.network.attention=[14]",
        "student.training.batch=2",
        "teacher.training.batch=2",
    ]
    recipe = load("nfm-fashion", [*fashion.tiny(load("nfm-fashion")), *smaller])
    took = []

    class Counted(fashion.Loop):
        def training_step(self, step, *words):
            took.append((self.job.stage, step))
            return super().training_step(step, *words)

    monkeypatch.setattr(fashion, "Loop", Counted)
    assert all(fashion.seconds_per_image(recipe, stage, context()) > 0 for stage in ("teacher", "student"))
    assert took == [(stage, step) for stage in ("teacher", "student") for step in range(10)]  # a warm-up, and a round


def test_generated_images_have_the_format_of_the_data_set(tmp_path):
    folder = fashion.generated(tmp_path / "idx", 40)
    images, labels, held_out, _ = (read_idx(folder / name, 3 - 2 * ("labels" in name)) for name in IDX_FILES)
    assert images.shape == (40, 28, 28) and held_out.shape == (10, 28, 28) and set(labels) <= set(range(10))
    assert images.std() > 20


def test_values_are_not_read_inside_and_are_read_again_outside():
    value, pair, row = torch.tensor(7.0), torch.tensor([3.0, 4.0]), torch.tensor(5)
    with waiting.nothing_read(CPU):
        assert (value.item(), pair.tolist(), row.item()) == (2.0, [2.0, 2.0], 5)
    assert (value.item(), pair.tolist()) == (7.0, [3.0, 4.0])


def test_time_that_kernels_share_counts_once():
    assert waiting.covered([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7


@pytest.mark.gpu
def test_networks_on_the_gpu_are_those_on_the_cpu():
    rows = list(networks.measure(context("cuda")))
    assert len(rows) >= 10 and all(row["within rounding"] for row in rows), rows


@pytest.mark.gpu
def test_trainings_on_the_gpu_end_with_the_same_bits():
    rows = [row for row in repeat.measure(context("cuda")) if row.get("deterministic")]
    assert {row["network"] for row in rows} == {"student", repeat.MEANFLOW, "teacher"}
    assert all(row["twice the same bits"] and row["resumed the same bits"] for row in rows), rows


@pytest.mark.gpu
def test_every_stage_runs_on_the_gpu():
    from flows.session.smoke_test import run_smoke_test

    artifacts = run_smoke_test(load("nfm-digits", ["compute.device=cuda"]))
    assert {"teacher", "bank", "student", "pairs", "onestep", "evaluation"} <= set(artifacts)
