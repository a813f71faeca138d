"""LPIPS with weights of the published shapes: the formula layer by layer, and files that are something else."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from pipeline.flow_matching.losses import LPIPS, LpipsHuber, PseudoHuber, load_lpips, loss_of_config
from pipeline.recipe import sections as configs
from storage.errors import InputError
from tests.pipeline.flow_matching.losses.published import features, linear


@pytest.fixture(scope="module", params=["vgg", "alex"])
def files(request, tmp_path_factory):
    """The network, its files: one as .pth and one as .safetensors."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.save(features(request.param), folder / "features.pth")
    save_file(linear(request.param), folder / "linear.safetensors")
    return request.param, folder / "features.pth", folder / "linear.safetensors"


def images(seed: int, channels: int = 3, side: int = 32, count: int = 2):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand(network: str, one, other):
    """The published definition, with nothing of ours."""
    weights, scales = features(network), linear(network)
    taps = {"vgg": (2, 7, 14, 21, 28), "alex": (0, 3, 6, 8, 10)}[network]
    pools = {"vgg": (2, 7, 14, 21), "alex": (0, 3)}[network]  # after these
    strides = {"vgg": {}, "alex": {0: (4, 2), 3: (1, 2)}}[network]

    def layers(x):
        mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = (x - mean[:, None, None]) / std[:, None, None]
        for name in [int(key.split(".")[1]) for key in weights if key.endswith("bias")]:
            stride, padding = strides.get(name, (1, 1))
            weight, bias = weights[f"features.{name}.weight"], weights[f"features.{name}.bias"]
            x = F.conv2d(x, weight, bias, stride, padding).relu()
            if name in taps:
                yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            if name in pools:
                x = F.max_pool2d(x, 2 if network == "vgg" else 3, 2)

    return sum(
        F.conv2d((a - b).square(), scale).mean((1, 2, 3))
        for a, b, scale in zip(layers(one), layers(other), scales.values(), strict=True)
    )


def test_the_published_definition(files):
    network, *paths = files
    lpips = load_lpips(network, *paths)
    one, other = images(0), images(1)
    expected = by_hand(network, one, other)
    assert expected.min() > 0.01
    torch.testing.assert_close(lpips(one, other), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(lpips(other, one), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(lpips(one, one), torch.zeros(2))


def test_grey_images_have_three_equal_channels_and_are_resized_if_asked(files):
    network, *paths = files
    lpips = load_lpips(network, *paths, size=32)
    one, other = images(0, 1, 8), images(1, 1, 8)
    larger = [F.interpolate(image, (32, 32), mode="bilinear").expand(-1, 3, -1, -1) for image in (one, other)]
    torch.testing.assert_close(lpips(one, other), by_hand(network, *larger), rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError):
        lpips(images(0, 4), images(1, 4))


def test_gradients_reach_the_image_and_stay_finite_and_weights_stay():
    lpips = LPIPS("alex")
    for parameter in lpips.parameters():
        parameter.fill_(0.0)  # every feature is zero, where a plain norm has no gradient
    black = images(0).requires_grad_()
    lpips(black, images(1)).sum().backward()
    assert black.grad.isfinite().all()
    assert not any(parameter.requires_grad for parameter in lpips.parameters()) and not lpips.training


def test_the_loss_is_lpips_alone_at_pure_noise_and_both_before(files):
    network, *paths = files
    config = configs.LpipsHuber(network=network, features=paths[0], linear=paths[1], size=32)
    loss = loss_of_config(config)
    assert isinstance(loss, LpipsHuber)
    z, x, answer = images(0), images(1), images(2)
    target = z - x
    seen = loss.lpips(z - answer, x).mean()
    assert loss(answer, target, z, torch.ones(2)).item() == pytest.approx(seen.item(), rel=1e-4)

    t = torch.tensor([0.5, 0.25])
    x_t = (1 - t.view(-1, 1, 1, 1)) * x + t.view(-1, 1, 1, 1) * z
    seen = loss.lpips(x_t - t.view(-1, 1, 1, 1) * answer, x)
    expected = ((1 - t) * PseudoHuber().each(answer, target) + seen / t).mean()
    assert loss(answer, target, x_t, t).item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss(target, target, x_t, t) == 0


def changed(tensors, **changes):
    return {name: value for name, value in (tensors | changes).items() if value is not None}


class Boom:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.parametrize(
    "content",
    [
        lambda: changed(linear("alex"), **{"lin3.model.1.weight": None}),
        lambda: linear("vgg"),
        lambda: [1, 2],
        lambda: {"lin0.model.1.weight": Boom()},
        None,
    ],
)
def test_wrong_files_are_refused_and_run_nothing(tmp_path, content):
    path, given = tmp_path / "linear.pth", tmp_path / "features.safetensors"
    save_file(features("alex"), given)
    path.write_bytes(b"not a file of torch's") if content is None else torch.save(content(), path)
    with pytest.raises(InputError):
        load_lpips("alex", given, path)


def test_no_file(tmp_path):
    with pytest.raises(InputError):
        load_lpips("vgg", tmp_path / "vgg16.pth", tmp_path / "vgg.pth")
