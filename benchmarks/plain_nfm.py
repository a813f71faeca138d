"""Normalized Flow Matching on digits as one plain PyTorch file: the script that `benchmarks.by_hand` times.

    python -m benchmarks.plain_nfm [--scale 1.0] [--threads 2]

The published designs and nothing of this project: TarFlow (arXiv 2412.06329), the ADM U-Net without scale shifts (arXiv
2105.05233), NFM (arXiv 2603.09014), one-step distillation of the ODE's pairs (arXiv 2209.03003). Networks, batches,
images and samples are those of the recipe nfm-digits. The bank is in memory; there are no checkpoints, no pictures and
no diagnostics. Prints the seconds of each stage and the scores as JSON. `--scale` shortens everything.
"""

import argparse
import copy
import json
import math
import time

import numpy as np
import torch
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

BATCH, CLASSES, NOISE_STD, DRAWS = 128, 10, 0.2, 8
TEMPERATURE = 1.1  # of the noise that samples of the student start from

# --- the teacher: TarFlow


class CausalLayer(nn.Module):
    def __init__(self, width, head_dim):
        super().__init__()
        self.head_dim = head_dim
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x, cache=None):
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        if cache is not None:  # one token at a time
            cache.append((k, v))
            k, v = (torch.cat(parts, 2) for parts in zip(*cache, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, width))
        return x + self.mlp(self.norm2(x))


class FlowBlock(nn.Module):
    def __init__(self, tokens, dim, width, head_dim, layers):
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.position = nn.Parameter(0.01 * torch.randn(tokens, width))
        self.classes = nn.Parameter(0.01 * torch.randn(CLASSES, width))
        self.layers = nn.ModuleList(CausalLayer(width, head_dim) for _ in range(layers))
        self.head = nn.Linear(width, 2 * dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def predict(self, x, labels, start=0, caches=None):
        classes = torch.cat([self.classes, self.classes.mean(0, keepdim=True)])  # the last is "no class"
        h = self.embed(x) + self.position[start : start + x.shape[1]] + classes[labels][:, None]
        for number, layer in enumerate(self.layers):
            h = layer(h, None if caches is None else caches[number])
        scale, shift = self.head(h).chunk(2, -1)
        return 4 * torch.tanh(scale / 4), shift

    def forward(self, x, labels):
        scale, shift = self.predict(x[:, :-1], labels)
        z = torch.cat([x[:, :1], (x[:, 1:] - shift) * torch.exp(-scale)], 1)
        return z, -scale.sum((1, 2))

    def reverse(self, z, labels):
        x, caches = z[:, :1], [[] for _ in self.layers]
        for i in range(z.shape[1] - 1):
            scale, shift = self.predict(x[:, i:], labels, i, caches)
            x = torch.cat([x, z[:, i + 1 : i + 2] * torch.exp(scale) + shift], 1)
        return x


def turned(z, number):
    """Every other block reads the tokens backwards."""
    return z.flip(1) if number % 2 else z


class TarFlow(nn.Module):
    def __init__(self, size=8, patch=2, width=64, depths=(1, 1, 1, 5), head_dim=32):
        super().__init__()
        self.size, self.patch = size, patch
        shape = ((size // patch) ** 2, patch * patch, width, head_dim)
        self.blocks = nn.ModuleList(FlowBlock(*shape, layers) for layers in depths)

    def forward(self, x, labels):
        z, logdet = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2), 0.0
        for number, block in enumerate(self.blocks):
            z, more = block(turned(z, number), labels)
            z, logdet = turned(z, number), logdet + more
        return z, logdet

    @torch.no_grad()
    def reverse(self, z, labels):
        for number, block in reversed(list(enumerate(self.blocks))):
            z = turned(block.reverse(turned(z, number), labels), number)
        return self.image(z)

    def samples(self, z, labels):
        """Without the noise that the flow was trained on: y + eta^2 grad log p(y)."""
        y = self.reverse(z, labels).requires_grad_(True)
        with torch.enable_grad():
            loss = self.loss(y, labels) * y.numel()
        return (y - NOISE_STD**2 * torch.autograd.grad(loss, y)[0]).detach()

    def image(self, z):
        return F.fold(z.transpose(1, 2), (self.size, self.size), self.patch, stride=self.patch)

    def loss(self, y, labels):
        z, logdet = self(y, labels)
        return 0.5 * z.square().mean() - logdet.mean() / y[0].numel()


# --- the student: a U-Net


def norm(channels):
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


class Residual(nn.Module):
    def __init__(self, inputs, outputs, emb):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(emb, outputs)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x))) + self.shift(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels, head=32):
        super().__init__()
        self.head, self.norm = head, norm(channels)
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, emb):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x).flatten(2)).view(b, 3, -1, self.head, h * w).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, h * w)
        return x + self.out(mixed).view(b, c, h, w)


class Resample(nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x, emb):
        return self.conv(F.interpolate(x, scale_factor=2) if self.up else x)


class UNet(nn.Module):
    """Widths 32 and 64, one residual block a level, attention at 4x4 and in the middle."""

    def __init__(self, base=32):
        super().__init__()
        emb, wide = 4 * base, 2 * base
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(CLASSES + 1, emb)  # the last is "no class"
        self.enter = nn.Conv2d(1, base, 3, padding=1)

        def residual(inputs, outputs):
            return Residual(inputs, outputs, emb)

        self.down = nn.ModuleList(
            nn.ModuleList(layers)
            for layers in ([residual(base, base)], [Resample(base, False)], [residual(base, wide), Attention(wide)])
        )
        self.middle = nn.ModuleList([residual(wide, wide), Attention(wide), residual(wide, wide)])
        self.up = nn.ModuleList(
            nn.ModuleList(layers)
            for layers in (
                [residual(wide + wide, wide), Attention(wide)],
                [residual(wide + base, wide), Attention(wide), Resample(wide, True)],
                [residual(wide + base, base)],
                [residual(base + base, base)],
            )
        )
        self.leave = nn.Sequential(norm(base), nn.SiLU(), nn.Conv2d(base, 1, 3, padding=1))
        nn.init.zeros_(self.leave[-1].weight)
        nn.init.zeros_(self.leave[-1].bias)

    def forward(self, x, t, labels):
        rates = 1000 * torch.exp(-math.log(10000) * torch.arange(self.base // 2) / (self.base // 2))
        angles = t[:, None] * rates
        emb = self.time(torch.cat([angles.cos(), angles.sin()], 1)) + self.label(labels)
        h = self.enter(x)
        kept = [h]
        for layers in self.down:
            for layer in layers:
                h = layer(h, emb)
            kept.append(h)
        for layer in self.middle:
            h = layer(h, emb)
        for layers in self.up:
            h = torch.cat([h, kept.pop()], 1)
            for layer in layers:
                h = layer(h, emb)
        return self.leave(h)


# --- training and sampling


def dropped(labels):
    return torch.where(torch.rand(len(labels)) < 0.1, CLASSES, labels)


def train(network, loss, images, lr, warmup, half_life, betas=(0.9, 0.999), decay=0.0):
    """Adam with a warm-up and a cosine, clipping at 1, and an average of the weights, which is returned."""
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=betas, weight_decay=decay)
    for step in range(math.ceil(images / BATCH)):
        seen = (step + 1) * BATCH
        ramp = min(1.0, max(0.0, (seen - warmup) / max(1, images - warmup)))
        rate = lr * seen / warmup if seen < warmup else 1e-5 + (lr - 1e-5) * 0.5 * (1 + math.cos(math.pi * ramp))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        value = loss(network, step)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        forget = 1 - 0.5 ** (BATCH / min(half_life, 0.05 * seen))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), forget)
    return average.eval()


def whitened(bank, labels):
    """Each class's noises (draws, images, 1, 8, 8) to mean 0 and covariance I; 64 noises of N(0, I) count with them."""
    white = torch.empty_like(bank)
    for label in range(CLASSES):
        z = bank[:, labels == label].flatten(2).flatten(0, 1).double()
        mean = z.sum(0) / (len(z) + 64)
        second = (z.T @ z + 64 * torch.eye(64)) / (len(z) + 64)
        variances, axes = torch.linalg.eigh(second - torch.outer(mean, mean))
        z = (z - mean) @ axes / variances.sqrt() @ axes.T
        white[:, labels == label] = z.float().view(DRAWS, -1, 1, 8, 8)
    return white


@torch.no_grad()
def euler(network, z, labels, nfe):
    x = z
    for i in range(nfe, 0, -1):
        x = x - network(x, torch.full((len(x),), i / nfe), labels) / nfe
    return x


@torch.no_grad()
def in_batches(function, *tensors, batch=512):
    return torch.cat([function(*part) for part in zip(*(tensor.split(batch) for tensor in tensors), strict=True)])


# --- the Frechet distance, in the features of a small classifier


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        halve = [nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.SiLU()]
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(), *halve, nn.Flatten(), nn.Linear(256, 64)
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(F.silu(self.features(x)))


def train_classifier(x, labels, steps):
    network = Classifier()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,))
        loss = F.cross_entropy(network(x[rows]), labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def statistics(network, x):
    rows = in_batches(network.features, x).double().numpy()
    return rows.mean(0), np.cov(rows, rowvar=False)


def frechet(a, b):
    root = sqrtm(a[1] @ b[1]).real
    return float(((a[0] - b[0]) ** 2).sum() + np.trace(a[1] + b[1] - 2 * root))


# --- all of it


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="of images, pairs and samples")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    torch.manual_seed(0)
    seconds, scores, last = {}, {}, time.perf_counter()

    def done(stage):
        nonlocal last
        seconds[stage], last = time.perf_counter() - last, time.perf_counter()

    def scaled(count):
        return max(BATCH, round(words.scale * count))

    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    x, held_out, labels, _ = train_test_split(x, torch.tensor(digits.target), test_size=0.2, random_state=0)
    done("data")

    classifier = train_classifier(x, labels, max(10, round(400 * words.scale)))
    real = statistics(classifier, x)
    scores["held-out"] = frechet(real, statistics(classifier, held_out))
    done("reference")

    def teacher_loss(flow, step):
        rows = torch.randint(len(x), (BATCH,))
        return flow.loss(x[rows] + NOISE_STD * torch.randn(BATCH, 1, 8, 8), dropped(labels[rows]))

    flow = TarFlow()
    flow = train(flow, teacher_loss, scaled(179_200), 8e-3, scaled(12_800), 12_000, betas=(0.9, 0.95), decay=1e-4)
    done("teacher")

    def encode(x, labels):
        return flow.image(flow(x + NOISE_STD * torch.randn_like(x), labels)[0])

    bank = torch.stack([in_batches(encode, x, labels) for _ in range(DRAWS)])
    bank = whitened(bank / bank.square().mean().sqrt(), labels)
    done("bank")

    def student_loss(network, step):
        rows = torch.randint(len(x), (BATCH,))
        clean, z = x[rows], bank[torch.randint(DRAWS, (BATCH,)), rows]
        t = torch.sigmoid(torch.randn(BATCH) - 0.2)
        between = clean + t[:, None, None, None] * (z - clean)
        return F.mse_loss(network(between, t, dropped(labels[rows])), z - clean)

    student = train(UNet(), student_loss, scaled(153_600), 2e-3, scaled(6_400), 10_000)
    done("student")

    count = scaled(12_000)
    z, classes = torch.randn(count, 1, 8, 8), labels[torch.randint(len(labels), (count,))]
    ends = in_batches(lambda z, labels: euler(student, TEMPERATURE * z, labels, 8), z, classes)
    done("pairs")

    def distilled(network, step):
        rows = torch.randint(count, (BATCH,))
        return F.mse_loss(network(z[rows], torch.ones(BATCH), classes[rows]), z[rows] - ends[rows])

    onestep = train(
        copy.deepcopy(student).train().requires_grad_(True), distilled, scaled(89_600), 1e-3, scaled(2_560), 10_000
    )
    done("onestep")

    samples = scaled(4_000)
    z, classes = torch.randn(samples, 1, 8, 8), labels[torch.randint(len(labels), (samples,))]

    def score(name, make):
        levels = (8 * (in_batches(make, z, classes) + 1)).round().clamp(0, 16) / 8 - 1
        scores[name] = frechet(real, statistics(classifier, levels))

    score("teacher", lambda z, labels: flow.samples(F.unfold(z, 2, stride=2).transpose(1, 2), labels))
    for nfe in (1, 2, 4, 8, 16, 31):
        score(f"student, {nfe}", lambda z, labels, nfe=nfe: euler(student, TEMPERATURE * z, labels, nfe))
    score("onestep, 1", lambda z, labels: euler(onestep, z, labels, 1))
    done("evaluation")
    sizes = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in (("teacher", flow), ("student", student))
    }
    print(json.dumps({"seconds": seconds, "scores": scores, "weights": sizes}))


if __name__ == "__main__":
    main()
