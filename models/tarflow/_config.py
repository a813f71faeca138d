"""Architecture of a TarFlow, and the published configurations."""

from dataclasses import dataclass

# exp(80) is the largest power of e, rounded down to tens, that float32 still holds (its maximum is exp(88.7)).
LARGEST_TOTAL_LOG_SCALE = 80.0


@dataclass(frozen=True)
class TarFlowConfig:
    """The shape of a TarFlow (Zhai et al. 2024, arXiv 2412.06329).

    Args:
        channels: channels of an image, C.
        size: side of a square image, in pixels.
        patch: side of a square patch, in pixels; a patch is one token.
        width: features of a token inside the transformers.
        blocks: number of autoregressive blocks, K; odd ones read the tokens from last to first.
        layers: transformer layers in each block; one number for each makes blocks of unequal depth, as STARFlow (Gu et
            al. 2025, arXiv 2506.06276) has them. The first block reads the image, the last one gives the noise.
        head_dim: features of one attention head; divides ``width``.
        classes: number of classes; 0 for an unconditional flow.
        volume_preserving: shift only, with a learned diagonal Gaussian prior (the paper's "VP" ablation).
        log_scale_bound: B; a block scales a value by at most exp(B). The paper leaves the scale free, which is
            ``None`` here: there a random output layer of deviation 0.05 already overflows float32 with 8 blocks.
        dropout: probability of dropping a feature of a residual branch while training.
        noise_std: makes one flow of the images at every noise level, which its blocks are given (iTARFlow); this is the
            level that they take where none is passed. None for a flow of one level, which needs not know it.

    Raises:
        ValueError: if the numbers do not fit together.
    """

    channels: int
    size: int
    patch: int
    width: int
    blocks: int
    layers: int | tuple[int, ...]
    head_dim: int = 64
    classes: int = 0
    volume_preserving: bool = False
    log_scale_bound: float | None = 4.0
    dropout: float = 0.0
    noise_std: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int):
            object.__setattr__(self, "layers", tuple(self.layers))  # JSON has lists
        for name in ("channels", "size", "patch", "width", "blocks", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}; give a positive integer")
        if len(self.depths) != self.blocks or min(self.depths) < 1:
            raise ValueError(
                f"layers must be one positive integer, or one for each of {self.blocks} blocks, got {self.layers}; "
                "change layers or blocks"
            )
        if self.classes < 0:
            raise ValueError(f"classes must be at least 0, got {self.classes}; 0 is an unconditional flow")
        if self.size % self.patch or self.size == self.patch:
            raise ValueError(
                f"patch must divide size into at least 2 x 2 patches, got size {self.size} and patch {self.patch}; "
                "change one of them"
            )
        if self.width % self.head_dim:
            raise ValueError(
                f"head_dim must divide width, got width {self.width} and head_dim {self.head_dim}; "
                "use a smaller head_dim, such as 16 or 32, for a narrow flow"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}; 0 turns it off")
        if self.noise_std is not None and not self.noise_std > 0:
            raise ValueError(
                f"noise_std must be None or above 0, got {self.noise_std}; None is a flow of one noise level"
            )
        if self.log_scale_bound is not None and not 0 < self.log_scale_bound * self.blocks <= LARGEST_TOTAL_LOG_SCALE:
            raise ValueError(
                f"log_scale_bound * blocks must lie in (0, {LARGEST_TOTAL_LOG_SCALE:g}], so that float32 holds the "
                f"product of all scales, got {self.log_scale_bound} * {self.blocks}; lower log_scale_bound"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.size, self.size

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer layers of each block, in the order of encoding."""
        return (self.layers,) * self.blocks if isinstance(self.layers, int) else self.layers

    @property
    def tokens(self) -> int:
        """Number of patches of an image, T."""
        return (self.size // self.patch) ** 2

    @property
    def token_dim(self) -> int:
        """Numbers in one patch, D = C * patch**2."""
        return self.channels * self.patch**2

    @property
    def dims(self) -> int:
        """Numbers in one image, T * D."""
        return self.channels * self.size**2


# Published sizes, for tests and benchmarks: recipes give their numbers.
# ImageNet and AFHQ: Zhai et al. 2024. CIFAR-10: SeJD (arXiv 2505.24791), its CIFAR-10 teacher.
CONFIGS: dict[str, TarFlowConfig] = {
    "imagenet64-uncond": TarFlowConfig(channels=3, size=64, patch=2, width=768, blocks=8, layers=8),
    "imagenet64-cond": TarFlowConfig(channels=3, size=64, patch=2, width=768, blocks=8, layers=8, classes=1000),
    "imagenet128-cond": TarFlowConfig(channels=3, size=128, patch=4, width=1024, blocks=8, layers=8, classes=1000),
    "afhq256-cond": TarFlowConfig(channels=3, size=256, patch=8, width=768, blocks=8, layers=8, classes=3),
    "cifar10-uncond": TarFlowConfig(channels=3, size=32, patch=2, width=256, blocks=6, layers=6),
    "cifar10-cond": TarFlowConfig(channels=3, size=32, patch=2, width=256, blocks=6, layers=6, classes=10),
}
