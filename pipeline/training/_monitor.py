"""The monitor of a training: curves (TensorBoard and JSON lines) and samples of fixed noise.

    tensorboard --logdir .flowctl/monitor

No stage reads it, and it is no part of the artifact: a lost line costs nothing, and a disk that is full for a moment
is no reason to stop.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from pipeline.outputs.curves import METRICS, read_curves
from storage.required import required
from storage.trees import remove_tree


class Monitor:
    """Writes below `folder`; nowhere if that is None. Lines of an earlier run beyond `images` are dropped."""

    def __init__(self, folder: Path | None, images: int) -> None:
        self.folder = folder
        if folder is None:
            return
        # Not SummaryWriter, whose thread dies with a traceback where the disk is full.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._forget(images)
        self._events = EventsWriter(str(folder / "events"))
        if images:  # TensorBoard then forgets the points beyond, too
            self._write(images + 1, session_log=SessionLog(status=SessionLog.START))

    def line(self, line: dict[str, float]) -> None:
        """A point of every curve, at `line["images"]`."""
        if self.folder is None:
            return
        from tensorboardX.summary import scalar

        images = int(line["images"])
        with suppress(OSError):
            with open(self.folder / METRICS, "a") as stream:
                stream.write(json.dumps(line) + "\n")
            for name, value in line.items():
                if name != "images":
                    self._write(images, summary=scalar(name, value))
            self._events.flush()

    def picture(self, images: int, picture: Image) -> None:
        """Samples after `images` images."""
        if self.folder is None:
            return
        from tensorboardX.summary import image

        with suppress(OSError):
            (self.folder / "samples").mkdir(exist_ok=True)
            picture.save(self.folder / "samples" / f"images-{images:012d}.png")
            self._write(images, summary=image("samples", np.asarray(picture.convert("RGB")), dataformats="HWC"))
            self._events.flush()

    def close(self) -> None:
        if self.folder is not None:
            with suppress(OSError):
                self._events.close()

    def _write(self, images: int, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=images, **event))

    def _forget(self, images: int) -> None:
        """Drop lines after the checkpoint that the training resumes from, and torn ones, which must not stop it."""
        folder = required(self.folder, "the monitor's folder")
        path = folder / METRICS
        try:
            lines = read_curves(folder)
        except OSError:  # none, or unreadable: start a new one
            remove_tree(path)
            return
        path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["images"] <= images))
