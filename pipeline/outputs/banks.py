"""Where the stages of couplings and pairs leave their banks, and how many rows make one piece of a shard."""

BANK = "bank.zarr"
# Images encoded at once. The shape of a matrix product decides how it rounds, so this is no setting of the machine:
# whoever makes a shard makes it in these pieces, and gets these bits.
TOGETHER = 256

PAIRS, FORWARD = "pairs.zarr", "forward.zarr"
PROBED = 512  # pairs at most whose paths' straightness is measured
