"""A small classifier whose features stand in for Inception's on data that Inception has never seen, such as digits."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from storage.errors import InputError


class Classifier(nn.Module):
    """Convolutions, one linear layer of features, one of classes.

    The features are taken before their activation, and no unit saturates (SiLU throughout): their distribution is
    smooth and unimodal enough per class for the Gaussian fit of a Frechet distance to notice small changes, where those
    of a ReLU pile up at 0.

    Args:
        channels: C of the images.
        classes: number of classes.
        width: channels of the first level.
        dimension: number of features, F.
    """

    def __init__(self, channels: int, classes: int, width: int = 32, dimension: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.GroupNorm(8, 2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, stride=2),
            nn.GroupNorm(8, 2 * width),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),  # any size of 8 and above ends as 2x2
            nn.Flatten(),
            nn.Linear(8 * width, dimension),
        )
        self.classify = nn.Linear(dimension, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to (B, F)."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to logits (B, classes)."""
        return self.classify(F.silu(self.features(x)))


def train_classifier(images: Tensor, labels: Tensor | None, seed: int = 0, steps: int = 400, batch: int = 128, lr=3e-3, smooth=0.1, wd=1e-2, width=32, dim=64) -> Classifier:
    classes = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier(images.shape[1], classes, width, dim)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=wd)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (batch,), generator=generator)
        x = shifted(images[rows], generator)
        loss = F.cross_entropy(net(x), labels[rows], label_smoothing=smooth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def shifted(x: Tensor, generator: Generator) -> Tensor:
    b, _, h, w = x.shape
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    dy, dx = torch.randint(3, (2, b), generator=generator)
    rows = dy[:, None] + torch.arange(h)
    columns = dx[:, None] + torch.arange(w)
    return padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
