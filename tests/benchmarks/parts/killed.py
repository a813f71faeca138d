"""A part whose process is killed."""

import os
import signal


def measure(context):
    yield {"figure": 2}
    os.kill(os.getpid(), signal.SIGKILL)
