"""`bank inspect`: a bank by recipe, artifact or path; its facts, its figures, its picture."""

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.recipe.load import load
from storage.bank import BankFacts, BankWriter
from storage.errors import MissingError, UsageError
from storage.imageset import Split, write_imageset
from tests.flows import fakes
from tests.flows.conftest import make_all
from tests.flows.faults import fault

ROWS, DRAWS, SHARD = 60, 3, 50


def write_bank(path, producer="0123abcd", kind="encoded", shards=None, **facts):
    rng = np.random.default_rng(3)
    pairs = ROWS * DRAWS
    values = {"z": rng.standard_normal((pairs, 1, 8, 8), dtype=np.float32)}
    if kind == "generated":
        values |= {"x": np.tanh(values["z"]), "labels": np.arange(pairs) % 3}
    given = {
        "kind": kind,
        "rows": ROWS,
        "draws": DRAWS,
        "shape": (1, 8, 8),
        "dtype": "float32",
        "shard": SHARD,
        "seed": 5,
        "noise_std": 0.2,
        "sigma_f": 1.25,
        "whitened": True,
        "producer": producer,
    }
    writer = BankWriter(path, BankFacts(**given | facts), tuple(values))
    for index, start, stop in writer.shards[:shards]:
        writer.write(index, **{name: rows[start:stop] for name, rows in values.items()})
    if shards is None:
        writer.finish()
    return path


@pytest.fixture
def banked(tiny, monkeypatch):
    """A finished recipe whose couplings artifact holds a bank and whose data artifact holds its images."""
    before = fakes.run

    def run(job, behaviour):
        if job.stage == "data":
            train = Split(np.random.default_rng(1).integers(0, 256, (ROWS, 1, 8, 8), dtype=np.uint8), None)
            write_imageset(job.out / "images.zarr", "made", train, train)
        if job.stage == "bank":
            write_bank(job.out / "bank.zarr", job.inputs["teacher"].fingerprint)
        return before(job, behaviour)

    monkeypatch.setattr(fakes, "run", run)
    return make_all(load(tiny))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "seen.png"


def test_facts_figures_and_picture_of_a_recipe(flowctl, banked, tiny, out):
    result = flowctl("bank", "inspect", tiny, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    artifact = banked.store.find("bank", banked.nodes["bank"].fingerprint)
    assert found["path"] == str(artifact.path("bank.zarr")) and found["finished"] and found["arrays"] == ["z"]
    assert found["shards"] == {"complete": 4, "total": 4}
    assert found["facts"]["sigma_f"] == 1.25 and found["facts"]["mantissa_bits"] is None
    assert found["bytes"] == sum(f.stat().st_size for f in artifact.path("bank.zarr").rglob("*") if f.is_file())
    assert found["images"].endswith("images.zarr")
    figures = found["diagnostics"]
    assert figures["train"]["n"] == ROWS * DRAWS and abs(figures["train"]["std"] - 1) < 0.05
    # Noise and image were drawn without regard to each other, images uniform in [-1, 1].
    assert figures["transport_cost"]["per_dimension"] == pytest.approx(1 + 1 / 3, abs=0.1)
    assert figures["warnings"] == []
    with Image.open(out) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 300


def test_every_name_of_a_bank_says_the_same(flowctl, banked, tiny, out):
    from flows.views import banks

    node = banked.nodes["bank"]
    artifact = banked.store.find("bank", node.fingerprint)
    told = [
        flowctl("bank", "inspect", name, "--out", out).stdout for name in (tiny, node.fingerprint[:8], artifact.root)
    ]
    assert told == told[:1] * 3
    assert [
        banks.find(name).survey.path
        for name in (f"bank/{artifact.root.name}", artifact.root.name, str(artifact.path("bank.zarr")))
    ] == [artifact.path("bank.zarr")] * 3
    teacher = banked.nodes["teacher"].fingerprint
    for words in (
        "60 rows x 3 draws = 180",
        "1 x 8 x 8, float32",
        "4 of 4 complete, 50 pairs each",
        "sigma_f = 1.25, whitened within classes",
        f"{teacher[:12]} (teacher/tiny-{teacher[:12]})",
        "N(0, I)",
        "Transport cost",
        f"Picture: {out}",
    ):
        assert words in told[0], words


def test_what_the_stage_measured_is_believed(flowctl, tiny, out, monkeypatch, request):
    measured = {
        "dimensions": 64,
        "held_out": None,
        "transport_cost": {"total": 64.0, "per_dimension": 1.0, "independent": 1.5},
        "train": {
            "n": 7,
            "mean": 0.5,
            "std": 1.0,
            "dimension_mean": [0, 0, 0],
            "dimension_std": [1, 1, 1],
            "dimension_kurtosis": [0, 0, 0],
            "dimensions_off": 0.0,
            "sliced_w2": 0.05,
            "floor": 0.05,
        },
        "two_sample": {"accuracy": 0.6, "chance": 0.5, "standard_error": 0.01, "decisions": 2500},
    }
    changed = fakes.RESULTS["bank"].model_copy(update={"gaussianity": measured, "warnings": ("too few noises",)})
    monkeypatch.setitem(fakes.RESULTS, "bank", changed)
    request.getfixturevalue("banked")
    found = json.loads(flowctl("bank", "inspect", tiny, "--out", out, "--json").stdout)["diagnostics"]
    assert found == measured | {"warnings": ["too few noises"]}


def test_a_bank_of_its_own(flowctl, home, out, tmp_path):
    """Copied from another machine: no artifact, no images, no teacher."""
    path = write_bank(tmp_path / "lone", mantissa_bits=8)
    told = flowctl("bank", "inspect", path).stdout
    assert "8 mantissa bits, compressed" in told and "not in this store" in told and "Transport cost" not in told
    assert "Picture: bank.png" in told and (tmp_path / "bank.png").is_file()


def test_pairs_bring_their_images(flowctl, home, out, tmp_path):
    path = write_bank(tmp_path / "pairs", kind="generated", solver="euler, 8 calls", noise_std=None, sigma_f=None)
    found = json.loads(flowctl("bank", "inspect", path, "--out", out, "--json").stdout)
    z = np.random.default_rng(3).standard_normal((ROWS * DRAWS, 1, 8, 8), dtype=np.float32).astype(np.float64)
    cost = found["diagnostics"]["transport_cost"]["per_dimension"]
    assert cost == pytest.approx(np.square(np.tanh(z) - z).mean(), rel=1e-5)
    assert "euler, 8 calls" in flowctl("bank", "inspect", path, "--out", out).stdout


def test_an_unfinished_bank_tells_how_far_it_is(flowctl, home, out, tmp_path):
    path = write_bank(tmp_path / "half", shards=3)
    told = flowctl("bank", "inspect", path, "--out", out)
    assert told.exit_code == 0 and "3 of 4 complete" in told.stdout and "Not finished" in told.stdout
    found = json.loads(flowctl("bank", "inspect", path, "--out", out, "--json").stdout)
    assert found["diagnostics"] is None and found["picture"] is None and not out.exists()


def test_damage_is_named(flowctl, home, out, tmp_path):
    path = write_bank(tmp_path / "bank")
    (path / "z/c.2.0.0.0").unlink()
    result = flowctl("bank", "inspect", path, "--out", out)
    assert result.exit_code == 1 and "shard 2" in result.stderr


@pytest.mark.parametrize("name", ["fm-digits", "tiny.yaml", "nfm-digitz", "0123456789"])
def test_what_has_no_bank(flowctl, home, out, name, tmp_path):
    error = fault(flowctl("bank", "inspect", name))
    assert type(error) is MissingError and error.value == name


def test_no_bank_in_an_artifact_and_no_picture_of_another_kind(flowctl, finished, tiny, out):
    assert type(fault(flowctl("bank", "inspect", finished.nodes["teacher"].fingerprint[:8]))) is MissingError
    assert type(fault(flowctl("bank", "inspect", tiny, "--out", "seen.jpg"))) is UsageError
    assert "inspect" in flowctl("bank", "--help").stdout
