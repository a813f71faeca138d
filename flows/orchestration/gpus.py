"""One stage at a time on each GPU, among all runs that one Prefect server knows.

Each device has a global concurrency limit of 1: `gpu` is that of the machine's first, `gpu-1` of its second. A stage
holds the slots of the devices that its processes use. A lease keeps them: if the holder is killed, the server gives
them back when it ends (see flows/orchestration/slots.py). Without a server, stages do not wait for each other.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from flows.orchestration.slots import Slots
from flows.orchestration.slots import create_limits as create_limits
from flows.session.session import Session
from flows.session.waiting import wait_for
from pipeline.engine.dag import Node
from pipeline.engine.execute import Outcome
from pipeline.engine.plan import sound
from pipeline.recipe.sections import Compute
from storage.errors import DamageError, Interrupted

LOOK = 3.0  # seconds between tries, and looks at the wish to stop, while waiting


class _Busy(Exception):
    """Another process is making the artifact: give the GPU back while we wait for it."""


def with_gpu_lock(
    node: Node, session: Session, force: bool, work: Callable[[Callable[[str], None]], Outcome]
) -> Outcome:
    """What `work` returns, run while this process holds the GPUs that the stage uses.

    `work` is given what to call, with the holder's name, if another process holds the stage's lock. A slot is always
    taken before a lock and never kept while waiting for one, so that no two processes can wait for each other.
    """
    while True:
        names = _needed(node, session, force)
        if not names:
            return work(lambda holder: wait_for(holder, node, session))
        try:
            with _slots(names, node, session):
                return work(_refuse)
        except _Busy as busy:
            holder = str(busy)
        wait_for(holder, node, session)


def devices(compute: Compute) -> list[str]:
    """The names of the limits of the GPUs on this machine that a stage uses; none on a CPU."""
    import torch

    if compute.device == "cpu" or not torch.cuda.is_available():
        return []
    first = int(compute.device.partition(":")[2] or 0)
    used = [first] if compute.nproc == 1 else range(compute.nproc)
    return [limit_name(_physical(index)) for index in used]


def limit_name(index: int) -> str:
    """`gpu`, `gpu-1`, `gpu-2` …"""
    return f"gpu-{index}" if index else "gpu"


def _physical(index: int) -> int:
    """The machine's number of what this process calls cuda:`index`, for another may see other devices."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return int(visible[index]) if index < len(visible) and visible[index].strip().isdigit() else index


def _needed(node: Node, session: Session, force: bool) -> list[str]:
    """The limits to hold: none without a server that others use too, or where there is nothing to compute."""
    if not node.stage.parallel or session.record is None or session.record.facts["server"] is None:
        return []
    try:
        if not force and sound(node, session.store) is not None:
            return []
    except DamageError:
        pass  # it is made anew
    return devices(session.recipe.compute)


def _slots(names: list[str], node: Node, session: Session) -> Slots:
    """A slot of each limit, once they are free. Raises Interrupted where the user does not want to wait."""
    slots, told = Slots(names), False
    while not session.stop:
        try:
            if slots.take():
                return slots
        except Exception as error:  # whatever the server's trouble is, the stage goes on, and asks again meanwhile
            logging.getLogger("flowctl").warning("%s could not be reserved in Prefect: %s", " and ".join(names), error)
            return slots
        if not told:
            session.display.note(f"{node.name}: waiting for {' and '.join(names)}, which another run uses")
            told = True
        time.sleep(LOOK)
    raise Interrupted(
        f"Stopped ({session.stop.reason}) while waiting for {' and '.join(names)}. Run the same command again to go on"
    )


def _refuse(holder: str) -> None:
    raise _Busy(holder)
