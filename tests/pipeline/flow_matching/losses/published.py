"""Weights of the names and shapes of the published ones, drawn at random: no file of them is needed to test."""

import torch

VGG = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
ALEX = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


def features(network: str) -> dict[str, torch.Tensor]:
    """As torchvision's vgg16 and alexnet, whose classifiers are longer than the one here."""
    draws = torch.Generator().manual_seed(0)
    tensors = {"classifier.0.weight": torch.zeros(2, 2)}
    for number, (after, before, *side) in (VGG if network == "vgg" else ALEX).items():
        side = side[0] if side else 3
        weight = torch.randn(after, before, side, side, generator=draws) * (2 / (before * side**2)) ** 0.5
        tensors |= {
            f"features.{number}.weight": weight,
            f"features.{number}.bias": 0.1 * torch.randn(after, generator=draws),
        }
    return tensors


def linear(network: str) -> dict[str, torch.Tensor]:
    """As LPIPS's v0.1/vgg.pth and alex.pth: they are not negative."""
    draws = torch.Generator().manual_seed(1)
    return {
        f"lin{number}.model.1.weight": torch.rand(1, count, 1, 1, generator=draws)
        for number, count in enumerate(CHANNELS[network])
    }
