"""Shape of a DiT, checked before any memory is spent, and the sizes that have been published."""

from dataclasses import dataclass

from models.velocity import check_config, require


@dataclass(frozen=True)
class DiTConfig:
    """Architecture of a :class:`~models.dit.DiT` (Peebles & Xie 2022, arXiv 2212.09748, sec. 3.2).

    Attributes:
        channels: channels of the image or latent, C.
        size: its height and width in pixels, H = W.
        patch: side of a square patch in pixels, p; a patch is one token.
        width: features of a token, W.
        depth: number of transformer blocks.
        heads: attention heads in each block.
        classes: number of classes; 0 builds an unconditional network.
        dropout: probability of dropping a feature at the end of each residual branch while training.
        condition_channels: channels of the image that the network is conditioned on; 0 for none.
        time_scale: radians of the fastest sinusoid that embeds a time in [0, 1].
        interval: whether it takes two times and predicts the average velocity between them.

    Raises:
        ValueError: if the fields do not fit together.
    """

    channels: int
    size: int
    patch: int
    width: int
    depth: int
    heads: int
    classes: int = 0
    dropout: float = 0.0
    condition_channels: int = 0
    time_scale: float = 1000.0
    interval: bool = False

    def __post_init__(self) -> None:
        check_config(self, "channels", "size", "patch", "width", "depth", "heads")
        # A single token has nothing to attend to.
        require(
            self.size % self.patch == 0 and self.size > self.patch,
            f"patch must divide size into at least 2 x 2 patches, got patch {self.patch} and size {self.size}; "
            "change one of them",
        )
        # A sine and a cosine for each of the two coordinates of a position.
        require(self.width % 4 == 0, f"width must be divisible by 4, got {self.width}; try {-(-self.width // 4) * 4}")
        require(
            self.width % self.heads == 0,
            f"heads must divide width, got heads {self.heads} and width {self.width}; change one of them",
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.size, self.size

    @property
    def tokens(self) -> int:
        """Number of patches of an image, T."""
        return (self.size // self.patch) ** 2


# Table 1 of the paper: width, depth, heads.
_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}

#: Published sizes, for tests and benchmarks: recipes give their numbers.
#: "dit-s/1" to "dit-xl/4", size and patch, on the paper's 32x32x4 latents of ImageNet's 256x256 images. On other images
#: the same size is ``dataclasses.replace(CONFIGS[name], channels=..., size=..., classes=...)``.
CONFIGS: dict[str, DiTConfig] = {
    f"dit-{name}/{patch}": DiTConfig(
        channels=4, size=32, patch=patch, width=width, depth=depth, heads=heads, classes=1000
    )
    for name, (width, depth, heads) in _SIZES.items()
    for patch in (1, 2, 4)
}
