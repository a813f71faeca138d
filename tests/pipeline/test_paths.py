import torch

from pipeline.paths import data_from_velocity, interpolate, noise_from_velocity, target_velocity


def pair(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(5, 3, 4, 4, generator=generator, dtype=dtype) for _ in range(2))
    return x, z, torch.rand(5, generator=generator, dtype=dtype)


def test_ends_are_data_and_noise():
    x, z, _ = pair(torch.float32)
    assert torch.equal(interpolate(x, z, 0.0), x)
    assert torch.equal(interpolate(x, z, torch.ones(5)), z)


def test_each_row_has_its_own_time():
    x, z, t = pair()
    for i in range(5):
        torch.testing.assert_close(interpolate(x, z, t)[i], interpolate(x[i], z[i], float(t[i])))


def test_target_is_the_derivative_of_the_path():
    x, z, t = pair()
    _, derivative = torch.func.jvp(lambda t: interpolate(x, z, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(target_velocity(x, z), derivative)


def test_velocity_gives_both_ends_back():
    x, z, t = pair()
    x_t, v = interpolate(x, z, t), target_velocity(x, z)
    torch.testing.assert_close(data_from_velocity(x_t, v, t), x)
    torch.testing.assert_close(noise_from_velocity(x_t, v, t), z)


def test_time_reversed_convention_of_the_literature():
    x, z, t = pair()
    theirs = 1 - t
    x_theirs = theirs[:, None, None, None] * x + (1 - theirs)[:, None, None, None] * z  # t = 0 noise, t = 1 data
    torch.testing.assert_close(interpolate(x, z, t), x_theirs)
    torch.testing.assert_close(target_velocity(x, z), -(x - z))
