"""The hand-written peer: its networks are those of the recipe, its flow inverts, and its side is timed as ours is."""

import json

import pytest
import torch

from benchmarks import by_hand, plain_nfm
from pipeline.couplings import ClassMoments
from pipeline.outputs import networks
from pipeline.recipe.load import load

SHAPE = type("Shape", (), {"channels": 1, "size": 8, "classes": ("",) * 10})


def weights(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_both_sides_train_networks_of_the_same_size():
    recipe = load(by_hand.RECIPE)
    teacher = networks.build(networks.teacher_architecture(recipe.teacher, SHAPE), 0)
    student = networks.build(networks.student_architecture(recipe.student, SHAPE), 0)
    assert weights(plain_nfm.TarFlow()) == weights(teacher)
    assert weights(plain_nfm.UNet()) == weights(student)


def test_the_hand_written_flow_inverts_and_its_determinant_is_that_of_its_jacobian():
    torch.manual_seed(0)
    flow = plain_nfm.TarFlow(width=16, head_dim=8, depths=(1, 2)).double()
    for block in flow.blocks:
        torch.nn.init.normal_(block.head.weight, std=0.3)
    x, labels = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 7, plain_nfm.CLASSES])
    z, logdet = flow(x, labels)
    assert torch.allclose(flow.reverse(z, labels), x, atol=1e-9) and not torch.allclose(flow.image(z), x)
    jacobian = torch.autograd.functional.jacobian(lambda one: flow(one, labels[:1])[0].flatten(), x[:1])
    assert torch.linalg.slogdet(jacobian.reshape(64, 64)).logabsdet == pytest.approx(logdet[0].item(), abs=1e-8)


def test_both_sides_whiten_alike():
    torch.manual_seed(0)
    labels = torch.arange(60) % plain_nfm.CLASSES
    bank = torch.randn(plain_nfm.DRAWS, 60, 1, 8, 8) * torch.linspace(0.5, 2, 8) + labels[:, None, None, None] / 10
    ours = torch.empty_like(bank)
    for label in range(plain_nfm.CLASSES):
        own, moments = bank[:, labels == label], ClassMoments(64)
        moments.add(own.flatten(0, 1))
        mean, matrix = moments.whitening()
        ours[:, labels == label] = ((own.flatten(2) - mean) @ matrix).view_as(own)
    torch.testing.assert_close(plain_nfm.whitened(bank, labels), ours, atol=1e-4, rtol=1e-4)


def test_hand_written_samples_hold_no_graph():
    """It would cost the peer time and memory that no researcher spends."""
    network = torch.nn.Linear(2, 2)
    x = plain_nfm.euler(lambda x, t, labels: network(x), torch.ones(3, 2), None, 2)
    assert not x.requires_grad


def test_the_work_of_the_recipe_is_scaled_on_both_sides():
    recipe = load(by_hand.RECIPE, by_hand.scaled(0.1))
    assert recipe.teacher.training.images == 17_920 and recipe.student.training.images == 15_360
    assert recipe.onestep.training.images == 8_960 and recipe.pairs.count == 1_200 and recipe.evaluation.samples == 400


def test_the_page_compares_medians_and_leaves_out_what_one_side_lacks(tmp_path, monkeypatch):
    walls = iter([4.0, 2.0, 8.0])

    def ours(scale, environment):
        wall = next(walls)
        assert environment == {"OMP_NUM_THREADS": "1"} and scale == by_hand.QUICK
        return {
            "stages": {"teacher": wall / 2, "report": 0.5},
            "wall": wall,
            "cpu": wall,
            "scores": {"student, 1": 3.0},
        }

    def theirs(scale, environment):
        return {"stages": {"teacher": 1.0}, "wall": 2.0, "cpu": 2.5, "scores": {"student, 1": 4.0}}

    monkeypatch.setattr(by_hand, "SIDES", {"flowctl": ours, "by hand": theirs})
    by_hand.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    page = (tmp_path / "by-hand-quick.md").read_text()
    assert "| teacher | 2.00 | 1.00 | 2.00 |" in page and "| report | 0.50 | – | – |" in page
    assert "| **whole process** | 4.00 | 2.00 | 2.00 |" in page and "| by hand | 4.000 |" in page
    assert len(json.loads((tmp_path / "by-hand-quick.json").read_text())["sides"]["flowctl"]) == 3


def test_a_side_that_fails_is_an_error_with_its_message():
    command = [by_hand.sys.executable, "-c", "import os, sys; sys.exit(os.environ['REASON'])"]
    with pytest.raises(RuntimeError, match="no such kernel"):
        by_hand.timed(command, {"REASON": "no such kernel"})
