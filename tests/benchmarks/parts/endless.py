"""A part that never ends."""

import time


def measure(context):
    while True:
        time.sleep(60)
        yield {}
