"""Counted work against formulas by hand."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from models.tarflow._linear import Linear, LinearGELU
from pipeline.cost.flops import Work, counted

B, T, D = 4, 10, 16


def attention(training):
    query = torch.randn(B, 2, T, D, requires_grad=training)
    out = F.scaled_dot_product_attention(query, query, query)
    if training:
        out.sum().backward()


def convolution(training):
    x = torch.randn(B, 3, 8, 8, requires_grad=training)
    out = nn.Conv2d(3, 5, 3, padding=1)(x)
    if training:
        out.sum().backward()


def linear(kind, training):
    x = torch.randn(1024, 256, requires_grad=training)
    with torch.set_grad_enabled(training):
        out = kind(256, 128)(x)
    if training:
        out.sum().backward()


PRODUCT = 2 * B * 2 * T * T * D  # of all queries with all keys
CONVOLUTION = 2 * B * 5 * 64 * 3 * 9
LINEAR = 2 * 1024 * 256 * 128


@pytest.mark.parametrize("where", [nullcontext, partial(FakeTensorMode, allow_non_fake_inputs=True)])
@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (lambda: attention(False), 2 * PRODUCT),  # scores, and values
        (lambda: attention(True), 7 * PRODUCT),  # backward: scores once more, and two products for each of the two
        (lambda: convolution(False), CONVOLUTION),
        (lambda: convolution(True), 3 * CONVOLUTION),  # backward to the input and to the weight
        (lambda: linear(nn.Linear, False), LINEAR),
        (lambda: linear(nn.Linear, True), 3 * LINEAR),
        (lambda: linear(Linear, True), 3 * LINEAR),  # TarFlow's, by another library
        (lambda: linear(LinearGELU, False), LINEAR),
    ],
)
def test_flops_are_those_of_the_formula(where, call, flops):
    """With numbers, and with shapes alone."""
    with where():
        assert counted(call).flops == flops


def test_traffic_and_kernels_are_those_of_the_operations_that_move_numbers():
    x = torch.randn(8, 4)
    work = counted(lambda: (x.t() + 1).exp())  # the transposition moves nothing
    assert work == Work(0.0, 2 * 2 * 4 * 32, 2)


def test_work_adds_and_scales():
    assert Work(1, 2, 3) + Work(4, 5, 6) * 2 == Work(9, 12, 15)
