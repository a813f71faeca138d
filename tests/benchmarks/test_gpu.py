"""The benchmark of a GPU: parts that go wrong stop no other, and on a GPU the parts' own checks hold."""

import argparse
import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import Context, fashion, networks, repeat, waiting
from pipeline.data.sources.idx import read_idx
from pipeline.data.sources.published import IDX_FILES
from pipeline.recipe.load import load

WRONG = "tests.benchmarks.parts"
CPU = torch.device("cpu")


def context(device="cpu", seconds=3600.0):
    return Context.of(device, True, seconds)


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


def test_rates_are_measured_on_the_networks_of_the_recipe():
    smaller = ["data.size=28", "student.network.attention=[14]", "student.training.batch=2", "teacher.training.batch=2"]
    recipe = load("nfm-fashion", [*fashion.tiny(load("nfm-fashion")), *smaller])
    assert all(fashion.seconds_per_image(recipe, stage, context()) > 0 for stage in ("teacher", "student"))


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
