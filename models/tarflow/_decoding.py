"""Latents to images: the inverse of the flow, block by block."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.evaluating import evaluating
from models.patches import patchify, unpatchify
from models.tarflow._block import Block
from models.tarflow._cache import KVCache
from models.tarflow._checks import check_images, check_labels, first_bad_row
from models.tarflow._flow import TarFlow
from models.tarflow._guidance import Guidance
from models.tarflow._schedules import Schedule, Sequential
from models.tarflow._token import TokenReader, reads_tokens

SEQUENTIAL = Sequential()


# A CPU decodes ROWS_AT_ONCE rows at a time, or more if their keys and values fit in BYTES_AT_ONCE of its cache. Reading
# them from memory takes most of the time of decoding a token.
ROWS_AT_ONCE = 32
BYTES_AT_ONCE = 8 << 20


@dataclass
class BlockWork:
    """Cost of inverting one block for one row: the mean over rows, since a large batch is decoded in slices."""

    block: int  # index into TarFlow.blocks
    calls: float = 0  # network calls; with Jacobi decoding, the number of iterations
    tokens: float = 0  # tokens that went through the network; sequential decoding needs T - 1


@dataclass
class DecodingWork:
    """Filled by `decode` if given: one entry per block, in the order of decoding, last block first.

    A guided call counts once, although it computes a second, weaker prediction for each row.
    """

    blocks: list[BlockWork] = field(default_factory=list)


@torch.no_grad()
def decode(
    flow: TarFlow,
    z: Tensor,
    labels: Tensor | None = None,
    schedule: Schedule | Sequence[Schedule] = SEQUENTIAL,
    guidance: Guidance | None = None,
    attention_temperature: float = 1.0,
    work: DecodingWork | None = None,
) -> Tensor:
    """Images of latents: the inverse of ``flow.forward`` or, with guidance, of a sharpened flow.

    To sample, give it z ~ N(0, I), optionally times a prior temperature. Runs without dropout, and follows the
    ambient autocast; with `full_precision` around it, it inverts ``flow.encode``. With `Sequential` a row does not
    depend on the other rows; with other schedules it may, within their tolerance.

    Args:
        flow: the trained flow.
        z: (B, C, H, W), latents as `TarFlow.forward` gives them.
        labels: (B,) int64, -1 for a dropped label; None drops all.
        schedule: how to invert the blocks, for all of them or one for each, in the order of ``flow.blocks``.
        guidance: how far to move away from a weaker prediction; None or a scale of 0 to use the flow as it is.
        attention_temperature: the weaker prediction divides its attention logits by this. Needed to guide without
            labels: at 1 the weaker prediction of such rows is the prediction itself, and guidance does nothing.
        work: an empty `DecodingWork` to fill.

    Returns:
        x (B, C, H, W).

    Raises:
        ValueError: if an argument does not fit the flow.
        FloatingPointError: if a value is not finite; says in which block and row.
    """
    config = flow.config
    check_images(z, config, flow.dtype)
    check_labels(labels, len(z), config.classes)
    schedules = [schedule] * config.blocks if not isinstance(schedule, Sequence) else list(schedule)
    if len(schedules) != config.blocks:
        raise ValueError(f"schedules must be one for each of {config.blocks} blocks, got {len(schedules)}")
    if not attention_temperature > 0:
        raise ValueError(f"attention_temperature must be positive, got {attention_temperature}; 1 leaves it as it is")
    if guidance is None and attention_temperature != 1:
        raise ValueError("attention_temperature only acts through guidance; pass guidance=Guidance(scale) as well")
    row = first_bad_row(z)
    if row is not None:
        raise FloatingPointError(f"latents must be finite, got NaN or infinity in row {row}; check their source")

    x = torch.empty_like(z)
    rows_at_once = _rows_at_once(flow, z, guidance)
    total = [BlockWork(index) for index in reversed(range(config.blocks))]
    with evaluating(flow):
        for first in range(0, len(z), rows_at_once):
            rows = slice(first, first + rows_at_once)
            row_labels = None if labels is None else labels[rows]
            inverse = Inverse(flow, row_labels, len(z[rows]), guidance, attention_temperature)
            x[rows], block_works = inverse.of_flow(z[rows], schedules, first)
            for mean, block_work in zip(total, block_works, strict=True):
                mean.calls += block_work.calls * len(z[rows]) / len(z)
                mean.tokens += block_work.tokens * len(z[rows]) / len(z)
    if work is not None:
        work.blocks += total
    return x


def _rows_at_once(flow: TarFlow, z: Tensor, guidance: Guidance | None) -> int:
    if z.device.type != "cpu":
        return max(1, len(z))
    config = flow.config
    row_bytes = 2 * max(config.depths) * config.tokens * config.width * z.element_size()
    return max(ROWS_AT_ONCE, BYTES_AT_ONCE // row_bytes) // (1 if guidance is None else 2)


class Inverse:
    """Inverts the blocks of a flow for one batch; holds their shared state: labels, guidance and the cache."""

    def __init__(
        self, flow: TarFlow, labels: Tensor | None, batch: int, guidance: Guidance | None, attention_temperature: float
    ) -> None:
        config, weights = flow.config, flow.block(0).head.weight
        self.flow = flow
        self.labels = labels
        self.guidance_weights = self.sharpness = None
        # Without labels and at temperature 1 the weak prediction is the prediction: a - a_u = 0.
        if guidance is not None and guidance.scale > 0 and (labels is not None or attention_temperature != 1):
            self.guidance_weights = guidance.weights(config.tokens, like=weights)
            if labels is not None:
                self.labels = torch.cat([labels, torch.full_like(labels, -1)])
            batch = 2 * batch
            if attention_temperature != 1:
                self.sharpness = weights.new_ones(batch, 1, 1, 1)
                self.sharpness[batch // 2 :] = 1 / attention_temperature
        device = weights.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weights.dtype
        heads = config.width // config.head_dim
        # The last token has none after it to inform: no room for it.
        shape = (max(config.depths), batch, heads, config.tokens - 1, config.head_dim)
        self.cache = KVCache(shape, weights.device, dtype)

    def of_flow(self, z: Tensor, schedules: Sequence[Schedule], first_row: int) -> tuple[Tensor, list[BlockWork]]:
        """Invert the flow: (B, C, H, W) -> (B, C, H, W). Errors count rows from ``first_row``."""
        flow, works = self.flow, []
        tokens = self.tokens_of(z)  # (B, T, D)
        for index in reversed(range(flow.config.blocks)):
            tokens, work = self.of_block(index, flow.in_order(tokens, index), schedules[index])
            tokens = flow.in_order(tokens, index)
            works.append(work)
            row = first_bad_row(tokens)
            if row is not None:
                raise FloatingPointError(
                    f"decoded values must be finite, got row {first_row + row} overflowing in block {index}; "
                    "use a lower guidance scale or prior temperature, or Sequential() for this block"
                )
        return unpatchify(tokens, flow.config.patch), works

    def tokens_of(self, z: Tensor) -> Tensor:
        """Output of the last block, (B, T, D), for latents (B, C, H, W)."""
        if self.flow.prior_log_variance is not None:
            z = z * torch.exp(0.5 * self.flow.prior_log_variance)
        return patchify(z, self.flow.config.patch)

    def of_block(self, index: int, z: Tensor, schedule: Schedule) -> tuple[Tensor, BlockWork]:
        """Solve z = block(x) for x: (B, T, D) -> (B, T, D), in the block's own order of tokens."""
        block, tokens = self.flow.block(index), z.shape[1]
        condition = block.condition(self.labels)
        if schedule == SEQUENTIAL and reads_tokens(block, self.cache.memories[0].shape[1]):
            return self._token_by_token(block, z, condition), BlockWork(index, tokens - 1, tokens - 1)
        work = BlockWork(index)
        x = torch.zeros_like(z) if schedule.start == "zeros" else z.clone()
        x[:, 0] = z[:, 0]  # the first token has none before it, and passes unchanged
        for start, stop in schedule.windows(tokens):
            limit = schedule.max_iterations or stop - start
            for _ in range(limit):
                log_scale, shift = self.predict(block, x[:, start - 1 : stop - 1], condition, start - 1)
                update = block.invert(z[:, start:stop], log_scale, shift)
                work.calls += 1
                work.tokens += stop - start
                settled = _settled(x[:, start:stop], update, schedule.tolerance)
                x[:, start:stop] = update
                start += settled
                if start == stop:
                    break
        return x, work

    def _token_by_token(self, block: Block, z: Tensor, condition: Tensor | None) -> Tensor:
        """`of_block` for a sequential schedule: (B, T, D) -> (B, T, D)."""
        read, x = TokenReader(block, self.cache, condition, self.sharpness), z.clone()
        latents, decoded = z.unbind(1), x.unbind(1)  # each (B, D)
        for i in range(1, len(latents)):
            token = decoded[i - 1]
            if self.guidance_weights is None:
                log_scale, shift = read(token, i - 1)
            else:
                log_scale, shift = _guided(*read(torch.cat([token, token]), i - 1), self.guidance_weights[i])
            decoded[i].copy_(block.invert(latents[i], log_scale, shift))
        return x

    def predict(
        self, block: Block, tokens: Tensor, condition: Tensor | None, start: int
    ) -> tuple[Tensor | None, Tensor]:
        """The block's prediction, guided if that was asked for; arguments and result as for `Block.predict`."""
        if self.guidance_weights is None:
            return block.predict(tokens, condition, self.cache, start)
        both = torch.cat([tokens, tokens])  # one call for the two predictions
        log_scale, shift = block.predict(both, condition, self.cache, start, self.sharpness)
        weights = self.guidance_weights[start + 1 : start + 1 + tokens.shape[1]]  # (N, 1)
        return _guided(log_scale, shift, weights)


def _guided(log_scale: Tensor | None, shift: Tensor, weights: Tensor) -> tuple[Tensor | None, Tensor]:
    """A prediction for strong and weak rows, stacked, moved away from the weak ones."""
    return None if log_scale is None else _away(log_scale, weights), _away(shift, weights)


def _away(both: Tensor, weights: Tensor) -> Tensor:
    """a + w (a - a_u), for a and a_u stacked as (2B, ..., D)."""
    strong, weak = both.chunk(2)
    return strong + weights * (strong - weak)


def _settled(old: Tensor, new: Tensor, tolerance: float) -> int:
    """How many leading tokens of (B, N, D) are final: those that an update left within the tolerance. The first one is
    final in any case, for all before it are; one that moved changes what comes after it."""
    # A NaN is no small step: it does not count as settled.
    moving = ~((new - old).abs().amax(dim=(0, 2)) <= tolerance)  # (N,)
    return max(1, int(torch.argmax(moving.int()))) if bool(moving.any()) else new.shape[1]
