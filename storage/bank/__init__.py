"""The coupling bank: pairs of image and noise in one Zarr v3 group, written shard by shard, read at training speed.

bank/facts.json            description of the bank; the first file written
bank/z/c.<shard>.0.0.0     the noise, and x/ and labels/ likewise; a file for every `shard` rows
bank/complete/<shard>.json the shard's rows and digests; written after its files are on the disk
bank/bank.json             facts and all digests; written last, and without it there is no bank
"""

from storage.bank.batches import BatchReader
from storage.bank.facts import BankFacts, facts_of
from storage.bank.reader import Bank
from storage.bank.streamed import Streamed
from storage.bank.survey import Survey, banks_below, survey
from storage.bank.writer import BankWriter

__all__ = ["Bank", "BankFacts", "BankWriter", "BatchReader", "Streamed", "Survey", "banks_below", "facts_of", "survey"]
