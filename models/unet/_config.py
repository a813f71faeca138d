"""Shape of a U-Net: what is built, checked before any memory is spent."""

from dataclasses import dataclass

from models.velocity import check_config, require


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of a :class:`~models.unet.UNet`.

    Attributes:
        channels: channels of the image, C.
        size: height and width of the (square) image, H = W.
        base: width of the first level.
        multipliers: width of each level in units of ``base``; each level halves the resolution of the one before.
        blocks: residual blocks per level on the way down (one more on the way up).
        attention: resolutions (not downsampling factors) at which each residual block is followed by self-attention.
        head_channels: channels of one attention head.
        dropout: probability in front of the second convolution of each residual block.
        classes: number of classes; 0 builds an unconditional network.
        condition_channels: channels of the image that the network is conditioned on; 0 for none.
        time_scale: radians of the fastest sinusoid that embeds a time in [0, 1].
        interval: whether it takes two times and predicts the average velocity between them.

    Raises:
        ValueError: if the fields do not fit together.
    """

    channels: int
    size: int
    base: int
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    head_channels: int = 64
    dropout: float = 0.1
    classes: int = 0
    condition_channels: int = 0
    time_scale: float = 1000.0
    interval: bool = False

    def __post_init__(self) -> None:
        # YAML and JSON hand over lists; a frozen config must be hashable.
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention", tuple(self.attention))

        check_config(self, "channels", "size", "base", "blocks", "head_channels")
        require(
            len(self.multipliers) >= 1 and min(self.multipliers, default=0) >= 1,
            f"multipliers must be one or more positive integers, got {self.multipliers}",
        )
        halvings = len(self.multipliers) - 1
        require(
            self.size % 2**halvings == 0,
            f"size must be divisible by 2^(levels - 1) = {2**halvings}, got {self.size}; "
            "pad the images or use fewer multipliers",
        )
        # Group norm takes 4 channels or more per group, and the time embedding pairs sines with cosines.
        require(self.base % 4 == 0, f"base must be divisible by 4, got {self.base}; try {-(-self.base // 4) * 4}")
        unknown = sorted(set(self.attention) - set(self.resolutions))
        require(
            not unknown,
            f"attention must name resolutions of the network {self.resolutions}, got {unknown}; "
            "change attention, size or multipliers",
        )
        # The middle block always attends, at the width of the last level.
        attending = {w for w, r in zip(self.widths, self.resolutions, strict=True) if r in self.attention}
        for width in sorted(attending | {self.widths[-1]}):
            require(
                width % self.head_channels == 0,
                f"head_channels must divide the width wherever attention is used, got head_channels "
                f"{self.head_channels} and width {width}; change head_channels, base or multipliers",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.channels, self.size, self.size

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.base * m for m in self.multipliers)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Height and width of each level, finest first."""
        return tuple(self.size // 2**level for level in range(len(self.multipliers)))


#: Published sizes, for tests and benchmarks: recipes give their numbers.
#: ``cifar10`` is the 35.75 M network of the CIFAR-10 flow matching literature (torchcfm, LOOM-CFM), unconditional as
#: there. ``digits`` is its little sister for 8x8 digits on a laptop CPU. On held-out digits (one seed) a second block
#: per level bought 1 % less loss after 600 steps for 40 % more time, dropout 0.1 none after 1200 steps for 15 % more.
CONFIGS: dict[str, UNetConfig] = {
    "cifar10": UNetConfig(channels=3, size=32, base=128),
    "digits": UNetConfig(
        channels=1,
        size=8,
        base=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(4,),
        head_channels=32,
        dropout=0.0,
        classes=10,
    ),
}
