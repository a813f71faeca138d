"""Weights that recipes name are read before the first stage, each once."""

from unittest.mock import Mock

from pipeline.engine import dag
from pipeline.engine.outside import check_files
from pipeline.recipe.load import load

LPIPS = "onestep.loss={kind: lpips-huber, network: vgg, features: /a.pth, linear: /b.pth}"
INCEPTION = "reference={extractor: inception, weights: /c.pth}"


def test_the_runs_of_a_sweep_have_each_file_read_once(monkeypatch):
    read = {
        name: Mock() for name in ("pipeline.metrics.load_inception", "pipeline.flow_matching.losses.loss_of_config")
    }
    for name, mock in read.items():
        monkeypatch.setattr(name, mock)
    monkeypatch.setattr(dag, "external_digest", lambda *given: None)
    recipes = [load("nfm-digits", [LPIPS, INCEPTION, f"seed={seed}"]) for seed in range(3)]
    check_files([node.config for recipe in recipes for node in dag.build(recipe).values()])
    assert [mock.call_count for mock in read.values()] == [1, 1]


def test_a_recipe_without_any_reads_none(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.load_inception", Mock(side_effect=AssertionError))
    monkeypatch.setattr("pipeline.flow_matching.losses.loss_of_config", Mock(side_effect=AssertionError))
    check_files([node.config for node in dag.build(load("nfm-digits")).values()])
