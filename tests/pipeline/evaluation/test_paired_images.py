"""Means over images, the same whoever measures them and in whatever order."""

import math

import pytest
import torch

from pipeline.evaluation.paired_images import PairedImageMetrics
from pipeline.metrics import psnr, ssim


def pictures(count, seed=0):
    grey = torch.randint(17, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    return 2 * grey / 16 - 1


def test_figures_are_means_over_images():
    images, targets = pictures(12), pictures(12, 1)
    near = PairedImageMetrics(17)
    near.update(images, targets)
    (first, decibels, facts), (second, similarity, more) = near.figures()
    assert (first, second) == ("PSNR", "SSIM")
    assert decibels == pytest.approx(float(psnr(images, targets).mean()), rel=1e-12)
    assert similarity == pytest.approx(float(ssim(images, targets).mean()), rel=1e-12)
    assert facts == {"target": "the test image itself"} and more["window"].startswith("7x7")


def test_no_batch_and_no_rank_changes_a_bit():
    images, targets = pictures(40), pictures(40, 1)
    whole, parts = PairedImageMetrics(17), [PairedImageMetrics(17) for _ in range(3)]
    whole.update(images, targets)
    for number, rows in enumerate(torch.arange(40).split(7)):
        parts[-1 - number % 3].update(images[rows], targets[rows])
    empty = PairedImageMetrics(17)
    assert empty.merge(parts[2]).merge(parts[0]).merge(parts[1]).figures() == whole.figures()
    assert empty.figures() == []


def test_an_equal_image_counts_as_one_level_off_in_one_value():
    images = pictures(1)
    other = images.clone()
    other[0, 0, 0, 0] += 2 / 16 if other[0, 0, 0, 0] < 0 else -2 / 16
    equal, off = PairedImageMetrics(17), PairedImageMetrics(17)
    equal.update(images, images)
    off.update(other, images)
    assert equal.figures()[0][1] == pytest.approx(off.figures()[0][1], rel=1e-6)
    assert equal.figures()[0][1] == pytest.approx(10 * math.log10(4 * 64 * 64))
    assert equal.figures()[1][1] == pytest.approx(1)
