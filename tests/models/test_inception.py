"""Inception v3: the published architecture layer by layer, TensorFlow's resizing, the 8-bit input."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.inception import InceptionV3, resize_bilinear
from tests.models.inception_weights import published_shapes, random_weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def network(weights) -> InceptionV3:
    net = InceptionV3()
    net.load_state_dict(weights, strict=False)
    return net.eval().requires_grad_(False)


def photographs(count: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# --- architecture


def test_every_name_and_shape_is_the_published_one():
    with torch.device("meta"):
        state = InceptionV3().state_dict()
    own = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert own == published_shapes()
    assert len(own) == 5 * 94 + 2
    # The published file has 95,628,359 bytes: these tensors, and less than 200 bytes of framing for each.
    size = 4 * sum(torch.Size(shape).numel() for shape in own.values())
    assert 0 < 95_628_359 - size < 200 * len(own)


def test_forward_is_the_published_graph(network, weights):
    """Written out once more, without modules."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
        mean, variance, scale, offset = (
            weights[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (variance + 0.001).sqrt() * scale + offset).relu()

    def average(x: Tensor) -> Tensor:
        total = F.avg_pool2d(x, 3, 1, 1, divisor_override=1)
        return total / F.avg_pool2d(torch.ones_like(x), 3, 1, 1, divisor_override=1)  # over the pixels that exist

    def block_a(x: Tensor, name: str) -> Tensor:
        five = conv(conv(x, f"{name}.branch5x5_1"), f"{name}.branch5x5_2", padding=(2, 2))
        threes = conv(conv(x, f"{name}.branch3x3dbl_1"), f"{name}.branch3x3dbl_2", padding=(1, 1))
        threes = conv(threes, f"{name}.branch3x3dbl_3", padding=(1, 1))
        return torch.cat([conv(x, f"{name}.branch1x1"), five, threes, conv(average(x), f"{name}.branch_pool")], 1)

    def block_c(x: Tensor, name: str) -> Tensor:
        once = conv(conv(x, f"{name}.branch7x7_1"), f"{name}.branch7x7_2", padding=(0, 3))
        once = conv(once, f"{name}.branch7x7_3", padding=(3, 0))
        twice = conv(x, f"{name}.branch7x7dbl_1")
        for part, padding in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            twice = conv(twice, f"{name}.branch7x7dbl_{part}", padding=padding)
        return torch.cat([conv(x, f"{name}.branch1x1"), once, twice, conv(average(x), f"{name}.branch_pool")], 1)

    def block_e(x: Tensor, name: str, pooled: Tensor) -> Tensor:
        three, threes = conv(x, f"{name}.branch3x3_1"), conv(x, f"{name}.branch3x3dbl_1")
        threes = conv(threes, f"{name}.branch3x3dbl_2", padding=(1, 1))
        spread = [
            conv(x, f"{name}.{branch}{part}", padding=padding)
            for x, branch in ((three, "branch3x3_2"), (threes, "branch3x3dbl_3"))
            for part, padding in (("a", (0, 1)), ("b", (1, 0)))
        ]
        return torch.cat([conv(x, f"{name}.branch1x1"), *spread, conv(pooled, f"{name}.branch_pool")], 1)

    images = photographs()
    x = (resize_bilinear(images.float(), 299) - 128) / 128
    x = conv(conv(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
    x = F.max_pool2d(conv(x, "Conv2d_2b_3x3", padding=(1, 1)), 3, 2)
    x = F.max_pool2d(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    for letter in "bcd":
        x = block_a(x, f"Mixed_5{letter}")
    threes = conv(conv(x, "Mixed_6a.branch3x3dbl_1"), "Mixed_6a.branch3x3dbl_2", padding=(1, 1))
    threes = conv(threes, "Mixed_6a.branch3x3dbl_3", stride=2)
    x = torch.cat([conv(x, "Mixed_6a.branch3x3", stride=2), threes, F.max_pool2d(x, 3, 2)], 1)
    for letter in "bcde":
        x = block_c(x, f"Mixed_6{letter}")
    three = conv(conv(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", stride=2)
    seven = conv(conv(x, "Mixed_7a.branch7x7x3_1"), "Mixed_7a.branch7x7x3_2", padding=(0, 3))
    seven = conv(conv(seven, "Mixed_7a.branch7x7x3_3", padding=(3, 0)), "Mixed_7a.branch7x7x3_4", stride=2)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    x = block_e(x, "Mixed_7b", average(x))
    x = block_e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1))
    assert x.shape == (2, 2048, 8, 8)
    expected = x.mean((2, 3))

    found = network(images)
    assert found.shape == (2, 2048) and found.dtype == torch.float32
    assert expected.std(0).mean() > 1e-2  # the two images differ, and nothing has faded away
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def test_logits_leave_the_bias_out(network, weights):
    features = torch.randn(3, 2048, generator=torch.Generator().manual_seed(0))
    logits = network.logits(features)
    assert logits.shape == (3, 1008)
    with_bias = F.linear(features, weights["fc.weight"], weights["fc.bias"])
    torch.testing.assert_close(logits, with_bias - weights["fc.bias"], rtol=1e-4, atol=1e-4)
    assert (logits - with_bias).abs().mean() > 0.05


def test_an_image_does_not_see_its_batch(network):
    images = photographs(3)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8)],
)
def test_only_8_bit_colour_images(network, images):
    with pytest.raises(ValueError, match=r"uint8 \(B, 3, H, W\)"):
        network(images)


# --- resizing


def test_resizing_by_hand():
    # Four pixels become eight: new pixel i lies at i / 2, the last half pixel has nothing to its right.
    row = torch.tensor([0.0, 10.0, 30.0, 60.0])
    expected = torch.tensor([0.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 60.0])
    images = row.expand(1, 1, 4, 4)
    assert torch.equal(resize_bilinear(images, 8)[0, 0, 3], expected)
    assert torch.equal(resize_bilinear(images.mT, 8)[0, 0, :, 3], expected)
    # Three become two: at 0 and 3/2.
    assert torch.equal(resize_bilinear(row[:3].expand(1, 1, 3, 3), 2)[0, 0, 0], torch.tensor([0.0, 20.0]))


def test_resizing_is_the_formula_and_not_that_of_torch():
    images = photographs(1, 7).double()
    found = resize_bilinear(images, 299)
    for i, j in [(0, 0), (1, 2), (150, 40), (298, 298), (295, 3), (42, 299 * 6 // 7)]:
        y, x = i * 7 / 299, j * 7 / 299
        top, left = int(y), int(x)
        below, right = min(top + 1, 6), min(left + 1, 6)
        dy, dx = y - top, x - left
        image = images[0, 1]
        value = (1 - dy) * ((1 - dx) * image[top, left] + dx * image[top, right]) + dy * (
            (1 - dx) * image[below, left] + dx * image[below, right]
        )
        assert found[0, 1, i, j].item() == pytest.approx(value.item(), abs=1e-3)  # positions are float32
    centred = F.interpolate(images, (299, 299), mode="bilinear", align_corners=False)
    assert (found - centred).abs().mean() > 10  # half a pixel of noise: many grey levels


def test_resizing_to_the_same_size_changes_nothing():
    images = photographs(1, 29).float()
    assert torch.equal(resize_bilinear(images, 29), images)


def test_resizing_needs_pixels():
    with pytest.raises(ValueError, match="must have pixels"):
        resize_bilinear(torch.zeros(1, 3, 0, 4), 8)
    with pytest.raises(ValueError, match="must have pixels"):
        resize_bilinear(torch.zeros(1, 3, 4, 4), 0)
